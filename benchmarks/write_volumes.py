"""Bundling: the write path against hashing every byte once with all cores and copying it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Row, compare, python_child


def run(folder: Path, total: int, rounds: int) -> list[Row]:
    """Rows for warm caches; the reference hashes with SHA-384, then `cp -r` and `sync`."""
    files = folder / "files"
    contenders = [
        python_child("hash once, cp -r, sync", "hash-and-copy", files, "{target}"),
        *(
            python_child(
                f"edgekit, unchanged files, {algorithm}",
                "write-known",
                files,
                folder / algorithm,
                "{target}",
            )
            for algorithm in ("sha256", "sha384")
        ),
        *(
            python_child(
                f"edgekit, new files, {algorithm}", "write-unknown", files, algorithm, "{target}"
            )
            for algorithm in ("sha256", "sha384")
        ),
    ]
    return compare(contenders, amount=total, rounds=rounds, folder=folder)
