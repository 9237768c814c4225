"""Installing: the installer's verify-and-copy pass against copying alone and stock tools."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import (
    Contender,
    Row,
    compare_warm_and_cold,
    installed,
    python_child,
    shell,
)
from benchmarks.peers import model_signing_verify, rauc_extract, restic_restore


def run(folder: Path, total: int, rounds: int) -> list[Row]:
    """Rows for warm and cold caches; the reference is `cp -r` then `sync`."""
    files = folder / "files"
    contenders = [
        shell("cp -r, sync", 'cp -r "$1" "$2"; sync', files, "{target}", reads=files),
        *(
            python_child(
                f"edgekit, {algorithm} blocks", "verify-and-copy", folder / algorithm, "{target}",
                reads=folder / algorithm,
            )
            for algorithm in ("sha256", "sha384")
        ),
        *_peers(files),
        *rauc_extract(files, folder),
        *restic_restore(files, folder),
        *model_signing_verify(files, folder),
    ]
    return compare_warm_and_cold(contenders, amount=total, rounds=rounds, folder=folder)


def _peers(files: Path) -> list[Contender]:
    """What one would do with Debian's own tools; those not installed are left out."""
    peers = []
    if installed("sha384sum"):
        script = 'sha384sum "$1"/* >/dev/null; cp -r "$1" "$2"; sync'
        peers.append(shell("sha384sum, cp -r, sync", script, files, "{target}", reads=files))
    if installed("rsync"):
        script = 'rsync -a --fsync "$1/" "$2"'
        peers.append(shell("rsync --fsync", script, files, "{target}", reads=files))
    return peers
