"""How blobs become volumes: a plain concatenation, split at the volume limit (bundle-v1 section 7).

The order is given by the caller (manifest order), so the same entries give the same volumes. Large
blobs begin a volume of their own: weights then lie in the same volumes whatever else of a set
changed, a rebuild takes these over as they are, and a damaged volume hits one model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekit.core.digest import Digest
from edgekit.core.release import Extent

LARGE_BLOB_BYTES = 256 << 20

Extents = dict[Digest, tuple[Extent, ...]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a blob's bytes in a volume: where it starts in the blob, and its length in bytes."""

    digest: Digest
    start: int
    length: int


def plan_layout(
    blobs: Iterable[tuple[Digest, int]],
    *,
    volume_bytes: int,
    large_bytes: int = LARGE_BLOB_BYTES,
) -> tuple[list[int], Extents]:
    """Sizes of the volumes and the extents of each distinct blob; sizes in bytes.

    First the blobs below `large_bytes` share volumes, then each larger one fills its own. An empty
    blob has no extents. `volume_bytes` is a multiple of the block size.
    """
    distinct = dict(blobs)
    extents: Extents = {}
    sizes: list[int] = []
    small = {digest: size for digest, size in distinct.items() if size < large_bytes}
    large = {digest: {digest: size} for digest, size in distinct.items() if digest not in small}
    for group in (small, *large.values()):
        _fill(group, volume_bytes, sizes, extents)
    return sizes, {digest: extents[digest] for digest in distinct}


def _fill(group: dict[Digest, int], volume_bytes: int, sizes: list[int], extents: Extents) -> None:
    """Lay a group of blobs out in new volumes, behind those that are there."""
    volume, offset = len(sizes), 0
    for digest, size in group.items():
        runs = []
        left = size
        while left:
            if offset == volume_bytes:
                volume, offset = volume + 1, 0
            length = min(left, volume_bytes - offset)
            runs.append(Extent(volume, offset, length))
            offset += length
            left -= length
        extents[digest] = tuple(runs)
    full = volume - len(sizes)
    sizes += [volume_bytes] * full + ([offset] if offset else [])


def volume_pieces(extents: Mapping[Digest, tuple[Extent, ...]], count: int) -> list[list[Piece]]:
    """What goes into each of `count` volumes, in order of offset."""
    placed: list[list[tuple[int, Piece]]] = [[] for _ in range(count)]
    for digest, runs in extents.items():
        start = 0
        for run in runs:
            placed[run.volume].append((run.offset, Piece(digest, start, run.length)))
            start += run.length
    return [[piece for _, piece in sorted(volume, key=_offset)] for volume in placed]


def _offset(placed: tuple[int, Piece]) -> int:
    return placed[0]


def content_key(pieces: Iterable[Piece], algorithm: str) -> str:
    """A name for the bytes of a volume and the digests of its blocks, in hex."""
    lines = [f"{piece.digest} {piece.start} {piece.length}\n" for piece in pieces]
    return Digest.of("".join([f"{algorithm}\n", *lines]).encode()).value
