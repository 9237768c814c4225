"""Reading volumes (step V7): blocks are hashed by all cores while bytes stream, memory stays flat.

Every block is read exactly once, past the page cache, hashed in memory, and only then handed on, so
a medium that answers differently the second time has no second time (invariant I2). Writing is in
`volume_writer.py`.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgekit.core.digest import Digest, new_hasher
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.release import VolumeTable
from edgekit.errors import DigestError
from edgekit.system.block_reader import BlockReader, FileReader, block_buffer
from edgekit.system.files import pwrite_all, translate_os_error

SLICE_BYTES = 256 << 10
"""SHA-256 was seen to run half as fast again over slices that stay in the processor's cache."""

MAX_WORKERS = 8

READS_AHEAD = 4
"""Threads beside those that hash, so that the medium always has a block to read."""

MAX_OPEN_BLOBS = 64
"""Blobs a thread writes before it lands them; all together stay below 1,024 open files."""

SYNCERS = 16
"""Threads that only wait in fsync: the kernel serves many waiting ones with one journal commit."""


def worker_count() -> int:
    """Threads for hashing: one per usable core, at most eight (64 MiB of blocks)."""
    return max(2, min(MAX_WORKERS, len(os.sched_getaffinity(0))))


def hash_view(data: memoryview, algorithm: str) -> str:
    """Hex digest of a block, hashed in cache-sized slices; releases the GIL."""
    hasher = new_hasher(algorithm)
    for start in range(0, len(data), SLICE_BYTES):
        hasher.update(data[start : start + SLICE_BYTES])
    return hasher.hexdigest()


def hash_file(path: Path, algorithm: str) -> tuple[Digest, int]:
    """Digest and size in bytes of a file. Raises HostError."""
    hasher = new_hasher(algorithm)
    size = 0
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(4 * SLICE_BYTES):
                hasher.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise translate_os_error(error, f"reading {path}") from error
    return Digest(algorithm, hasher.hexdigest()), size


def write_out(descriptor: int, data: memoryview, offset: int) -> None:
    """Write a block at `offset` and let the disk begin with it now. Raises OSError.

    In slices: one write of 8 MiB makes the kernel look for very large folios in its page cache,
    which was seen to cost more than all the rest. The advice starts writeback without waiting for
    it (on Linux), so that the fsync at the end finds little left to do.
    """
    for start in range(0, len(data), SLICE_BYTES):
        pwrite_all(descriptor, data[start : start + SLICE_BYTES], offset + start)
    os.posix_fadvise(descriptor, offset, len(data), os.POSIX_FADV_DONTNEED)


Sink = Callable[[int, int, memoryview], None]
"""Receives (volume index, offset, verified bytes), from several threads, each byte once."""


def read_volumes(
    table: VolumeTable,
    path_of: Callable[[int], Path],
    *,
    wanted: frozenset[Digest] | None,
    sink: Sink | None,
    listener: Listener,
    task: str,
) -> int:
    """Step V7: read and verify blocks, hand verified bytes to `sink`; returns bytes read.

    With `wanted`, blocks that hold none of those blobs are not read at all. Without a sink, what
    fits into free memory stays in the page cache: who verifies often installs next. Raises
    DigestError naming volume, block and the blobs it hits, or HostError when the medium cannot be
    read.
    """
    blocks = _wanted_blocks(table, wanted)
    amount = sum(length for _, _, length in blocks)
    keep = sink is None and amount <= free_memory()
    listener(Started(task, amount))
    local = threading.local()
    stop = threading.Event()
    with _open_volumes(path_of, {volume for volume, _, _ in blocks}, keep=keep) as readers:

        def work(position: int) -> int:
            if stop.is_set():
                return 0
            volume, number, length = blocks[position]
            buffer = _own_buffer(local, table.block_bytes)
            view = _read_block(readers[volume], buffer, table, volume, number)
            _check_block(table, volume, number, view)
            if sink is not None:
                sink(volume, number * table.block_bytes, view)
            listener(Advanced(task, length))
            return length

        total = _run_all(work, len(blocks), stop)
    listener(Finished(task))
    return total


