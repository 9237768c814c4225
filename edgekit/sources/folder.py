"""Weights in a local folder: hashed where they lie, never copied here.

A file is found below the folder's real path only: a symbolic link may point around inside it, and
one that leaves it is refused.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Finished, Listener, Started, ignore_events
from edgekit.core.lock import LockedFile
from edgekit.core.names import RelPath
from edgekit.errors import RefusedContentError, SourceDigestError, SourceError
from edgekit.sources.blob_cache import hash_file
from edgekit.sources.content import check_stored_weights
from edgekit.system.files import translate_os_error


def lock_folder(
    base: Path, files: Iterable[RelPath], listener: Listener = ignore_events
) -> tuple[LockedFile, ...]:
    """Size and SHA-256 of each named file below `base`, in the order given.

    Raises SourceError for a missing file, RefusedContentError for content edgekit does not carry or
    a link that leaves the folder.
    """
    return tuple(_lock_file(base, path, listener) for path in files)


def fetch_folder(
    base: Path, locked: Iterable[LockedFile], listener: Listener = ignore_events
) -> dict[RelPath, Path]:
    """Where each locked file is, after hashing all of its bytes.

    Raises SourceDigestError naming a file that is no longer what was locked. The files stay where
    they are: whoever reads them later must hash them again while reading.
    """
    found = {}
    for file in locked:
        now = _lock_file(base, file.path, listener)
        if now != file:
            raise SourceDigestError(
                f"{file.path} changed since the lock was made", where=str(file.path),
                found=f"{now.size} bytes, {now.sha256}", needed=f"{file.size} bytes, {file.sha256}",
                hint="edgekit lock RECIPE",
            )
        found[file.path] = _find(base, file.path)
    return found


def _lock_file(base: Path, path: RelPath, listener: Listener) -> LockedFile:
    place = _find(base, path)
    check_stored_weights(path, place)
    digest, size = _hash(path, place, listener)
    return LockedFile(path, size, digest)


def _hash(path: RelPath, place: Path, listener: Listener) -> tuple[Digest, int]:
    task = f"hash {path}"
    try:
        listener(Started(task, place.stat().st_size))
        result = hash_file(place, lambda chunk: listener(Advanced(task, len(chunk))))
    except OSError as error:
        raise translate_os_error(error, f"reading {path}") from error
    listener(Finished(task))
    return result


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
