"""Blobs on the host: staged, verified, fsynced, then moved into the store by rename (I2, I3)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.host_layout import HostLayout
from edgekit.errors import DigestError
from edgekit.system.bundle_set import VerifiedSet
from edgekit.system.files import ensure_directory, fsync_directory, remove_tree, translate_os_error
from edgekit.system.volumes import BlobSink, hash_file, read_volumes, worker_count


def present_blobs(layout: HostLayout, sizes: dict[Digest, int]) -> frozenset[Digest]:
    """Those of the given blobs (digest to size in bytes) that the store holds at full size."""
    found = set()
    for digest, size in sizes.items():
        path = layout.blob(digest)
        if path.is_file() and path.stat().st_size == size:
            found.add(digest)
    return frozenset(found)


def intact_blobs(
    layout: HostLayout, sizes: dict[Digest, int], listener: Listener
) -> frozenset[Digest]:
    """Those of the given blobs that the store holds, every byte hashed again by all cores.

    A blob that rotted is not in the result, so that `install` copies it anew. Changes nothing.
    """
    present = sorted(present_blobs(layout, sizes))
    if not present:
        return frozenset()
    task = "check what is here"
    listener(Started(task, sum(sizes[digest] for digest in present)))

    def is_intact(digest: Digest) -> bool:
        found, size = hash_file(layout.blob(digest), digest.algorithm)
        listener(Advanced(task, size))
        return found == digest

    with ThreadPoolExecutor(worker_count()) as pool:
        verdicts = list(pool.map(is_intact, present))
    listener(Finished(task))
    return frozenset(d for d, intact in zip(present, verdicts, strict=True) if intact)


def discard_blobs(layout: HostLayout, digests: tuple[Digest, ...]) -> None:
    """Remove blobs that a failed installation brought; absent ones are fine. Raises HostError."""
    try:
        for digest in digests:
            layout.blob(digest).unlink(missing_ok=True)
    except OSError as error:
        raise translate_os_error(error, "removing blobs") from error


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
        ensure_directory(layout.staging)
        staging.mkdir(exist_ok=True, mode=0o700)
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
        ensure_directory(target.parent)
        os.chmod(staging / digest.value, 0o444)  # noqa: PTH101 - same call, no Path to build twice
        (staging / digest.value).rename(target)
        folders.add(target.parent)
    for folder in folders:
        fsync_directory(folder)
    remove_tree(staging)