def free_memory() -> int:
    """Bytes of memory that nothing uses, not even the page cache."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _own_buffer(local: threading.local, size: int) -> memoryview:
    """The one block buffer of this thread: memory stays flat."""
    if not hasattr(local, "buffer"):
        local.buffer = block_buffer(size)
    buffer: memoryview = local.buffer
    return buffer


def _run_all(work: Callable[[int], int], count: int, stop: threading.Event) -> int:
    """Run work over 0 to count - 1; the first error (in that order) wins and stops the rest."""
    with ThreadPoolExecutor(worker_count() + READS_AHEAD) as pool:
        futures = [pool.submit(work, position) for position in range(count)]
        try:
            return sum(future.result() for future in futures)
        except BaseException:
            stop.set()
            raise


def _wanted_blocks(
    table: VolumeTable, wanted: frozenset[Digest] | None
) -> list[tuple[int, int, int]]:
    """(volume, block number, length in bytes) of every block to read, in medium order."""
    numbers: set[tuple[int, int]] = set()
    for digest, extents in table.blobs:
        if wanted is not None and digest not in wanted:
            continue
        for extent in extents:
            first = extent.offset // table.block_bytes
            last = (extent.offset + extent.length - 1) // table.block_bytes
            numbers.update((extent.volume, number) for number in range(first, last + 1))
    return [
        (
            volume,
            number,
            min(table.block_bytes, table.volumes[volume].size - number * table.block_bytes),
        )
        for volume, number in sorted(numbers)
    ]


@contextmanager
def _open_volumes(
    path_of: Callable[[int], Path], indexes: set[int], *, keep: bool
) -> Iterator[dict[int, BlockReader]]:
    """One reader per volume for the whole pass, so nobody can swap a file in between."""
    readers: dict[int, BlockReader] = {}
    try:
        for index in sorted(indexes):
            path = path_of(index)
            try:
                readers[index] = FileReader(path, keep=keep)
            except OSError as error:
                raise translate_os_error(error, f"reading {path.name}") from error
        yield readers
    finally:
        for reader in readers.values():
            reader.close()


def _read_block(
    reader: BlockReader, buffer: memoryview, table: VolumeTable, volume: int, number: int
) -> memoryview:
    name, offset = table.volumes[volume].name, number * table.block_bytes
    length = min(table.block_bytes, table.volumes[volume].size - offset)
    try:
        count = reader.read_into(buffer, length, offset)
    except OSError as error:
        raise DigestError(
            f"volume {name} cannot be read",
            where=f"block {number}, bytes {offset} to {offset + length - 1}",
            found=os.strerror(error.errno or 0),
            hint=f"if the stick was pulled out, put it back and run the command again; else copy "
            f"{name} again, or use another stick",
        ) from error
    if count < length:
        raise DigestError(
            f"volume {name} ends too early",
            found=f"{offset + count} bytes",
            hint=f"copy {name} again",
        )
    return buffer[:length]


def _check_block(table: VolumeTable, volume: int, number: int, view: memoryview) -> None:
    found = hash_view(view, table.algorithm)
    needed = table.volumes[volume].blocks[number]
    if found == needed:
        return
    name = table.volumes[volume].name
    offset = number * table.block_bytes
    hit = [
        digest.short
        for digest, extents in table.blobs
        for extent in extents
        if extent.volume == volume
        and extent.offset < offset + len(view)
        and offset < extent.offset + extent.length
    ]
    raise DigestError(
        f"volume {name} is damaged",
        where=f"block {number}, bytes {offset} to "
        f"{offset + len(view) - 1}, blobs {', '.join(hit[:5])}",
        needed=f"{table.algorithm}:{needed[:16]}...",
        found=f"{table.algorithm}:{found[:16]}...",
        hint=f"copy {name} again",
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of a blob's bytes in a volume: both offsets and the length in bytes."""

    offset: int
    length: int
    digest: Digest
    position: int


class BlobSink:
    """Assembles verified bytes into blob files in a staging folder.

    Each wanted blob becomes `<hex>` in the folder when its last byte has been written and fsynced;
    until then it is `<hex>.part`. Thread-safe: workers write disjoint ranges.
    """

    def __init__(self, directory: Path, table: VolumeTable, wanted: frozenset[Digest]) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._syncers = ThreadPoolExecutor(SYNCERS)
        self._descriptors: dict[Digest, int] = {}
        self._left: dict[Digest, int] = {}
        self._runs: dict[int, list[_Run]] = {}
        for digest, extents in table.blobs:
            if digest not in wanted:
                continue
            self._left[digest] = sum(extent.length for extent in extents)
            start = 0
            for extent in extents:
                run = _Run(extent.offset, extent.length, digest, start)
                self._runs.setdefault(extent.volume, []).append(run)
                start += extent.length
            if not extents:
                (directory / digest.value).touch(mode=0o444)
        for runs in self._runs.values():
            runs.sort(key=_offset)

    def __call__(self, volume: int, offset: int, data: memoryview) -> None:
        try:
            for runs in _in_groups(self._overlapping(volume, offset, offset + len(data))):
                self._land([run.digest for run in runs if self._write(run, offset, data)])
        except OSError as error:
            raise translate_os_error(error, "copying the set") from error

    def _overlapping(self, volume: int, offset: int, end: int) -> Iterator[_Run]:
        runs = self._runs.get(volume, [])
        for index in range(max(0, bisect_right(runs, offset, key=_offset) - 1), len(runs)):
            if runs[index].offset >= end:
                return
            if offset < runs[index].offset + runs[index].length:
                yield runs[index]

    def _write(self, run: _Run, offset: int, data: memoryview) -> bool:
        """Write what `data` holds of a run; True when its blob is complete with that."""
        low = max(run.offset, offset)
        high = min(run.offset + run.length, offset + len(data))
        piece = data[low - offset : high - offset]
        write_out(self._descriptor(run.digest), piece, run.position + low - run.offset)
        with self._lock:
            self._left[run.digest] -= high - low
            return not self._left[run.digest]

    def _descriptor(self, digest: Digest) -> int:
        with self._lock:
            if digest not in self._descriptors:
                path = self._directory / f"{digest.value}.part"
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
                self._descriptors[digest] = os.open(path, flags, 0o444)
            return self._descriptors[digest]

    def _land(self, complete: list[Digest]) -> None:
        """Make complete blobs durable, together, and only then give them their names (I3)."""
        with self._lock:
            descriptors = [self._descriptors.pop(digest) for digest in complete]
        try:
            done = [self._syncers.submit(os.fsync, descriptor) for descriptor in descriptors]
            wait(done)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        for digest, synced in zip(complete, done, strict=True):
            synced.result()
            part = self._directory / f"{digest.value}.part"
            part.rename(self._directory / digest.value)

    def close(self) -> None:
        """Close what an interrupted pass left open; its `.part` files stay for a later run."""
        self._syncers.shutdown()
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()


def _offset(run: _Run) -> int:
    return run.offset


def _in_groups(runs: Iterator[_Run]) -> Iterator[list[_Run]]:
    """Groups small enough for the limit on open files.

    The small blobs of a group are all written before any is fsynced, so one journal commit can
    serve many of them.
    """
    while group := list(islice(runs, MAX_OPEN_BLOBS)):
        yield group
