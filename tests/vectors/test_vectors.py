"""Every file of docs/spec/vectors: outcome, exit code and step are what its header says.

The reader under test is the one that installs; the header's format is docs/spec/vectors/README.md.
"""

from __future__ import annotations

import re
import shutil
import traceback
from pathlib import Path

import pytest

from edgekit.core import trust
from edgekit.core.release import parse_manifest, parse_volume_table
from edgekit.errors import EdgekitError
from edgekit.system.bundle_set import open_set, verify_set
from edgekit.system.trust_store import HostTrust
from edgekit.system.volumes import read_volumes
from tests.support.sets import quiet
from tools import make_vectors
from tools.make_vectors import FOLDER
from tools.vector_files import BrokenVectorError
from tools.vector_workshop import CODES, read_set, read_vector

VECTORS = sorted(FOLDER.glob("*.txt"))
KEYS = {
    "expect", "code", "step", "kind", "root", "floor", "fingerprint", "base", "encoding", "comment",
}
STEP_OF = {
    "open_set": "V1",
    "_check_sizes": "V1",
    "trust_first_root": "V2",
    "_extend_roots": "V2",
    "extend_root": "V2",
    "verify_release": "V3",
    "check_floor": "V4",
    "_signed_file": "V5",
    "_check_digest": "V5",
    "parse_manifest": "V5",
    "parse_volume_table": "V5",
    "_check_versions": "V5",
    "_check_blobs": "V5",
    "verify_set": "V5",  # the two documents that it looks up itself
    "_check_shape": "V6",
    "_check_sums": "V6",
    "read_volumes": "V7",
}
"""The functions that carry out the steps of bundle-v1 section 9."""

SAID = {
    "white-space": "canonical form",
    "envelope-key-twice": "duplicate key",
    "keyid-twice": "two signatures claim the same key",
    "key-unknown": "unknown key",
    "byte-order-mark": "not valid JSON",
    "signatures-65": "more than 64",
    "nesting": "nested too deeply",
    "bare-pae": "not signed by enough",
    "policy-cnsa2": "not signed by enough",
    "root-key-twice": "one public key twice",
    "path-parent": "unsafe path",
    "path-backslash": "backslash",
    "path-not-nfc": "NFC",
    "overlap": "overlap",
    "gap": "leave a gap",
    "parity": "newer edgekit",
    "case-clash": "unique without case",
    "floor-other-statement": "same sequence number",
    "versions-differ": "different bundles",
    "blob-": "blob",
    "shape-foreign": "does not belong",
}
"""Words that the complaint about a vector contains, by a part of the vector's name."""


def read(path: Path, scratch: Path) -> None:
    """Read what a vector holds, as a host that trusts what its header says."""
    header, body = read_vector(path)
    root = (FOLDER / header["root"]).read_bytes() if "root" in header else b""
    floor = trust.Floor()
    if "floor" in header:
        epoch, sequence, statement = header["floor"].split(" ")
        floor = trust.Floor(int(epoch), int(sequence), statement)
    if header["kind"] == "release":
        trust.check_floor(trust.verify_release(trust.restore_root(root), body), floor)
    elif header["kind"] == "root" and root:
        trust.extend_root(trust.restore_root(root), body)
    elif header["kind"] == "root":
        trust.trust_first_root(body, header["fingerprint"])
    elif header["kind"] == "manifest":
        parse_manifest(body)
    elif header["kind"] == "volumes":
        parse_volume_table(body)
    else:
        assert header["kind"] == "set"
        folder = lay_out(read_set(path), scratch / "set")
        found = verify_set(open_set((folder,)), HostTrust(trust.restore_root(root), floor))
        read_volumes(found.table, found.volume_path, wanted=None, sink=None, listener=quiet,
                     task="verify")


def lay_out(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def step_of(error: EdgekitError) -> str | None:
    """The step in which an error arose: the innermost function that carries one out."""
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return next((STEP_OF[name] for name in reversed(frames) if name in STEP_OF), None)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_ends_as_its_header_says(path: Path, tmp_path: Path) -> None:
    header, _ = read_vector(path)
    assert set(header) <= KEYS
    if header["expect"] == "success":
        assert header["code"] == "0"
        read(path, tmp_path)
        return
    with pytest.raises(EdgekitError) as caught:
        read(path, tmp_path)
    error = caught.value
    said = f"{error.message} {error.where} {error.found} {error.needed}"
    assert (error.slug, int(error.exit_code)) == (header["expect"], int(header["code"])), said
    assert step_of(error) == header["step"], said
    for part, words in SAID.items():
        if part in path.stem:
            assert words in said


def test_there_is_a_vector_for_every_step_and_outcome() -> None:
    headers = [read_vector(path)[0] for path in VECTORS]
    refused = [header for header in headers if header["expect"] != "success"]
    assert {header["step"] for header in refused} == {f"V{number}" for number in range(1, 8)}
    assert {header["expect"] for header in headers} == set(CODES)
    assert len(headers) - len(refused) >= 6
    for part in SAID:
        assert any(part in path.stem for path in VECTORS), part


def test_the_vectors_are_what_the_tool_writes() -> None:
    assert make_vectors.check(FOLDER) == [], "run: python -m tools.make_vectors"


def test_the_check_sees_a_changed_a_missing_and_a_new_file(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "vectors"))
    (copy / "path-parent.txt").unlink()
    (copy / "path-surprise.txt").write_bytes((copy / "path-dot.txt").read_bytes())
    changed = copy / "set-floor.txt"
    changed.write_bytes(changed.read_bytes().replace(b"step: V4", b"step: V3"))
    assert make_vectors.check(copy) == ["path-parent.txt", "path-surprise.txt", "set-floor.txt"]


def test_lost_signatures_are_made_anew_and_then_kept(tmp_path: Path) -> None:
    keys = Path(shutil.copytree(FOLDER / "keys", tmp_path / "vectors/keys")).parent
    for path in keys.glob("keys/*.json"):
        path.unlink()
    for name, data in make_vectors.files(keys).items():
        (keys / name).write_bytes(data)
    assert make_vectors.check(keys) == []
    assert make_vectors.files(FOLDER) != make_vectors.files(keys), "signatures are randomised"


def test_the_keys_of_the_vectors_are_no_keys_of_a_host() -> None:
    data = (FOLDER / "keys/root-developer.json").read_bytes()
    with pytest.raises(EdgekitError, match="developer root"):
        trust.trust_first_root(data, trust.fingerprint(data))


@pytest.mark.parametrize(
    "data", [b"\xff broken", b"", b"kind: set\nbase: none.txt\n\n{", b"a: b\n\n"]
)
def test_a_file_that_is_no_vector_is_named(tmp_path: Path, data: bytes) -> None:
    folder, name = tmp_path / "vectors", VECTORS[0].name
    shutil.copytree(FOLDER, folder)
    (folder / name).write_bytes(data)
    line = rf"^{re.escape(name)} is no vector: [^\n]*$"
    with pytest.raises(BrokenVectorError, match=line):
        make_vectors.check(folder)
