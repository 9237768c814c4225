"""Where the volumes of earlier sets lie, so that a rebuild takes over what did not change.

    CACHE/volumes.json     {"format": 1, "volumes": {key: {paths, algorithm, stamp, volume}}}

The key says which bytes of which blobs a volume holds (`core.layout.content_key`). A volume is
taken over by a hard link: the sets share it on disk, and nothing is written. It is linked unread
while its size, modification time and inode are those seen when it was written; otherwise every
block is read and compared first. The change time has no say: it moves when another set with the
volume comes or goes. So a volume changed by hand whose time was set back goes unnoticed here, and
is named by whoever reads the set next (`media write`, `verify`). Nothing is kept alive for this: a
volume whose files are gone is forgotten.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.digest import Digest
from edgekit.core.events import Listener
from edgekit.core.release import BLOCK_BYTES, Extent, Volume, VolumeTable, volume_name
from edgekit.errors import EdgekitError
from edgekit.system.digest_cache import RACY_NANOSECONDS
from edgekit.system.files import durable_write, read_bounded
from edgekit.system.volumes import read_volumes

FORMAT = 1
MAX_BYTES = 256 << 20
MAX_PATHS = 8
"""Of so many sets that share a volume the places are remembered."""

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Known:
    """A volume of earlier sets, newest first. Without `stamp` a change might not show in one."""

    paths: tuple[Path, ...]
    volume: Volume
    algorithm: str
    stamp: _Stamp | None


class VolumeIndex:
    """What a cache folder remembers of volumes.

    It is a convenience: an index that is missing, malformed or cannot be saved costs time and
    nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "volumes.json"
        self._known = _load(self._path)
        self._noted: list[tuple[str, Volume]] = []

    def link(self, key: str, target: Path, listener: Listener) -> Volume | None:
        """Make `target` the volume with this key, if an earlier one is there and is right."""
        known = self._known.get(key)
        if known is None:
            return None
        for path in known.paths:
            with suppress(OSError):  # gone, or on another file system
                os.link(path, target, follow_symlinks=False)
                if known.stamp == _stamp_of(target) or _is_right(known, target, listener):
                    return known.volume
                target.unlink()
        return None

    def add(self, key: str, path: Path, volume: Volume, algorithm: str) -> None:
        """A volume that this process just wrote, where nobody else writes. Raises OSError."""
        known = self._known.get(key)
        older = known.paths if known else ()
        paths = (path.absolute(), *older)[:MAX_PATHS]
        self._known[key] = _Known(paths, volume, algorithm, _stamp_of(path))

    def note(self, volumes: Iterable[tuple[str, Volume]]) -> None:
        """Volumes of the set being made, by key, for `save`."""
        self._noted = list(volumes)

    def save(self, folder: Path, algorithm: str) -> None:
        """Remember the noted volumes, which lie in `folder` for good."""
        now = time.time_ns()
        with suppress(EdgekitError, OSError):
            for key, volume in self._noted:
                path = folder.absolute() / volume.name
                stamp = _stamp_of(path)
                # Bytes written this moment may change again and show the same time.
                settled = stamp[1] + RACY_NANOSECONDS <= now
                older = self._known[key].paths if key in self._known else ()
                self._known[key] = _Known(
                    (path, *older)[:MAX_PATHS], volume, algorithm, stamp if settled else None
                )
            table = {
                key: _encode(known)
                for key, known in sorted(self._known.items())
                if any(map(os.path.lexists, known.paths))
            }
            data = json.dumps({"format": FORMAT, "volumes": table}, indent=0).encode()
            durable_write(self._path, data)


def _stamp_of(path: Path) -> _Stamp:
    """Size, modification time in nanoseconds and inode. Raises OSError."""
    status = path.stat(follow_symlinks=False)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _is_right(known: _Known, path: Path, listener: Listener) -> bool:
    """Read and compare every block."""
    size = known.volume.size
    table = VolumeTable(
        known.algorithm,
        BLOCK_BYTES,
        (Volume(volume_name(0), size, known.volume.digest, known.volume.blocks),),
        ((known.volume.digest, (Extent(0, 0, size),)),),
    )
    try:
        if _stamp_of(path)[0] != size:
            return False
        read_volumes(
            table, lambda _: path, wanted=None, sink=None, listener=listener,
            task=f"check earlier {known.volume.name}",
        )
    except EdgekitError:
        return False
    return True


def _encode(known: _Known) -> dict[str, Any]:
    volume = known.volume
    return {
        "paths": list(map(str, known.paths)),
        "algorithm": known.algorithm,
        "stamp": known.stamp,
        "volume": [volume.name, volume.size, volume.digest.value, list(volume.blocks)],
    }


def _load(path: Path) -> dict[str, _Known]:
    """What the file remembers; nothing when it is absent or not exactly right."""
    try:
        table = json.loads(read_bounded(path, MAX_BYTES, "volume index"))
        if table["format"] != FORMAT:
            return {}
        return {key: _parse(item) for key, item in table["volumes"].items()}
    except (EdgekitError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _parse(item: dict[str, Any]) -> _Known:
    """Raises FormatError, ValueError, TypeError or KeyError."""
    name, size, value, blocks = item["volume"]
    volume = Volume(name, size, Digest("sha384", value), tuple(blocks))
    digests = [Digest(item["algorithm"], block) for block in blocks]
    if len(digests) != -(-size // BLOCK_BYTES):
        raise ValueError("wrong number of blocks")
    return _Known(
        tuple(map(Path, item["paths"])), volume, item["algorithm"], _parse_stamp(item["stamp"])
    )


def _parse_stamp(stamp: Any) -> _Stamp | None:
    """Raises TypeError or ValueError."""
    if stamp is None:
        return None
    size, mtime, inode = stamp
    if not (type(size) is type(mtime) is type(inode) is int):
        raise TypeError("not an integer")
    return size, mtime, inode
