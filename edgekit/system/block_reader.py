"""Reading large files in blocks, past the page cache.

Bytes that are used once only pass through the page cache: filling it costs more processor time than
hashing with SHA-256 does, and it pushes out what a host needs. O_DIRECT leaves it out. Not every
file system can do that (squashfs, ISO 9660); there reads go through the cache.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

ALIGNMENT = 4096
"""Of offsets, lengths and memory, in bytes: what O_DIRECT asks for on disks with large sectors."""


def block_buffer(size: int) -> memoryview:
    """Memory for a block that begins on a page; `size` is a multiple of `ALIGNMENT`."""
    return memoryview(mmap.mmap(-1, size))


class BlockReader(Protocol):
    """Reads one file. Offsets are multiples of `ALIGNMENT`."""

    def read_into(self, buffer: memoryview, length: int, offset: int) -> int:
        """Fill `buffer`, which is at least `length` bytes rounded up to the alignment.

        Returns how many of the `length` bytes there are; fewer only at the end of the file. Raises
        OSError. Called from several threads.
        """

    def close(self) -> None:
        """Let go of the file."""


OpenReader = Callable[[Path], BlockReader]


class DirectReader:
    """O_DIRECT where the file system has it, and otherwise the page cache, asked to read ahead."""

    def __init__(self, path: Path) -> None:
        """Open a file, never through a symbolic link. Raises OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = os.open(path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._descriptor = os.open(path, flags)
            self._prepare_cache(self._descriptor)

    def read_into(self, buffer: memoryview, length: int, offset: int) -> int:
        end = -(-length // ALIGNMENT) * ALIGNMENT
        position = 0
        while position < length:
            try:
                count = os.preadv(self._descriptor, [buffer[position:end]], offset + position)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._leave_direct():
                    raise
                continue
            position += count
            if count == 0:
                break
        return min(position, length)

    def close(self) -> None:
        os.close(self._descriptor)

    def _leave_direct(self) -> bool:
        """Go on through the page cache where O_DIRECT opens but does not read; False if it was."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        if not flags & os.O_DIRECT:
            return False
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self._prepare_cache(self._descriptor)
        return True

    def _prepare_cache(self, descriptor: int) -> None:
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


class MediumReader(DirectReader):
    """Reads from the medium itself: without O_DIRECT, after dropping what the cache holds of it."""

    def _prepare_cache(self, descriptor: int) -> None:
        with suppress(OSError):
            os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
