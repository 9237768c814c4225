"""What the Python contenders do: `python -m benchmarks.child TASK ARGUMENT ...`.

Each task runs in a process of its own and prints the seconds it took, imports not counted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgekit.core.events import ignore_events
from edgekit.core.layout import plan_layout
from edgekit.core.release import MAX_VOLUME_BYTES, VolumeTable, parse_volume_table
from edgekit.system.files import fsync_directory
from edgekit.system.volumes import (
    BlobSink,
    BlobSource,
    hash_file,
    read_volumes,
    worker_count,
    write_volumes,
)


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


TASKS: dict[str, Callable[..., None]] = {
    "verify-and-copy": verify_and_copy,
    "verify-only": verify_only,
    "hash-all": hash_all,
}


def main(task: str, *arguments: str) -> None:
    """Run one task and print its seconds."""
    started = time.monotonic()
    TASKS[task](*arguments)
    print(time.monotonic() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
