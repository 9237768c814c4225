"""Reading large files in blocks, past the page cache.

Filling the page cache costs more processor time than hashing with SHA-256 does, and pushes out what
else a host needs, such as the weights of an engine that serves. O_DIRECT leaves it out. Not every
file system can do that (squashfs, ISO 9660); there reads go through the cache.
"""

from __future__ import annotations

import ctypes
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


_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_ubyte))


def block_buffer(size: int) -> memoryview:
    """Memory for a block that begins on a page; `size` is a multiple of `ALIGNMENT`.

    In huge pages where the kernel has them: a disk is then asked for megabytes at a time, not for
    as many bytes as a request has room for single pages.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


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


class FileReader:
    """Reads past the page cache (O_DIRECT), but takes from it what it holds already.

    With `keep`, and where the file system has no O_DIRECT, everything goes through the cache.
    """

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        """Open a file, never through a symbolic link. Raises OSError."""
        self._cached = os.open(path, _FLAGS)
        self._direct = None if keep else _open_direct(path)
        with suppress(OSError):
            os.posix_fadvise(self._cached, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read_into(self, buffer: memoryview, length: int, offset: int) -> int:
        if self._direct is not None and not is_cached(self._cached, length, offset):
            try:
                return _read(self._direct, buffer, length, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        return _read(self._cached, buffer, length, offset)

    def close(self) -> None:
        os.close(self._cached)
        if self._direct is not None:
            os.close(self._direct)


class MediumReader:
    """Reads from the medium itself: O_DIRECT, or else after dropping the page cache of the file."""

    def __init__(self, path: Path) -> None:
        """Open a file, never through a symbolic link. Raises OSError."""
        direct = _open_direct(path)
        self._descriptor = os.open(path, _FLAGS) if direct is None else direct
        if direct is None:
            self._drop_cache()

    def read_into(self, buffer: memoryview, length: int, offset: int) -> int:
        try:
            return _read(self._descriptor, buffer, length, offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._leave_direct():
                raise
        return _read(self._descriptor, buffer, length, offset)

    def close(self) -> None:
        os.close(self._descriptor)

    def _leave_direct(self) -> bool:
        """Go on through the page cache where O_DIRECT opens but does not read; False if it was."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        if not flags & os.O_DIRECT:
            return False
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self._drop_cache()
        return True

    def _drop_cache(self) -> None:
        with suppress(OSError):
            os.fsync(self._descriptor)
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def is_cached(descriptor: int, length: int, offset: int) -> bool:
    """Whether the page cache holds these bytes of a file, all of them, as mincore(2) says.

    Only a hint: they may leave it the next moment. False where the kernel does not say.
    """
    try:
        area = mmap.mmap(descriptor, length, flags=mmap.MAP_PRIVATE, offset=offset)
    except (OSError, ValueError):  # ValueError: the file is shorter
        return False
    pages = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
    first = ctypes.c_char.from_buffer(area)
    try:
        failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), length, pages)
    finally:
        del first  # which holds the area
        area.close()
    return not failed and bytes(pages) == b"\1" * len(pages)


def _open_direct(path: Path) -> int | None:
    """A descriptor past the page cache, None where the file system has none. Raises OSError."""
    try:
        return os.open(path, _FLAGS | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def _read(descriptor: int, buffer: memoryview, length: int, offset: int) -> int:
    end = -(-length // ALIGNMENT) * ALIGNMENT
    position = 0
    while position < length:
        count = os.preadv(descriptor, [buffer[position:end]], offset + position)
        if count == 0:
            break
        position += count
    return min(position, length)
