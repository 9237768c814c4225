"""Writing volumes: every source is read once, and on the way copied, hashed and compared.

Three digests are wanted of every byte: that of its block, that of its volume (for SHA384SUMS) and
that of its blob, which the manifest already names. Blocks go to any free core, volume and blob are
streams with a thread each. A blob that begins with its volume shares the volume's stream, so large
ones, which do, are hashed twice and not three times. All of it overlaps with the copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, Self

from edgekit.core.digest import Digest, new_hasher
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.layout import Extents, Piece, content_key, volume_pieces
from edgekit.core.release import BLOCK_BYTES, Volume, VolumeTable, volume_name
from edgekit.errors import HostError, SourceDigestError
from edgekit.system.block_reader import block_buffer
from edgekit.system.block_writer import BlockWriter
from edgekit.system.files import check_room, fsync_directory, translate_os_error
from edgekit.system.volume_index import VolumeIndex
from edgekit.system.volumes import hash_view, worker_count

TASK = "write volumes"
SUMS_ALGORITHM = "sha384"
SPACE_RESERVE_BYTES = 128 << 20
"""Installer, metadata and some room, beside the volumes."""


@dataclass(frozen=True, slots=True)
class BlobSource:
    """A blob to be written: its SHA-384 (already known), size in bytes and where its bytes are."""

    digest: Digest
    size: int
    path: Path


def write_volumes(
    directory: Path,
    blobs: Sequence[BlobSource],
    sizes: Sequence[int],
    extents: Extents,
    *,
    algorithm: str,
    listener: Listener,
    index: VolumeIndex | None = None,
) -> VolumeTable:
    """Write the volumes of a set into `directory` and return their table.

    Volumes that `index` knows from an earlier set are linked and not read; of all others every
    blob's digest is compared. Raises SourceDigestError for a source whose bytes are not those of
    its digest any more, DiskFullError before the first byte or later, HostError. The caller owns
    `directory` and removes it on failure.
    """
    contents = volume_pieces(extents, len(sizes))
    keys = [content_key(pieces, algorithm) for pieces in contents]
    volumes = _link_known(directory, keys, extents, listener, index) if index else {}
    left = [number for number in range(len(sizes)) if number not in volumes]
    room = sum(sizes[number] for number in left)
    check_room(directory, room + SPACE_RESERVE_BYTES, "the set")
    listener(Started(TASK, room))
    with _Writer(blobs, algorithm, listener) as writer:
        for number in left:
            path = directory / volume_name(number)
            volumes[number] = writer.write(path, sizes[number], contents[number])
    try:
        fsync_directory(directory)
    except OSError as error:
        raise translate_os_error(error, "writing volumes") from error
    listener(Finished(TASK, f"{len(left)} written, {len(sizes) - len(left)} taken over"))
    table = VolumeTable(
        algorithm,
        BLOCK_BYTES,
        tuple(volumes[number] for number in range(len(sizes))),
        tuple((blob.digest, extents[blob.digest]) for blob in blobs),
    )
    if index is not None:
        index.note(zip(keys, table.volumes, strict=True))
    return table


def _link_known(
    directory: Path, keys: list[str], extents: Extents, listener: Listener, index: VolumeIndex
) -> dict[int, Volume]:
    """Volumes of an earlier set that are these, linked into `directory`; by number."""
    linked: dict[int, Volume] = {}
    for number, key in enumerate(keys):
        known = index.link(key, directory / volume_name(number), listener)
        if known is not None:
            linked[number] = replace(known, name=volume_name(number))
    kept = _without_torn(linked, extents)
    for number in linked.keys() - kept.keys():
        (directory / volume_name(number)).unlink()
    return kept


class Stream:
    """A digest over bytes that come one after the other, on a thread of its own."""

    def __init__(self, algorithm: str = SUMS_ALGORITHM) -> None:
        self._hasher = new_hasher(algorithm)
        self._thread = ThreadPoolExecutor(1)

    def add(self, data: memoryview) -> Future[None]:
        """Take the next bytes, which may change again when the result is there."""
        return self._thread.submit(self._hasher.update, data)

    def digest(self) -> Future[str]:
        """Hex digest of what was added before this call; more may follow."""
        return self._thread.submit(self._hasher.hexdigest)

    def close(self) -> None:
        """End the thread when its work is done."""
        self._thread.shutdown(wait=False)


class Ring:
    """Block buffers used in turn; one is free again when all work on its last content is done."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._used: deque[tuple[memoryview, list[Future[Any]]]] = deque()

    def take(self) -> memoryview:
        """A buffer of one block. Raises what failed in the work on its last content."""
        if self._left:
            self._left -= 1
            return block_buffer(BLOCK_BYTES)
        buffer, work = self._used.popleft()
        for each in work:
            each.result()
        return buffer

    def give_back(self, buffer: memoryview, work: list[Future[Any]]) -> None:
        """The buffer may be taken again when all of this work is done."""
        self._used.append((buffer, work))


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes of a blob within one block: where they start in the blob and in the volume."""

    blob: BlobSource
    start: int
    offset: int
    length: int

    @property
    def begin(self) -> int:
        """Where they start in the block."""
        return self.offset % BLOCK_BYTES

    @property
    def is_last(self) -> bool:
        return self.start + self.length == self.blob.size


class _BlobDigests:
    """Digests of the blobs that pass by, each compared with the one that names its blob."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._open: dict[Digest, Stream] = {}
        self._found: list[tuple[BlobSource, Future[str]]] = []

    def add(self, span: _Span, data: memoryview, volume: Stream) -> list[Future[Any]]:
        """Take the next bytes of a blob, which `volume` has already; the work this makes."""
        blob, work = span.blob, list[Future[Any]]()
        if span.length == blob.size:
            digest = self._threads.submit(hash_view, data, SUMS_ALGORITHM)
            self._found.append((blob, digest))
            return [digest]
        if span.start == 0:
            self._open[blob.digest] = Stream() if span.offset else volume
        stream = self._open[blob.digest]
        if stream is not volume:
            work.append(stream.add(data))
        if span.is_last:
            self._found.append((blob, stream.digest()))
            del self._open[blob.digest]
            if stream is not volume:
                stream.close()
        return work

    def goes_on(self, stream: Stream) -> bool:
        """Whether a blob of a volume that is complete goes on in the next one."""
        return stream in self._open.values()

    def compare(self) -> None:
        """Judge the blobs that ended. Raises SourceDigestError."""
        for blob, digest in self._found:
            if digest.result() != blob.digest.value:
                raise SourceDigestError(
                    "a file changed while it was bundled",
                    where=str(blob.path),
                    found=f"{SUMS_ALGORITHM}:{digest.result()[:16]}...",
                    needed=f"{SUMS_ALGORITHM}:{blob.digest.value[:16]}...",
                    hint="look after the disk or whoever writes there, then bundle again",
                )
        self._found.clear()


