"""Sets that are for another host: refused by `install` with found and needed, nothing changed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core import trust
from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.engine_pack import EnginePack
from edgekit.core.names import RelPath
from edgekit.core.release import Requirements
from tests.support.appliance import tree_state
from tests.support.sets import SetBuilder

REPOSITORY = Path(__file__).resolve().parents[2]
ARCH = platform.machine()
WEIGHTS = RelPath("models/giant/0-f16/giant.gguf")
SHAPE = {"layers": 4096, "width": 65536, "ffn": 1 << 20, "heads": 512, "kv_heads": 512,
         "key_width": 128, "value_width": 128, "context": 1 << 20, "vocabulary": 1 << 20}
GIANT = CarriedModel(
    name="giant", context=1 << 20, license="none", family="llama", parameter_count=10**12,
    canaries=(),
    variants=(CarriedVariant("gguf", "F16", (WEIGHTS,), 1 << 40, tuple(sorted(SHAPE.items()))),),
)
ENGINE = EnginePack("llama.cpp", "wheel", "1", RelPath("engines/x"), RelPath("engines/x/run"))


def install(folder: Path, root: Path, fingerprint: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "edgekit", "install", str(folder), "--root", str(root),
            "--fingerprint", fingerprint]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False,
                          env=dict(os.environ))


def build(tmp_path: Path, **changes: object) -> tuple[Path, str]:
    """A guarded set with one thing changed, and the fingerprint of its root."""
    builder = SetBuilder(**changes)  # type: ignore[arg-type]
    folder = builder.write(tmp_path / "set")
    return folder, trust.fingerprint((folder / "trust/1.root.json").read_bytes())


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda: {"requirements": Requirements("aarch64" if ARCH == "x86_64" else "x86_64",
                                               (2, 17), (), 0)},
         31, ("another processor architecture", ARCH)),
        (lambda: {"requirements": Requirements(ARCH, (9, 99), (), 0)}, 31,
         ("newer C library", "glibc 9.99")),
        (lambda: {"requirements": Requirements(ARCH, (2, 17), ("quantum",), 0)}, 31,
         ("lacks instructions", "quantum")),
        (lambda: {"requirements": Requirements(ARCH, (2, 17), (), 0), "models": (GIANT,),
                  "engines": (ENGINE,), "entries": {str(WEIGHTS): b"tiny"}, "role": "weights"},
         32, ("not enough memory for giant", "MiB")),
    ],
    ids=["architecture", "C library", "CPU flags", "memory"],
)
def test_a_set_for_another_host_is_refused(
    tmp_path: Path, change: Callable[[], dict[str, object]], code: int, words: tuple[str, ...]
) -> None:
    folder, fingerprint = build(tmp_path, **change())
    root = tmp_path / "h"
    root.mkdir()
    before = tree_state(root)
    done = install(folder, root, fingerprint)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr
    assert "needed" in done.stderr
    assert "found" in done.stderr or code == 31
    assert tree_state(root) == before


def test_a_set_without_enough_signatures_is_refused(tmp_path: Path) -> None:
    """Two people must sign; the release statement carries the signatures of one."""
    folder, fingerprint = build(tmp_path)
    path = folder / "release.json"
    data = path.read_bytes()
    start = data.index(b'"signatures":[') + len(b'"signatures":[')
    path.write_bytes(data[:start] + b"]}")
    done = install(folder, tmp_path / "h", fingerprint)
    assert (done.returncode, "not signed by enough" in done.stderr) == (21, True), done.stderr
