"""Proofs about a log: made from it, checked without it, and worthless when bent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgekit.core.audit_chain import Head, Pace, empty_head, encode_head, next_chain
from edgekit.core.audit_checkpoint import record_envelope
from edgekit.core.audit_keys import encode_audit_key
from edgekit.core.audit_proof import verify_proof
from edgekit.core.hybrid_key import HybridKey
from edgekit.errors import AuditCheckpointError, AuditError, AuditMissingError
from edgekit.operations.audit import Brought
from edgekit.operations.audit_proof import check_proof, prove_consistency, prove_record
from edgekit.system.audit_files import load_audit_signer, public_half_path
from tests.support.audit_logs import Written, start_log, write_requests


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("proofs") / "audit"
    written = start_log(folder, pace=Pace(300, 16), segment_bytes=20_000)
    write_requests(written, 60)
    return written


@pytest.fixture(scope="module")
def signer(log: Written) -> HybridKey:
    return load_audit_signer(public_half_path(log.directory, log.first_key.log_id))


def checkpoints(log: Written, folder: Path) -> list[Path]:
    paths = []
    for line in log.lines():
        record = json.loads(line.data)
        if record["type"] == "checkpoint":
            path = folder / f"{record['seq']:04d}.checkpoint"
            path.write_bytes(record_envelope(record))
            paths.append(path)
    return paths


def test_every_record_under_a_checkpoint_can_be_proven(log: Written, signer: HybridKey) -> None:
    lines = log.lines()
    for seq in range(1, len(lines)):
        proof = prove_record(log.directory, seq, Brought())
        proven = verify_proof(proof, signer)
        assert proven.record == json.loads(lines[seq - 1].data)
    with pytest.raises(AuditMissingError, match="no checkpoint covers"):
        prove_record(log.directory, len(lines), Brought())


def test_any_changed_character_of_a_proof_is_refused(log: Written, signer: HybridKey) -> None:
    proof = prove_record(log.directory, 7, Brought())
    step = 61  # of some nine thousand: a prime, so that every kind of field is met
    fired = 0
    for place in range(0, len(proof), step):
        bent = proof[:place] + bytes([proof[place] ^ 1]) + proof[place + 1 :]
        try:
            proven = verify_proof(bent, signer)
        except AuditError:
            fired += 1
            continue
        # a key id is a hint and decides nothing
        assert proven.record == verify_proof(proof, signer).record
        assert b"keyid" in proof[place - 80 : place]
    assert fired > 100


def test_proof_of_a_record_under_another_number_is_refused(
    log: Written, signer: HybridKey
) -> None:
    table = json.loads(prove_record(log.directory, 7, Brought()))
    table["seq"] = 8
    with pytest.raises(AuditCheckpointError, match="not in the log"):
        verify_proof(json.dumps(table, sort_keys=True, separators=(",", ":")).encode(), signer)


def test_checkpoints_continue_each_other(log: Written, tmp_path: Path) -> None:
    paths = checkpoints(log, tmp_path)
    assert len(paths) >= 4
    half = public_half_path(log.directory, log.first_key.log_id)
    for old, new in [(0, 1), (0, 3), (2, 3), (1, 1)]:
        proof = tmp_path / "proof"
        proof.write_bytes(prove_consistency(log.directory, paths[old], paths[new], Brought()))
        proven = check_proof(proof, half)
        assert proven.record is None
        assert proven.old.value.seq <= proven.new.value.seq
    with pytest.raises(AuditCheckpointError, match="older"):
        prove_consistency(log.directory, paths[2], paths[1], Brought())


def test_log_that_was_cut_and_went_on_does_not_continue(log: Written, tmp_path: Path) -> None:
    """Two histories under one key: both checkpoints verify, together they do not."""
    other = tmp_path / "audit"
    shutil.copytree(log.directory, other)
    true = checkpoints(log, tmp_path)
    lines = log.lines()
    forged = Written(other, log.first_key, log.clock, log.settings)
    for path in forged.segments()[1:]:
        path.unlink()
    first = forged.segments()[0]
    kept = [line for line in lines if line.segment == first.name]
    chain = empty_head(log.first_key.log_id).chain
    for line in kept:
        chain = next_chain(chain, line.data)
    (other / "head.json").write_bytes(encode_head(Head(log.first_key.log_id, len(kept), chain)))
    key_file = next(other.glob("audit-*/mac.key"))
    key_file.write_bytes(encode_audit_key(log.first_key).ljust(1024, b"\0"))
    write_requests(forged, 40)
    with pytest.raises(AuditCheckpointError):
        prove_consistency(other, true[0], true[-1], Brought())
