"""Blobs on the host: staged, verified, fsynced, then moved into the store by rename (I2, I3)."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.core.digest import Digest
from edgekit.core.events import Listener
from edgekit.core.host_layout import HostLayout
from edgekit.errors import DigestError
from edgekit.system.bundle_set import VerifiedSet
from edgekit.system.files import fsync_directory, remove_tree, translate_os_error
from edgekit.system.volumes import BlobSink, read_volumes


def present_blobs(layout: HostLayout, sizes: dict[Digest, int]) -> frozenset[Digest]:
    """Those of the given blobs (digest to size in bytes) that the store holds at full size."""
    found = set()
    for digest, size in sizes.items():
        path = layout.blob(digest)
        if path.is_file() and path.stat().st_size == size:
            found.add(digest)
    return frozenset(found)


def copy_blobs(
    verified: VerifiedSet, missing: tuple[Digest, ...], layout: HostLayout, listener: Listener
) -> None:
    """Step V7: copy the missing blobs from the medium in one pass, hashing on the way.

    Everything is written below a private staging folder and enters the store only when every
    block was right. After damage nothing of it stays. When the process is interrupted or killed,
    blobs already complete stay there, and the next run does not read them again. Raises
    DigestError, DiskFullError or HostError.
    """
    staging = layout.staging / verified.statement.generation
    try:
        staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        wanted = _not_staged(staging, missing)
        sink = BlobSink(staging, verified.table, wanted)
        try:
            read_volumes(
                verified.table,
                verified.volume_path,
                wanted=wanted,
                sink=sink,
                listener=listener,
                task="copy and verify",
            )
        finally:
            sink.close()
        fsync_directory(staging)
        _land(staging, missing, layout)
    except DigestError:
        remove_tree(staging)
        raise
    except OSError as error:
        raise translate_os_error(error, "copying the set") from error


def discard_staging(layout: HostLayout, generation: str) -> None:
    """Forget a copy under way."""
    remove_tree(layout.staging / generation)


def _not_staged(staging: Path, missing: tuple[Digest, ...]) -> frozenset[Digest]:
    for part in staging.glob("*.part"):
        part.unlink()
    return frozenset(digest for digest in missing if not (staging / digest.value).exists())


def _land(staging: Path, missing: tuple[Digest, ...], layout: HostLayout) -> None:
    """Rename every staged blob into the store; both folders are on one file system."""
    folders = set()
    for digest in missing:
        target = layout.blob(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(staging / digest.value, 0o444)  # noqa: PTH101 - same call, no Path to build twice
        (staging / digest.value).rename(target)
        folders.add(target.parent)
    for folder in folders:
        fsync_directory(folder)
    remove_tree(staging)
