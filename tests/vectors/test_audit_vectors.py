"""Every file of docs/spec/audit-vectors: outcome, exit code and place are what its header says.

Both ways: by the verifier, and by the command as an auditor types it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.core.audit_chain import Head
from edgekit.core.audit_checkpoint import verify_checkpoint
from edgekit.core.audit_keys import parse_audit_key
from edgekit.core.audit_verify import Evidence, Verdict, Verifier
from edgekit.errors import AuditError
from edgekit.system.audit_files import load_audit_signer, segment_lines, segment_name
from tests.support.audit_logs import located
from tools import make_audit_vectors
from tools.make_audit_vectors import CODES, FOLDER, LOG_ID, read_vector

VECTORS = sorted(FOLDER.glob("*.txt"))
WITH_KEY = [path for path in VECTORS if "signer" in read_vector(path)[0]]
"""The command wants the audit key's public half of a log that brings none."""
KEYS = {
    "expect", "code", "step", "record", "byte", "signer", "key", "anchor", "head", "first",
    "comment",
}


def laid_out(path: Path, folder: Path) -> dict[str, str]:
    """The vector's segment in a folder, its head beside it; returns the header."""
    header, body = read_vector(path)
    folder.mkdir()
    (folder / segment_name(int(header["first"]))).write_bytes(body)
    if "head" in header:
        seq, chain = header["head"].split()
        table = {"chain": chain, "log_id": LOG_ID, "schema": "edgekit.audit-head/1"}
        (folder / "head.json").write_text(json.dumps({**table, "seq": int(seq)}, sort_keys=True,
                                                     separators=(",", ":")) + "\n")
    return header


def verify(header: dict[str, str], folder: Path) -> Verdict:
    """As the header says. Raises AuditError."""
    signer = load_audit_signer(FOLDER / header["signer"]) if "signer" in header else None
    keys = (parse_audit_key((FOLDER / header["key"]).read_bytes()),) if "key" in header else ()
    anchors = ()
    if "anchor" in header:
        assert signer is not None
        anchors = (verify_checkpoint((FOLDER / header["anchor"]).read_bytes(), signer),)
    head = None
    if "head" in header:
        seq, chain = header["head"].split()
        head = Head(LOG_ID, int(seq), bytes.fromhex(chain))
    first = int(header["first"])
    verifier = Verifier(Evidence(signer, keys, anchors, head, first))
    for _ in verifier.check(segment_lines(folder / segment_name(first))):
        pass
    return verifier.verdict()


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path, tmp_path: Path) -> None:
    header = laid_out(path, tmp_path / "log")
    assert set(header) <= KEYS
    assert int(header["code"]) == CODES[header["expect"]]
    if "step" not in header:
        verdict = verify(header, tmp_path / "log")
        assert verdict.last == int(header["record"])
        unvouched = bool(verdict.unvouched or verdict.after_anchor)
        assert unvouched == (header["expect"] == "unvouched")
        return
    with pytest.raises(AuditError) as caught:
        verify(header, tmp_path / "log")
    assert int(caught.value.exit_code) == int(header["code"]), caught.value
    if header["expect"] != "truncated" or "truncated-all" not in path.name:
        assert located(caught.value) == (int(header["record"]), int(header["byte"]))


@pytest.mark.parametrize("path", WITH_KEY, ids=lambda path: path.stem)
def test_the_command_ends_with_the_vectors_code(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = laid_out(path, tmp_path / "log")
    argv = ["audit", "verify", "--log", str(tmp_path / "log")]
    for option, name in (("--pubkey", "signer"), ("--k0", "key"), ("--anchor", "anchor")):
        if name in header:
            argv += [option, str(FOLDER / header[name])]
    if header["first"] != "1" or "missing-segment" in path.name:
        argv += ["--from", header["first"]]
    code = main(argv)
    print(capsys.readouterr())
    assert code == int(header["code"])


def test_every_kind_of_outcome_and_every_step_has_a_vector() -> None:
    headers = [read_vector(path)[0] for path in VECTORS]
    assert {header["expect"] for header in headers} == CODES.keys()
    assert {h.get("step") for h in headers} - {None} == {f"A{n}" for n in range(1, 9)} - {"A4"}


def test_they_are_what_the_generator_writes(tmp_path: Path) -> None:
    assert make_audit_vectors.check(FOLDER) == [], "run: python -m tools.make_audit_vectors"
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    (copy / "altered-mac.txt").write_bytes(b"x")
    (copy / "surprise.txt").write_bytes(b"x")
    assert make_audit_vectors.check(copy) == ["altered-mac.txt", "surprise.txt"]
