"""`edgekit audit prove`, `consistency` and `check-proof`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.core.audit_chain import parse_line
from edgekit.core.audit_checkpoint import SignedCheckpoint, verify_checkpoint
from edgekit.core.audit_proof import (
    MAX_PROOF_BYTES,
    Proven,
    check_same_log,
    encode_consistency,
    encode_inclusion,
    verify_proof,
)
from edgekit.core.audit_state import parse_segment
from edgekit.core.audit_verify import Evidence, Verifier
from edgekit.core.hybrid_key import HybridKey
from edgekit.core.merkle import Prover, leaf_hash
from edgekit.errors import AuditMissingError, TrustError
from edgekit.operations.audit import MAX_ANCHOR_BYTES, Brought, gather_evidence
from edgekit.system.audit_files import load_audit_signer, read_lines
from edgekit.system.files import read_bounded


def prove_record(log_dir: Path, seq: int, brought: Brought) -> bytes:
    """The proof that record `seq` is in the log, under the newest checkpoint.

    The whole log is verified on the way. Raises what `verify_audit` raises, AuditMissingError when
    no checkpoint covers the record yet.
    """
    evidence = gather_evidence(log_dir, brought)
    known = _read(log_dir, evidence, _require_signer(evidence))
    if known.newest is None or not evidence.first <= seq <= known.newest.value.seq:
        raise AuditMissingError(
            "no checkpoint covers this record",
            found=f"record {seq}",
            needed=f"{evidence.first} to {known.newest.value.seq if known.newest else 0}",
            hint="wait for the end of the epoch, or stop the service, which ends it",
        )
    path = known.prover.inclusion(seq - 1, known.newest.value.seq)
    return encode_inclusion(known.newest, seq, known.lines[seq - evidence.first], path)


def prove_consistency(log_dir: Path, old: Path, new: Path, brought: Brought) -> bytes:
    """The proof that checkpoint `new` continues checkpoint `old`, from the log that has both.

    Raises AuditCheckpointError when it does not, and what `verify_audit` raises.
    """
    evidence = gather_evidence(log_dir, brought)
    signer = _require_signer(evidence)
    first, second = (
        verify_checkpoint(read_bounded(path, MAX_ANCHOR_BYTES, "checkpoint"), signer)
        for path in (old, new)
    )
    check_same_log(first, second)
    known = _read(log_dir, replace(evidence, anchors=(first, second)), signer)
    path = known.prover.consistency(first.value.seq, second.value.seq)
    return encode_consistency(first, second, path)


def check_proof(proof: Path, signer: Path) -> Proven:
    """Check a proof of either kind, without the log."""
    return verify_proof(read_bounded(proof, MAX_PROOF_BYTES, "proof"), load_audit_signer(signer))


@dataclass(frozen=True, slots=True)
class _Known:
    """A verified log: its lines, what makes proofs about it, and its newest checkpoint."""

    lines: list[bytes]
    prover: Prover
    newest: SignedCheckpoint | None


def _read(log_dir: Path, evidence: Evidence, signer: HybridKey) -> _Known:
    verifier = Verifier(evidence)
    found = [verified.line for verified in verifier.check(read_lines(log_dir, evidence.first))]
    envelope = verifier.verdict().newest
    start = parse_segment(parse_line(found[0], evidence.first), found[0])
    lines = [line.data for line in found]
    prover = Prover(start.seq, start.tree.peaks(), [leaf_hash(line) for line in lines])
    return _Known(lines, prover, verify_checkpoint(envelope, signer) if envelope else None)


def _require_signer(evidence: Evidence) -> HybridKey:
    if evidence.signer is None:
        raise TrustError(
            "a proof needs the host's audit key", hint="give --pubkey AUDIT.signer.json"
        )
    return evidence.signer
