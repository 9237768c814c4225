"""Bundling again: digests of files that did not change, with and without the digest cache."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.measure import Row, compare, python_child, run_child


def run(folder: Path, total: int, rounds: int) -> list[Row]:
    """Rows for warm caches; the reference hashes everything again, with all cores."""
    files, cache = folder / "files", folder / "cache"
    time.sleep(2.1)  # younger files are not remembered
    run_child("rebuild", files, cache)
    contenders = [
        python_child("hash all again", "hash-all", files, "sha384"),
        python_child("edgekit, digest cache", "rebuild", files, cache),
    ]
    return compare(contenders, amount=total, rounds=rounds, folder=folder)
