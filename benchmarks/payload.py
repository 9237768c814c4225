"""Generated payloads: the shape of a set of models in any size, and the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from random import Random

from edgekit.core.digest import Digest
from edgekit.core.layout import plan_layout
from edgekit.core.release import (
    BLOCK_BYTES,
    MAX_VOLUME_BYTES,
    Volume,
    VolumeTable,
    encode_volume_table,
    volume_name,
)
from edgekit.system.volume_writer import BlobSource, write_volumes
from edgekit.system.volumes import hash_file, hash_view

SMALL_FILES = 200
CHUNK_BYTES = 1 << 20
VOLUME_BYTES = MAX_VOLUME_BYTES // BLOCK_BYTES * BLOCK_BYTES


def file_sizes(total: int) -> list[int]:
    """One large file (73 %), one medium (12 %), 200 small ones whose sizes differ up to 5 times.

    At 4.1 GB these are 3 GB, 500 MB and 1 to 5 MB. Sizes in bytes; none is zero.
    """
    shares = [1 + index % 5 for index in range(SMALL_FILES)]
    unit = max(1, total * 15 // 100 // sum(shares))
    return [max(1, total * 73 // 100), max(1, total * 12 // 100), *(unit * s for s in shares)]


def make_files(folder: Path, total: int) -> None:
    """Write the payload's files, incompressible and all different."""
    folder.mkdir(parents=True)
    for index, size in enumerate(file_sizes(total)):
        random = Random(index)
        with (folder / f"{index:03}.bin").open("wb") as file:
            for start in range(0, size, CHUNK_BYTES):
                file.write(random.randbytes(min(CHUNK_BYTES, size - start)))


def sources(folder: Path) -> list[BlobSource]:
    """The files of a folder as blobs, hashed."""
    found = []
    for path in sorted(folder.iterdir()):
        digest, size = hash_file(path, "sha384")
        found.append(BlobSource(digest, size, path))
    return found


def make_set(files: Path, folder: Path, algorithm: str) -> None:
    """Volumes of these files and their table in `folder`, through edgekit's own write path."""
    folder.mkdir(parents=True)
    blobs = sources(files)
    sizes, extents = plan_layout([(b.digest, b.size) for b in blobs], volume_bytes=VOLUME_BYTES)
    table = write_volumes(
        folder, blobs, sizes, extents, algorithm=algorithm, listener=lambda _event: None
    )
    (folder / "volumes.json").write_bytes(encode_volume_table(table))


def make_payload(folder: Path, total: int) -> None:
    """`files`, and a set of them with either block digest: `sha384` and `sha256`."""
    if not (folder / "files").exists():
        make_files(folder / "files", total)
    for algorithm in ("sha384", "sha256"):
        if not (folder / algorithm).exists():
            make_set(folder / "files", folder / algorithm, algorithm)


def make_sparse_set(folder: Path, total: int) -> None:
    """Volumes of zeros that take no room on the disk, and their table, as of one blob."""
    folder.mkdir(parents=True)
    digest = Digest.of(b"as many zeros")
    sizes, extents = plan_layout([(digest, total)], volume_bytes=VOLUME_BYTES)
    whole = hash_view(memoryview(bytes(BLOCK_BYTES)), "sha384")
    volumes = []
    for number, size in enumerate(sizes):
        path = folder / volume_name(number)
        with path.open("wb") as file:
            file.truncate(size)
        rest = bytes(size % BLOCK_BYTES)
        last = (hash_view(memoryview(rest), "sha384"),) if rest else ()
        volumes.append(Volume(path.name, size, digest, (whole,) * (size // BLOCK_BYTES) + last))
    table = VolumeTable("sha384", BLOCK_BYTES, tuple(volumes), tuple(extents.items()))
    (folder / "volumes.json").write_bytes(encode_volume_table(table))
