"""Memory: the pass over the blocks of a set as large as `--bytes` says, which takes no disk."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Row, compare, python_child, run_child


def run(folder: Path, total: int, rounds: int) -> list[Row]:
    """Rows of a small set and of a large one: the figure is the peak."""
    small = min(total, 100_000_000)
    contenders = []
    for size in (small, total):
        place = folder / f"sparse-{size}"
        if not place.exists():
            run_child("sparse-set", place, str(size))
        name = f"edgekit verify, {size / 1e9:.1f} GB"
        contenders.append(python_child(name, "verify-only", place))
    return compare(contenders, amount=0, rounds=rounds, folder=folder)
