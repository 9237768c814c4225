"""A local folder as a source of weights."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Event, Listener, ignore_events
from edgekit.core.lock import LockedFile
from edgekit.core.names import RelPath
from edgekit.errors import RefusedContentError, SourceDigestError, SourceError
from edgekit.sources.folder import fetch_folder, lock_folder
from edgekit.system.digest_cache import DigestCache
from edgekit.system.process import run

GGUF = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + bytes(5000)
MODEL, CONFIG = RelPath("sub/model.gguf"), RelPath("config.json")


def lock(
    base: Path, files: list[RelPath], listener: Listener = ignore_events
) -> tuple[LockedFile, ...]:
    with DigestCache(base.parent) as digests:
        return lock_folder(base, files, digests, listener)


def fetch(base: Path, locked: tuple[LockedFile, ...]) -> dict[RelPath, Path]:
    with DigestCache(base.parent) as digests:
        return fetch_folder(base, locked, digests)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "weights"
    (base / "sub").mkdir(parents=True)
    (base / "sub" / "model.gguf").write_bytes(GGUF)
    (base / "config.json").write_bytes(b"{}")
    return base


def test_lock_then_fetch(folder: Path) -> None:
    events: list[Event] = []
    locked = lock(folder, [MODEL, CONFIG], events.append)
    assert [(f.path, f.size, f.sha256) for f in locked] == [
        (MODEL, len(GGUF), Digest.of(GGUF, "sha256")), (CONFIG, 2, Digest.of(b"{}", "sha256"))]
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == len(GGUF) + 2
    assert fetch(folder, locked) == {MODEL: folder / "sub/model.gguf",
                                            CONFIG: folder / "config.json"}


@pytest.mark.parametrize("data", [GGUF[:-1] + b"x", GGUF + b"x"], ids=["same size", "longer"])
def test_a_changed_file_is_named(folder: Path, data: bytes) -> None:
    locked = lock(folder, [CONFIG, MODEL])
    before = (folder / "sub/model.gguf").stat()
    (folder / "sub/model.gguf").write_bytes(data)
    os.utime(folder / "sub/model.gguf", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SourceDigestError, match=r"sub/model\.gguf changed"):
        fetch(folder, locked)


def test_a_missing_file_is_named(folder: Path) -> None:
    locked = lock(folder, [MODEL])
    (folder / "sub/model.gguf").unlink()
    with pytest.raises(SourceError, match="not in the folder"):
        fetch(folder, locked)
    with pytest.raises(SourceError, match="not in the folder"):
        lock(folder / "nowhere", [MODEL])


def test_links_may_stay_inside_but_not_leave(folder: Path, tmp_path: Path) -> None:
    (folder / "inside.gguf").symlink_to("sub/model.gguf")
    assert lock(folder, [RelPath("inside.gguf")])[0].size == len(GGUF)
    (tmp_path / "outside.gguf").write_bytes(GGUF)
    (folder / "out.gguf").symlink_to(tmp_path / "outside.gguf")
    (folder / "up").symlink_to(tmp_path)
    for name in ("out.gguf", "up/outside.gguf"):
        with pytest.raises(RefusedContentError, match="leaves the folder"):
            lock(folder, [RelPath(name)])


def test_loops_pipes_and_folders_are_refused(folder: Path) -> None:
    (folder / "loop.gguf").symlink_to("loop.gguf")
    os.mkfifo(folder / "pipe.gguf")
    (folder / "dir.gguf").mkdir()
    for name in ("loop.gguf", "pipe.gguf", "dir.gguf"):
        with pytest.raises(SourceError):
            lock(folder, [RelPath(name)])


def test_refused_content(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"x")
    (folder / "b.gguf").write_bytes(b"\x80\x04pickle")
    for name in ("a.bin", "b.gguf"):
        with pytest.raises(RefusedContentError, match=name):
            lock(folder, [RelPath(name)])


def test_the_hub_client_is_not_loaded() -> None:
    code = ("import sys, edgekit.sources.folder; "
            "sys.exit(any(m in sys.modules for m in ('huggingface_hub', 'httpx2')))")
    assert run([sys.executable, "-c", code], timeout_s=60, check=False).returncode == 0
