"""What the Python contenders do: `python -m benchmarks.child TASK ARGUMENT ...`.

Each task runs in a process of its own and prints the seconds it took, imports not counted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.payload import VOLUME_BYTES, make_payload, make_sparse_set
from edgekit.core.events import ignore_events
from edgekit.core.layout import LARGE_BLOB_BYTES, plan_layout
from edgekit.core.release import VolumeTable, parse_volume_table
from edgekit.system.digest_cache import DigestCache
from edgekit.system.early_volumes import write_early
from edgekit.system.files import fsync_directory
from edgekit.system.volume_index import VolumeIndex
from edgekit.system.volume_writer import BlobSource, write_volumes
from edgekit.system.volumes import (
    BlobSink,
    hash_file,
    read_volumes,
    worker_count,
)


def payload(folder: str, total: str) -> None:
    """Files and sets to work on."""
    make_payload(Path(folder), int(total))


def sparse_set(folder: str, total: str) -> None:
    """A set of zeros that takes no disk."""
    make_sparse_set(Path(folder), int(total))


def verify_and_copy(set_folder: str, target: str) -> None:
    """Step V7 as `edgekit install` does it: every blob durable under its final name."""
    staging = Path(target)
    staging.mkdir()
    table = _table(Path(set_folder))
    sink = BlobSink(staging, table, frozenset(digest for digest, _ in table.blobs))
    try:
        _read(Path(set_folder), table, sink)
    finally:
        sink.close()
    fsync_directory(staging)


def verify_only(set_folder: str) -> None:
    """Step V7 as `edgekit verify` does it."""
    _read(Path(set_folder), _table(Path(set_folder)), None)


def hash_all(folder: str, algorithm: str) -> None:
    """Every file once, all cores, each file by one of them."""
    paths = sorted(Path(folder).iterdir(), key=lambda path: -path.stat().st_size)
    with ThreadPoolExecutor(worker_count()) as pool:
        list(pool.map(lambda path: hash_file(path, algorithm), paths))


def hash_and_copy(folder: str, target: str) -> None:
    """What a packager could not do without: all bytes hashed once by all cores, and copied."""
    hash_all(folder, "sha384")
    subprocess.run(["cp", "-r", folder, target], check=True)
    subprocess.run(["sync"], check=True)


def bundle(
    files: str, cache: str, algorithm: str, target: str, reads: str = "one read"
) -> None:
    """`edgekit bundle` from files to volumes, with what its cache knows.

    With other `reads` no large file is written by the read that names it (ADR 32).
    """
    folder, early = Path(cache), Path(f"{target}-new")
    folder.mkdir(exist_ok=True)
    early.mkdir()
    index = VolumeIndex(folder)
    paths = _paths(files)
    with DigestCache(folder) as digests, ThreadPoolExecutor(worker_count()) as pool:
        large = [path for path in paths if path.stat().st_size >= LARGE_BLOB_BYTES]
        write_early(
            large if reads == "one read" else [], early, algorithm=algorithm,
            volume_bytes=VOLUME_BYTES, digests=digests, index=index, listener=ignore_events,
        )
        hashed = list(pool.map(digests.digests, paths))
    blobs = [BlobSource(d.sha384, d.size, p) for d, p in zip(hashed, paths, strict=True)]
    Path(target).mkdir()
    volumes, extents = plan_layout(
        [(blob.digest, blob.size) for blob in blobs], volume_bytes=VOLUME_BYTES
    )
    write_volumes(
        Path(target),
        blobs,
        volumes,
        extents,
        algorithm=algorithm,
        listener=ignore_events,
        index=index,
    )
    index.save(Path(target), algorithm)
    shutil.rmtree(early)


def bundle_new(files: str, algorithm: str, target: str, reads: str = "one read") -> None:
    """The same with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        bundle(files, cache, algorithm, target, reads)


def rebuild(files: str, cache: str) -> None:
    """The digests of all files as `edgekit bundle` gets them, with its cache."""
    Path(cache).mkdir(exist_ok=True)
    with DigestCache(Path(cache)) as digests, ThreadPoolExecutor(worker_count()) as pool:
        list(pool.map(digests.digests, _paths(files)))


def _paths(folder: str) -> list[Path]:
    return sorted(Path(folder).iterdir())


def _table(folder: Path) -> VolumeTable:
    return parse_volume_table((folder / "volumes.json").read_bytes())


def _read(folder: Path, table: VolumeTable, sink: BlobSink | None) -> None:
    read_volumes(
        table,
        lambda index: folder / table.volumes[index].name,
        wanted=None,
        sink=sink,
        listener=ignore_events,
        task="benchmark",
    )


TASKS: dict[str, Callable[..., None]] = {
    "payload": payload,
    "sparse-set": sparse_set,
    "verify-and-copy": verify_and_copy,
    "verify-only": verify_only,
    "hash-all": hash_all,
    "hash-and-copy": hash_and_copy,
    "bundle": bundle,
    "bundle-new": bundle_new,
    "rebuild": rebuild,
}


def main(task: str, *arguments: str) -> None:
    """Run one task and print its seconds."""
    started = time.monotonic()
    TASKS[task](*arguments)
    print(time.monotonic() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
