"""Reading a medium itself, past the page cache, and judging copies of files block by block.

What counts on a stick is what it will say next week, not what the kernel still remembers.
"""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial as bind
from pathlib import Path

from edgekit.core.digest import new_hasher
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.findings import Contents, Copy, Flaw, Wanted
from edgekit.core.release import BLOCK_BYTES
from edgekit.system.block_reader import BlockReader, OpenReader, block_buffer
from edgekit.system.files import translate_os_error
from edgekit.system.volumes import hash_view, worker_count


class CopyChecker:
    """Reads copies of wanted files once, blocks by all cores, and collects every flaw."""

    def __init__(self, contents: Contents | None, listener: Listener, open_reader: OpenReader):
        self._contents = contents
        self._listener = listener
        self._open = open_reader
        self._local = threading.local()

    def run(self, task: str, todo: list[tuple[Wanted, Copy]]) -> list[Flaw]:
        """Flaws of these copies, in the order given. Raises PrivilegeError for unreadable ones."""
        self._listener(Started(task, sum(copy.size or 0 for _, copy in todo)))
        flaws: list[Flaw] = []
        with ThreadPoolExecutor(worker_count()) as pool:
            try:
                for file, copy in todo:
                    flaws += self._check(task, pool, file, copy)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._listener(Finished(task))
        return flaws

    def _check(self, task: str, pool: ThreadPoolExecutor, file: Wanted, copy: Copy) -> list[Flaw]:
        try:
            reader = self._open(Path(copy.folder, file.name))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise translate_os_error(error, f"reading {file.name}") from error
            return [Flaw(file.name, copy.folder, problem=reason_of(error))]
        try:
            if file.volume is None or self._contents is None:
                found = [self._whole(reader, task, file, copy)]
            else:
                numbers = self._blocks(file, copy)
                found = list(pool.map(bind(self._block, reader, task, file, copy), numbers))
        finally:
            reader.close()
        return [flaw for flaw in found if flaw is not None]

    def _blocks(self, file: Wanted, copy: Copy) -> list[int]:
        """Numbers of the blocks that are there completely; what is cut off is no flaw."""
        size, there = file.size or 0, copy.size or 0
        count = -(-size // BLOCK_BYTES)
        return [n for n in range(count) if min((n + 1) * BLOCK_BYTES, size) <= there]

    def _block(
        self, reader: BlockReader, task: str, file: Wanted, copy: Copy, number: int
    ) -> Flaw | None:
        assert self._contents is not None
        assert file.volume is not None
        table = self._contents.table
        offset = number * BLOCK_BYTES
        length = min(BLOCK_BYTES, table.volumes[file.volume].size - offset)
        flaw = Flaw(file.name, copy.folder, number, offset, offset + length - 1)
        try:
            view = self._read(reader, length, offset)
        except OSError as error:
            return replace(flaw, problem=reason_of(error))
        finally:
            self._listener(Advanced(task, length))
        good = table.volumes[file.volume].blocks[number]
        return None if hash_view(view, table.algorithm) == good else flaw

    def _whole(self, reader: BlockReader, task: str, file: Wanted, copy: Copy) -> Flaw | None:
        """Judge a file by its one digest; the first unreadable place ends it."""
        assert file.digest is not None
        hasher = new_hasher(file.digest.algorithm)
        offset, size = 0, copy.size or 0
        while offset < size:
            try:
                view = self._read(reader, min(BLOCK_BYTES, size - offset), offset)
            except OSError as error:
                return Flaw(file.name, copy.folder, problem=reason_of(error))
            if not view:
                break
            hasher.update(view)
            offset += len(view)
            self._listener(Advanced(task, len(view)))
        good = offset == size and hasher.hexdigest() == file.digest.value
        return None if good else Flaw(file.name, copy.folder)

    def _read(self, reader: BlockReader, length: int, offset: int) -> memoryview:
        """Up to `length` bytes, in this thread's own page-aligned buffer."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = block_buffer(BLOCK_BYTES)
        view: memoryview = self._local.buffer
        return view[: reader.read_into(view, length, offset)]


def reason_of(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
