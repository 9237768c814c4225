"""Volumes of large new files, written by the same read that first names these files.

A file has to be hashed before anything is known of it: its digests name it in the lock and in the
manifest. A large one begins a volume of its own whatever else is in the set (`core/layout.py`), so
its volumes can be written before its name is known: the layout finds them by what they hold and
links them. One read gives every digest: of the file (both), of its blocks and of its volumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.layout import Piece, content_key
from edgekit.core.release import BLOCK_BYTES, Volume, volume_name
from edgekit.system.block_reader import BlockReader, FileReader
from edgekit.system.block_writer import BlockWriter
from edgekit.system.digest_cache import DigestCache, FileDigests
from edgekit.system.files import free_bytes, translate_os_error
from edgekit.system.volume_index import VolumeIndex
from edgekit.system.volume_writer import SPACE_RESERVE_BYTES, SUMS_ALGORITHM, Ring, Stream
from edgekit.system.volumes import hash_view, worker_count

TASK = "read new files"


def write_early(
    files: Sequence[Path],
    folder: Path,
    *,
    algorithm: str,
    volume_bytes: int,
    digests: DigestCache,
    index: VolumeIndex,
    listener: Listener,
) -> None:
    """Read each file once; `digests` knows it then, and `index` knows its volumes in `folder`.

    Files that `digests` knows already are left to `write_volumes`, and so are all when there is no
    room for them or the file system has no hard links; it says what is missing. `volume_bytes` is a
    multiple of the block size. The folder is the caller's, and nobody else writes there. Raises
    HostError or DiskFullError.
    """
    new = [path for path in dict.fromkeys(files) if digests.known(path) is None]
    total = sum(path.stat().st_size for path in new)
    if not new or not volume_bytes or free_bytes(folder) < total + SPACE_RESERVE_BYTES:
        return
    if not _has_links(folder):
        return
    listener(Started(TASK, total))
    for number, path in enumerate(new):
        place = folder / str(number)
        place.mkdir()
        with _Splitter(path, place, algorithm, volume_bytes, listener) as splitter:
            found = digests.learn(path, splitter.read)
            start = 0
            for volume in splitter.volumes():
                key = content_key([Piece(found.sha384, start, volume.size)], algorithm)
                index.add(key, place / volume.name, volume, algorithm)
                start += volume.size
    listener(Finished(TASK, f"{len(new)} files"))


def _has_links(folder: Path) -> bool:
    """Whether a file can have two names here; exFAT, for one, cannot do that."""
    one, other = folder / "one", folder / "other"
    try:
        one.touch()
        other.hardlink_to(one)
        other.unlink()
    except OSError:
        return False
    finally:
        one.unlink(missing_ok=True)
    return True


@dataclass(frozen=True, slots=True)
class _Written:
    """A volume on its way: what is known of it, and results that are still to come."""

    size: int
    digest: Future[str]
    blocks: list[Future[str]]
    ended: Future[None]


class _Splitter:
    """Reads a file and writes its volumes; a context, whose end ends its threads."""

    def __init__(
        self, path: Path, folder: Path, algorithm: str, volume_bytes: int, listener: Listener
    ) -> None:
        self._path, self._folder = path, folder
        self._algorithm, self._volume_bytes = algorithm, volume_bytes
        self._listener = listener
        self._ring = Ring(2 * worker_count() + 3)
        self._threads = ThreadPoolExecutor(worker_count())
        self._whole, self._other = Stream("sha384"), Stream("sha256")
        self._written: list[_Written] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._whole, self._other):
            stream.close()
        self._threads.shutdown(cancel_futures=True)

    def read(self) -> FileDigests:
        """Size and both digests of the file. Raises HostError or DiskFullError, for volumes too."""
        try:
            source = FileReader(self._path)
            try:
                start = 0
                while count := self._write_volume(source, start):
                    start += count
            finally:
                source.close()
        except OSError as error:
            raise translate_os_error(error, f"reading {self._path.name}") from error
        try:
            for each in self._written:
                each.ended.result()
        except OSError as error:
            raise translate_os_error(error, f"writing {self._path.name}") from error
        return FileDigests(
            sum(each.size for each in self._written),
            Digest("sha384", self._whole.digest().result()),
            Digest("sha256", self._other.digest().result()),
        )

    def volumes(self) -> Iterator[Volume]:
        """What `read` wrote, which is durable."""
        for number, each in enumerate(self._written):
            blocks = tuple(block.result() for block in each.blocks)
            digest = Digest(SUMS_ALGORITHM, each.digest.result())
            yield Volume(volume_name(number), each.size, digest, blocks)

    def _write_volume(self, source: BlockReader, start: int) -> int:
        """The volume from byte `start` on; its size, 0 beyond the end. Raises OSError."""
        first = not self._written
        stream = self._whole if first else Stream(SUMS_ALGORITHM)
        blocks: list[Future[str]] = []
        size = 0
        out: BlockWriter | None = None
        try:
            while size < self._volume_bytes:
                buffer = self._ring.take()
                view = buffer[: source.read_into(buffer, BLOCK_BYTES, start + size)]
                if not view:
                    break
                if out is None:
                    path = self._folder / volume_name(len(self._written))
                    out = BlockWriter(path)
                work: list[Future[Any]] = [
                    self._threads.submit(hash_view, view, self._algorithm),
                    out.write(view, size),
                    self._whole.add(view),
                    self._other.add(view),
                ]
                blocks.append(work[0])
                if not first:
                    work.append(stream.add(view))
                self._ring.give_back(buffer, work)
                self._listener(Advanced(TASK, len(view)))
                size += len(view)
        except BaseException:
            if out is not None:
                out.abandon()
            raise
        finally:
            digest = stream.digest()
            if not first:
                stream.close()
        if out is None:
            return 0
        self._written.append(_Written(size, digest, blocks, out.end()))
        return size
