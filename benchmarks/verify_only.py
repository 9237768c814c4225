"""Checking a stick: `edgekit verify`'s pass over the blocks against stock hashing tools."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Row, compare_warm_and_cold, installed, python_child, shell


def run(folder: Path, total: int, rounds: int) -> list[Row]:
    """Rows for warm and cold caches; the reference is reading alone."""
    sets = folder / "sha384"
    contenders = [
        shell("cat >/dev/null", 'cat "$1"/*.ekv >/dev/null', sets, reads=sets),
        *(
            python_child(
                f"edgekit, {algorithm} blocks", "verify-only", folder / algorithm,
                reads=folder / algorithm,
            )
            for algorithm in ("sha256", "sha384")
        ),
    ]
    if installed("sha384sum"):
        contenders.append(shell("sha384sum", 'sha384sum "$1"/*.ekv >/dev/null', sets, reads=sets))
    if installed("openssl"):
        script = 'openssl dgst -sha384 "$1"/*.ekv >/dev/null'
        contenders.append(shell("openssl dgst -sha384", script, sets, reads=sets))
    return compare_warm_and_cold(contenders, amount=total, rounds=rounds, folder=folder)
