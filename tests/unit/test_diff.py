"""What changes from one set to another: each difference is named, bytes are counted once."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.core.carried_model import SHAPE_KEYS, CarriedModel, CarriedVariant
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.host_layout import HostLayout
from edgekit.core.names import RelPath
from edgekit.core.release import CarriedImage, Entry, Manifest, Requirements
from edgekit.core.trust import Floor
from edgekit.errors import DigestError, SignatureError
from edgekit.operations.diff import SetDiff, diff_sets
from edgekit.operations.verify import Trusting
from edgekit.system.trust_store import TrustStore
from tests.support.sets import Hole, RootBuilder, SetBuilder

ENTRIES: dict[str, bytes | Hole] = {
    "documents/terms.txt": b"terms",
    "engines/llama/bin/server": b"engine",
    "images/one": b"image one",
    "weights/llama.gguf": b"weights" * 100,
    "wheels/torch-2.0-py3.whl": b"torch",
    "wheels/numpy-1.0-py3.whl": b"numpy",
}
ROLES = {"documents": "document", "engines": "engine", "images": "image", "weights": "weights",
         "wheels": "wheel"}
SHAPE = tuple((name, 1) for name in sorted(SHAPE_KEYS))
ENGINE = EnginePack("llama.cpp", "wheel", "1.0", RelPath("engines/llama"),
                    RelPath("engines/llama/bin/server"))
VARIANT = CarriedVariant("gguf", "Q4_K", (RelPath("weights/llama.gguf"),), 700, SHAPE)
MODEL = CarriedModel("llama", 4096, "mit", "llama", 1000, (VARIANT,), ())
IMAGE = CarriedImage("app", "example.org/app:1", Digest.of(b"1", "sha256"),
                     (RelPath("images/one"),))


@dataclass
class FullBuilder(SetBuilder):
    """A set with roles by folder, an engine, a model and an image."""

    images: tuple[CarriedImage, ...] = (IMAGE,)

    def _manifest(self, entries: tuple[Entry, ...]) -> Manifest:
        entries = tuple(replace(e, role=ROLES[e.path.parts[0]]) for e in entries)
        return replace(super()._manifest(entries), images=self.images)


OLD = FullBuilder(entries=ENTRIES, engines=(ENGINE,), models=(MODEL,))


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Trusting:
    """A host that has already accepted something newer than any set here."""
    layout = HostLayout(tmp_path_factory.mktemp("host"))
    store = TrustStore(layout.trust)
    store.save_root(RootBuilder().trusted())
    store.save_floor(Floor(9, 9, "sha384:" + "0" * 96))
    return Trusting(layout)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OLD.write(tmp_path_factory.mktemp("old") / "set")


def changes(found: SetDiff) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    return {(c.what, c.name): (c.before, c.after) for c in found.changes}


def test_a_set_is_the_same_as_itself(old: Path, trusting: Trusting) -> None:
    found = diff_sets(old, old, trusting)
    assert found.changes == ()
    total = sum(len(content) for content in ENTRIES.values() if isinstance(content, bytes))
    assert (found.new_bytes, found.shared_bytes, found.gone_bytes) == (0, total, 0)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (replace(OLD, version="1.1.0", sequence=2),
         {("release", "version"): ("1.0.0", "1.1.0"), ("release", "sequence"): ("1", "2")}),
        (replace(OLD, requirements=Requirements("x86_64", (2, 36), ("avx2",), 0)),
         {("requirement", "glibc"): ("2.17", "2.36"),
          ("requirement", "cpu flag avx2"): (None, "needed")}),
        (replace(OLD, models=(replace(MODEL, context=8192),)), {("model", "llama"): ...}),
        (replace(OLD, models=(replace(MODEL, canaries=(("a", "b"),)),)),
         {("model", "llama"): ...}),
        (replace(OLD, models=(MODEL, replace(MODEL, name="more"))),
         {("model", "more"): ..., ("variant", "more gguf Q4_K"): ...}),
        (replace(OLD, models=(replace(MODEL, variants=(
            VARIANT, replace(VARIANT, quantization="Q8_0"))),)),
         {("variant", "llama gguf Q8_0"): ...}),
        (replace(OLD, engines=(replace(ENGINE, version="2.0"),)),
         {("engine", "llama.cpp (wheel)"): ...}),
        (replace(OLD, images=()), {("image", "app"): ..., ("file", "images/one"): ...}),
        (replace(OLD, images=(replace(IMAGE, reference="example.org/app:2"),)),
         {("image", "app"): ...}),
        (replace(OLD, installer=b"another"), {("file", "edgekit"): ...}),
    ],
)
def test_each_change_is_named_and_nothing_else(
    old: Path, trusting: Trusting, tmp_path: Path, new: SetBuilder, expected: dict[object, object]
) -> None:
    found = changes(diff_sets(old, new.write(tmp_path / "new"), trusting))
    assert set(found) == set(expected)
    for key, sides in expected.items():
        assert sides in (..., found[key])  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "content", "key"),
    [
        ("documents/terms.txt", b"other terms", ("file", "documents/terms.txt")),
        ("engines/llama/bin/server", b"other", ("engine", "llama.cpp (wheel)")),
        ("weights/llama.gguf", b"other", ("variant", "llama gguf Q4_K")),
        ("wheels/torch-2.0-py3.whl", b"rebuilt", ("wheel", "torch")),
        ("documents/new.txt", b"new", ("file", "documents/new.txt")),
    ],
)
def test_other_content_is_named_by_what_it_is_and_counted(
    old: Path, trusting: Trusting, tmp_path: Path, path: str, content: bytes,
    key: tuple[str, str],
) -> None:
    new = replace(OLD, entries={**ENTRIES, path: content}).write(tmp_path / "new")
    found = diff_sets(old, new, trusting)
    assert set(changes(found)) == {key}
    before = ENTRIES.get(path, b"")
    assert isinstance(before, bytes)
    assert (found.new_bytes, found.gone_bytes) == (len(content), len(before))


def test_a_newer_wheel_is_one_change(old: Path, trusting: Trusting, tmp_path: Path) -> None:
    entries = {k: v for k, v in ENTRIES.items() if "numpy" not in k}
    new = replace(OLD, entries={**entries, "wheels/numpy-2.0-py3.whl": b"numpy 2"})
    found = changes(diff_sets(old, new.write(tmp_path / "new"), trusting))
    before, after = found.pop(("wheel", "numpy"))
    assert (found, str(before)[:7], str(after)[:7]) == ({}, "1.0-py3", "2.0-py3")


def test_bytes_are_counted_by_blob(old: Path, trusting: Trusting, tmp_path: Path) -> None:
    twice: dict[str, bytes | Hole] = {
        **ENTRIES, "documents/x.txt": b"same", "documents/y.txt": b"same",
        "documents/z.txt": b"terms",
    }
    found = diff_sets(old, replace(OLD, entries=twice).write(tmp_path / "new"), trusting)
    assert (found.new_bytes, found.gone_bytes) == (4, 0)


def test_other_signers_are_named(old: Path, trusting: Trusting, tmp_path: Path) -> None:
    second = RootBuilder(2, ("ann", "cid"), signed_by=("ann", "ben", "cid"))
    new = replace(OLD, roots=(RootBuilder(), second)).write(tmp_path / "new")
    assert changes(diff_sets(old, new, trusting)) == {
        ("release", "root version"): ("1", "2"),
        ("signer", "ben"): ("signed", None), ("signer", "cid"): (None, "signed"),
    }


def test_both_sets_must_be_signed_and_whole(
    old: Path, trusting: Trusting, tmp_path: Path
) -> None:
    theirs = replace(OLD, roots=(RootBuilder(signers=("eve", "mallory")),)).write(tmp_path / "x")
    for pair in ((old, theirs), (theirs, old)):
        with pytest.raises(SignatureError):
            diff_sets(*pair, trusting)
    damaged = replace(OLD, version="2.0.0").write(tmp_path / "new")
    (damaged / "README.txt").write_bytes(bytes((damaged / "README.txt").stat().st_size))
    with pytest.raises(DigestError):
        diff_sets(old, damaged, trusting)


def test_the_command_prints_text_and_json(
    old: Path, trusting: Trusting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = replace(OLD, version="2.0.0", images=()).write(tmp_path / "new")
    arguments = ["diff", str(old), str(new), "--root", str(trusting.layout.root)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "\n~ release    version: 1.0.0 -> 2.0.0\n" in text
    assert "\n- image      app: example.org/app:1 sha256:" in text
    assert "\n+ file       images/one: 9 bytes" in text
    assert main([*arguments, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["schema"], table["same"]) == ("edgekit.diff/1", False)
    assert table["bytes"]["new"] == 0
    assert main(["diff", str(old), str(old), *arguments[3:]]) == 0
    assert "nothing differs" in capsys.readouterr().out