class _Writer:
    """Writes volumes, in order; a context, whose end ends its threads."""

    def __init__(self, blobs: Sequence[BlobSource], algorithm: str, listener: Listener) -> None:
        self._sources = {blob.digest: blob for blob in blobs}
        self._algorithm = algorithm
        self._listener = listener
        self._ring = Ring(2 * worker_count() + 3)
        self._threads = ThreadPoolExecutor(worker_count())
        self._blobs = _BlobDigests(self._threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def write(self, path: Path, size: int, pieces: list[Piece]) -> Volume:
        """One volume, durable. Raises SourceDigestError, DiskFullError or HostError."""
        whole = Stream()
        blocks: list[Future[str]] = []
        try:
            out = BlockWriter(path)
            try:
                for buffer, spans in self._filled_blocks(pieces):
                    view = buffer[: spans[-1].begin + spans[-1].length]
                    written = out.write(view, len(blocks) * BLOCK_BYTES)
                    blocks.append(self._threads.submit(hash_view, view, self._algorithm))
                    work: list[Future[Any]] = [written, blocks[-1]]
                    work += self._hash_spans(spans, view, whole)
                    self._ring.give_back(buffer, work)
                    self._listener(Advanced(TASK, len(view)))
            except BaseException:
                out.abandon()
                raise
            out.end().result()
        except OSError as error:
            raise translate_os_error(error, f"writing {path.name}") from error
        self._blobs.compare()
        digest = Digest(SUMS_ALGORITHM, whole.digest().result())
        if not self._blobs.goes_on(whole):
            whole.close()
        return Volume(path.name, size, digest, tuple(block.result() for block in blocks))

    def _hash_spans(
        self, spans: list[_Span], view: memoryview, whole: Stream
    ) -> list[Future[Any]]:
        work: list[Future[Any]] = []
        for span in spans:
            data = view[span.begin : span.begin + span.length]
            work += [whole.add(data), *self._blobs.add(span, data, whole)]
        return work

    def _filled_blocks(self, pieces: list[Piece]) -> Iterator[tuple[memoryview, list[_Span]]]:
        """The volume's bytes in block buffers; each source is opened once and read in order."""
        buffer, spans = self._ring.take(), list[_Span]()
        offset = 0
        for piece in pieces:
            blob = self._sources[piece.digest]
            with blob.path.open("rb", buffering=0) as file:
                file.seek(piece.start)
                done = 0
                while done < piece.length:
                    room = BLOCK_BYTES - offset % BLOCK_BYTES
                    length = min(room, piece.length - done)
                    span = _Span(blob, piece.start + done, offset, length)
                    _read_exactly(file, buffer[span.begin : span.begin + length], blob)
                    spans.append(span)
                    offset, done = offset + length, done + length
                    if offset % BLOCK_BYTES == 0:
                        yield buffer, spans
                        buffer, spans = self._ring.take(), []
        if spans:
            yield buffer, spans


def _read_exactly(file: FileIO, view: memoryview, blob: BlobSource) -> None:
    while view:
        count = file.readinto(view)
        if not count:
            raise HostError("a file became shorter while it was bundled", where=str(blob.path))
        view = view[count:]


def _without_torn(linked: dict[int, Volume], extents: Extents) -> dict[int, Volume]:
    """Leave out volumes with a part of a blob whose other parts must be written.

    What is written is compared with its blob's digest, and that takes the whole blob.
    """
    places = [{run.volume for run in runs} for runs in extents.values()]
    torn = {n for volumes in places if not volumes <= linked.keys() for n in volumes}
    if linked.keys().isdisjoint(torn):
        return linked
    return _without_torn({n: v for n, v in linked.items() if n not in torn}, extents)
