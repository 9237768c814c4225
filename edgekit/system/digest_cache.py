"""Digests of files that did not change since they were last hashed.

    CACHE/digests.json     {"format": 1, "files": {path: [size, mtime_ns, ctime_ns, inode, sha384]}}

A digest is taken from here only when size, modification time, change time and inode are all the
same, and the file was at least two seconds old when it was hashed: a younger one may change again
within the clock's grain and look the same (git's racy entries). Somebody who can set the system
clock and write to the sources can fool this; he could as well write what gets hashed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from edgekit.core.digest import Digest
from edgekit.errors import EdgekitError
from edgekit.system.files import durable_write, read_bounded, translate_os_error
from edgekit.system.volumes import hash_file

ALGORITHM = "sha384"
FORMAT = 1
RACY_NANOSECONDS = 2_000_000_000
MAX_BYTES = 64 << 20

_Stamp = tuple[int, int, int, int]


class DigestCache:
    """SHA-384 by file, remembered in a folder; used in a `with` block, whose end saves it.

    What is remembered is a convenience: a cache that is missing, malformed or cannot be saved costs
    time and nothing else. Files that were not asked for in the block are forgotten when they are
    gone.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "digests.json"
        self._known = _load(self._path)
        self._changed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._changed:
            self._save()

    def digest(self, path: Path) -> tuple[Digest, int]:
        """Digest and size in bytes of a file, hashed only if it has to be. Raises HostError."""
        path = path.absolute()
        before = _stamp(path)
        known = self._known.get(str(path))
        if known is not None and known[0] == before:
            return known[1], before[0]
        now = time.time_ns()
        digest, size = hash_file(path, ALGORITHM)
        if _stamp(path) == before and _is_settled(before, now):
            self._known[str(path)] = (before, digest)
            self._changed = True
        return digest, size

    def _save(self) -> None:
        files = {
            path: [*stamp, digest.value]
            for path, (stamp, digest) in sorted(self._known.items())
            if os.path.lexists(path)
        }
        data = json.dumps({"format": FORMAT, "files": files}, indent=0).encode()
        with contextlib.suppress(EdgekitError):
            durable_write(self._path, data)


def _stamp(path: Path) -> _Stamp:
    """What changes when a file's bytes change: size, times in nanoseconds, inode."""
    try:
        status = path.stat()
    except OSError as error:
        raise translate_os_error(error, f"reading {path}") from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_settled(stamp: _Stamp, now: int) -> bool:
    """Whether a change after `now` would show in the file's times."""
    return max(stamp[1], stamp[2]) + RACY_NANOSECONDS <= now


def _load(path: Path) -> dict[str, tuple[_Stamp, Digest]]:
    """What the file remembers; nothing when it is absent or not exactly right."""
    try:
        table = json.loads(read_bounded(path, MAX_BYTES, "digest cache"))
        if table["format"] != FORMAT:
            return {}
        return {
            name: (_integers(size, mtime, ctime, inode), Digest(ALGORITHM, value))
            for name, (size, mtime, ctime, inode, value) in table["files"].items()
        }
    except (EdgekitError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _integers(*values: object) -> _Stamp:
    size, mtime, ctime, inode = values
    if not (type(size) is type(mtime) is type(ctime) is type(inode) is int):
        raise TypeError("not an integer")
    return size, mtime, ctime, inode
