"""Memory facts from /proc/meminfo and the control groups."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.facts import Fact, MemoryFacts
from edgekit.system.probe.cgroup import group_chain, read_text


def probe_memory(root: Path = Path("/")) -> MemoryFacts:
    """Facts about memory in bytes; `root` replaces `/` for recorded hosts."""
    values: dict[str, int] = {}
    for line in (read_text(root / "proc/meminfo") or "").splitlines():
        key, _, rest = line.partition(":")
        parts = rest.split()
        if parts and parts[0].isdigit():
            values[key] = int(parts[0]) * 1024

    def fact(key: str) -> Fact[int]:
        return Fact(values.get(key), "/proc/meminfo")

    limit, used = _tightest_group(root)
    return MemoryFacts(fact("MemTotal"), fact("MemAvailable"), limit, used, fact("SwapTotal"))


def _tightest_group(root: Path) -> tuple[Fact[int], Fact[int]]:
    """(limit, use) in bytes of the group that leaves least room.

    Page cache counts as use in memory.current but is given back under pressure, so inactive file
    pages are taken off.
    """
    source = "memory.max and memory.high of the control groups"
    best: tuple[int, int] | None = None
    for group in group_chain(root):
        for name in ("memory.max", "memory.high"):
            text = read_text(group / name) or ""
            if not text.isdigit():
                continue
            current = int(read_text(group / "memory.current") or "0")
            used = max(0, current - _reclaimable(group))
            if best is None or int(text) - used < best[0] - best[1]:
                best = (int(text), used)
    if best is None:
        return Fact(None, source), Fact(None, source)
    return Fact(best[0], source), Fact(best[1], source)


def _reclaimable(group: Path) -> int:
    for line in (read_text(group / "memory.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key == "inactive_file" and value.isdigit():
            return int(value)
    return 0
