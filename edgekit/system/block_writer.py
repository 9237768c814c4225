"""Writing large new files in blocks, past the page cache.

A volume is written once and read on another machine. In the page cache its bytes would cost a copy,
push out what is needed and lie there until somebody syncs; past it (O_DIRECT) the disk works from
the first block on. Where a file system cannot do that, it is what `write_out` does.
"""

from __future__ import annotations

import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from edgekit.system.block_reader import ALIGNMENT
from edgekit.system.volumes import write_out

_FLAGS = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class BlockWriter:
    """A new file, written by a thread of its own. `end` it, or `abandon` it.

    Offsets are multiples of `ALIGNMENT`, and so are lengths, but for the last block's.
    """

    def __init__(self, path: Path) -> None:
        """Create the file. Raises OSError, FileExistsError among them."""
        self._cached = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            self._direct = _open_direct(path)
        except BaseException:
            os.close(self._cached)
            raise
        self._thread = ThreadPoolExecutor(1)
        self._failed: OSError | None = None

    def write(self, data: memoryview, offset: int) -> Future[None]:
        """Write `block_buffer` memory, which may change again when the result is there.

        The result raises OSError.
        """
        return self._thread.submit(self._write, data, offset)

    def end(self) -> Future[None]:
        """All is durable and the file closed when the result is there.

        The result raises OSError, that of an earlier block too. Nothing may be written after this.
        """
        ended = self._thread.submit(self._end)
        self._thread.shutdown(wait=False)
        return ended

    def abandon(self) -> None:
        """Close it, whatever it holds by now."""
        self._thread.shutdown(cancel_futures=True)
        with suppress(OSError):  # something else went wrong, and is to be told
            self._close()

    def _write(self, data: memoryview, offset: int) -> None:
        try:
            self._put(data, offset)
        except OSError as error:
            self._failed = self._failed or error
            raise

    def _put(self, data: memoryview, offset: int) -> None:
        try:
            while data and self._direct is not None and len(data) % ALIGNMENT == 0:
                count = os.pwrite(self._direct, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            if error.errno != errno.EINVAL:  # how a file system says that it cannot do this
                raise
        if data:
            write_out(self._cached, data, offset)

    def _end(self) -> None:
        try:
            if self._failed is not None:
                raise self._failed
            os.fsync(self._cached)
        finally:
            self._close()

    def _close(self) -> None:
        try:
            os.close(self._cached)
        finally:
            if self._direct is not None:
                os.close(self._direct)


def _open_direct(path: Path) -> int | None:
    """A descriptor past the page cache, None where the file system has none. Raises OSError."""
    try:
        return os.open(path, _FLAGS | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None
