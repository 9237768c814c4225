"""Disk facts: free bytes, file system and mount flags of the places edgekit writes to."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.facts import DiskFacts, Fact
from edgekit.system.files import free_bytes
from edgekit.system.probe.cgroup import read_text


def probe_disk(path: Path) -> DiskFacts:
    """Facts about the file system that holds, or will hold, `path`."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    kind, options = _mount_of(existing.resolve())
    return DiskFacts(
        path=str(path),
        free=Fact(free_bytes(existing), "statvfs"),
        file_system=Fact(kind, "/proc/self/mountinfo"),
        read_only=Fact("ro" in options if options is not None else None, "/proc/self/mountinfo"),
        no_exec=Fact("noexec" in options if options is not None else None, "/proc/self/mountinfo"),
    )


def _mount_of(path: Path) -> tuple[str | None, set[str] | None]:
    """(file system type, options) of the longest mount point that contains `path`."""
    best: tuple[int, str, set[str]] | None = None
    for line in (read_text(Path("/proc/self/mountinfo")) or "").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 6 or not after:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))
        if (point == path or point in path.parents) and (
            best is None or len(point.parts) >= best[0]
        ):
            best = (len(point.parts), after.split()[0], set(fields[5].split(",")))
    return (best[1], best[2]) if best else (None, None)
