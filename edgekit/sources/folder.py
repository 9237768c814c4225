"""Weights in a local folder: hashed where they lie, never copied here.

A file is found below the folder's real path only: a symbolic link may point around inside it, and
one that leaves it is refused.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgekit.core.events import Advanced, Finished, Listener, Started, ignore_events
from edgekit.core.lock import LockedFile
from edgekit.core.names import RelPath
from edgekit.errors import RefusedContentError, SourceDigestError, SourceError
from edgekit.sources.content import check_stored_weights
from edgekit.system.digest_cache import DigestCache
from edgekit.system.volumes import worker_count


def lock_folder(
    base: Path, files: Iterable[RelPath], digests: DigestCache,
    listener: Listener = ignore_events,
) -> tuple[LockedFile, ...]:
    """Size and SHA-256 of each named file below `base`, in the order given.

    Files that did not change since `digests` saw them are not read. Raises SourceError for a
    missing file, RefusedContentError for content edgekit does not carry or a link that leaves the
    folder.
    """
    with ThreadPoolExecutor(worker_count()) as pool:
        return tuple(pool.map(lambda path: _lock_file(base, path, digests, listener), files))


def find_large(base: Path, files: Iterable[RelPath], bytes_: int) -> list[Path]:
    """Where those of the named files lie that have at least so many bytes.

    Raises as `lock_folder` does; nothing is hashed.
    """
    found = [(path, _find(base, path)) for path in files]
    for path, place in found:
        check_stored_weights(path, place)
    return [place for _, place in found if place.stat().st_size >= bytes_]


def fetch_folder(
    base: Path, locked: Iterable[LockedFile], digests: DigestCache,
    listener: Listener = ignore_events,
) -> dict[RelPath, Path]:
    """Where each locked file is, after its bytes were found to be the locked ones.

    Files that did not change since `digests` saw them are not read. Raises SourceDigestError naming
    a file that is no longer what was locked. The files stay where they are: whoever reads them
    later must hash them again while reading.
    """
    files = tuple(locked)
    found = {}
    current = lock_folder(base, (file.path for file in files), digests, listener)
    for file, now in zip(files, current, strict=True):
        if now != file:
            raise SourceDigestError(
                f"{file.path} changed since the lock was made", where=str(file.path),
                found=f"{now.size} bytes, {now.sha256}", needed=f"{file.size} bytes, {file.sha256}",
                hint="edgekit lock RECIPE",
            )
        found[file.path] = _find(base, file.path)
    return found


def _lock_file(
    base: Path, path: RelPath, digests: DigestCache, listener: Listener
) -> LockedFile:
    place = _find(base, path)
    check_stored_weights(path, place)
    task = f"hash {path}"
    listener(Started(task, place.stat().st_size))
    found = digests.digests(place, lambda count: listener(Advanced(task, count)))
    listener(Finished(task))
    return LockedFile(path, found.size, found.sha256)


def _find(base: Path, path: RelPath) -> Path:
    try:
        root = base.resolve(strict=True)
        place = root.joinpath(*path.parts).resolve(strict=True)
        mode = place.stat().st_mode
    except FileNotFoundError as error:
        raise SourceError(f"{path} is not in the folder", where=str(base)) from error
    except (OSError, RuntimeError) as error:
        raise SourceError(f"{path} cannot be read", where=str(base), found=str(error)) from error
    if not place.is_relative_to(root):
        raise RefusedContentError(f"{path} is a link that leaves the folder", where=str(path),
                                  found=str(place), needed=f"a file below {root}")
    if not stat.S_ISREG(mode):
        raise RefusedContentError(f"{path} is not a regular file", where=str(path))
    return place
