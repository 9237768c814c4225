"""Digests of files that did not change since they were last hashed.

    CACHE/digests.json
    {"format": 2, "files": {path: [size, mtime_ns, ctime_ns, inode, sha384, sha256]}}

Both digests come of one read: locks name files by SHA-256, as hubs do, and sets name blobs by
SHA-384. They are taken from here only when size, modification time, change time and inode are all
the same, and the file was at least two seconds old when it was hashed: a younger one may change
again within the clock's grain and look the same (git's racy entries). Somebody who can set the
system clock and write to the sources can fool this; whoever copies the bytes compares them again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgekit.core.digest import Digest, new_hasher
from edgekit.errors import EdgekitError
from edgekit.system.files import durable_write, read_bounded, translate_os_error
from edgekit.system.volumes import worker_count

FORMAT = 2
RACY_NANOSECONDS = 2_000_000_000
MAX_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
ALONE_BYTES = 64 << 10
"""Fewer bytes are hashed sooner than another thread is woken for them."""

_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FileDigests:
    """A file's size in bytes and its two digests."""

    size: int
    sha384: Digest
    sha256: Digest


class DigestCache:
    """Digests by file, remembered in a folder; used in a `with` block, whose end saves them.

    What is remembered is a convenience: a cache that is missing, malformed or cannot be saved costs
    time and nothing else. Files that were not asked for in the block are forgotten when they are
    gone. Any number of threads may ask.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "digests.json"
        self._known = _load(self._path)
        self._changed = False
        self._helpers = ThreadPoolExecutor(worker_count())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._helpers.shutdown()
        if self._changed:
            self._save()

    def digests(
        self, path: Path, each: Callable[[int], None] = lambda _count: None
    ) -> FileDigests:
        """Size and digests of a file, which is read only if it has to be. Raises HostError.

        `each` is told of every so many bytes that were hashed.
        """
        path = path.absolute()
        known = self.known(path)
        return known or self.learn(path, lambda: hash_file_twice(path, self._helpers, each))

    def known(self, path: Path) -> FileDigests | None:
        """What is remembered of a file that did not change since. Raises HostError."""
        known = self._known.get(str(path.absolute()))
        return known[1] if known is not None and known[0] == _stamp_of(path) else None

    def learn(self, path: Path, read: Callable[[], FileDigests]) -> FileDigests:
        """What `read` says of a file, remembered if the file kept still. Raises HostError."""
        path = path.absolute()
        before, now = _stamp_of(path), time.time_ns()
        digests = read()
        if _stamp_of(path) == before and _is_settled(before, now):
            self._known[str(path)] = (before, digests)
            self._changed = True
        return digests

    def _save(self) -> None:
        files = {
            path: [*stamp, digests.sha384.value, digests.sha256.value]
            for path, (stamp, digests) in sorted(self._known.items())
            if os.path.lexists(path)
        }
        data = json.dumps({"format": FORMAT, "files": files}, indent=0).encode()
        with contextlib.suppress(EdgekitError):
            durable_write(self._path, data)


def hash_file_twice(path: Path, helpers: Executor, each: Callable[[int], None]) -> FileDigests:
    """Both digests of one read, a helper doing the faster one. Raises HostError."""
    sha384, sha256 = new_hasher("sha384"), new_hasher("sha256")
    buffer = memoryview(bytearray(CHUNK_BYTES))
    size = 0
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                if count < ALONE_BYTES:
                    sha256.update(buffer[:count])
                    sha384.update(buffer[:count])
                else:
                    other = helpers.submit(sha256.update, buffer[:count])
                    sha384.update(buffer[:count])
                    other.result()
                size += count
                each(count)
    except OSError as error:
        raise translate_os_error(error, f"reading {path}") from error
    return FileDigests(
        size, Digest("sha384", sha384.hexdigest()), Digest("sha256", sha256.hexdigest())
    )


def _stamp_of(path: Path) -> _Stamp:
    """What changes when a file's bytes change: size, times in nanoseconds, inode."""
    try:
        status = path.stat()
    except OSError as error:
        raise translate_os_error(error, f"reading {path}") from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_settled(stamp: _Stamp, now: int) -> bool:
    """Whether a change after `now` would show in the file's times."""
    return max(stamp[1], stamp[2]) + RACY_NANOSECONDS <= now


def _load(path: Path) -> dict[str, tuple[_Stamp, FileDigests]]:
    """What the file remembers; nothing when it is absent or not exactly right."""
    try:
        table = json.loads(read_bounded(path, MAX_BYTES, "digest cache"))
        if table["format"] != FORMAT:
            return {}
        return {name: _parse(*item) for name, item in table["files"].items()}
    except (EdgekitError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _parse(*item: Any) -> tuple[_Stamp, FileDigests]:
    *numbers, sha384, sha256 = item
    stamp = _parse_stamp(numbers)
    return stamp, FileDigests(stamp[0], Digest("sha384", sha384), Digest("sha256", sha256))


def _parse_stamp(numbers: list[Any]) -> _Stamp:
    """A stamp out of JSON. Raises TypeError or ValueError."""
    size, mtime, ctime, inode = numbers
    if not (type(size) is type(mtime) is type(ctime) is type(inode) is int):
        raise TypeError("not an integer")
    return size, mtime, ctime, inode
