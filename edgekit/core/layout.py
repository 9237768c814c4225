"""How blobs become volumes: a plain concatenation, split at the volume limit (bundle-v1 section 7).

The order is given by the caller (manifest order), so the same entries give the same volumes.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.core.digest import Digest
from edgekit.core.release import Extent


def plan_layout(
    blobs: Iterable[tuple[Digest, int]], *, volume_bytes: int
) -> tuple[list[int], dict[Digest, tuple[Extent, ...]]]:
    """Sizes of the volumes and the extents of each distinct blob; sizes in bytes.

    An empty blob has no extents. `volume_bytes` is a multiple of the block size so that only the
    last block of the last volume is short.
    """
    extents: dict[Digest, tuple[Extent, ...]] = {}
    volume, offset = 0, 0
    for digest, size in blobs:
        if digest in extents:
            continue
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
    sizes = [volume_bytes] * volume + ([offset] if offset else [])
    return sizes, extents
