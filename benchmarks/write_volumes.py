"""Bundling: from files to volumes, against hashing all once with all cores and copying."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.measure import Row, compare, python_child, run_child


def run(folder: Path, total: int, rounds: int) -> list[Row]:
    """Rows for warm caches; the reference hashes with SHA-384, then `cp -r` and `sync`.

    New files are hashed by both digests that locks and sets name them by, and written with every
    block and volume hashed: large ones by one read, small ones and those of the row `two reads` by
    two, the second of which compares. Unchanged ones were bundled before.
    """
    files = folder / "files"
    time.sleep(2.1)  # younger files are not remembered
    contenders = [python_child("hash once, cp -r, sync", "hash-and-copy", files, "{target}")]
    for algorithm in ("sha256", "sha384"):
        cache = folder / f"cache-{algorithm}"
        first = folder / f"first-{algorithm}"
        if not first.exists():
            run_child("bundle", files, cache, algorithm, first)
        contenders += [
            python_child(
                f"edgekit, new files, {algorithm}", "bundle-new", files, algorithm, "{target}"
            ),
            python_child(
                f"edgekit, two reads, {algorithm}", "bundle-new", files, algorithm, "{target}",
                "two reads",
            ),
            python_child(
                f"edgekit, unchanged, {algorithm}", "bundle", files, cache, algorithm, "{target}"
            ),
        ]
    return compare(contenders, amount=total, rounds=rounds, folder=folder)
