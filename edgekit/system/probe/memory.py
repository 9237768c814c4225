"""Memory facts from /proc/meminfo and the control groups."""

from __future__ import annotations

import os

from edgekit.core.facts import Fact, MemoryFacts
from edgekit.system.probe.cgroup import group_chain, legacy_chain
from edgekit.system.probe.view import HostView

_MEMINFO = "/proc/meminfo"
_NO_LIMIT = 1 << 60
"""cgroup v1 writes a number beyond any memory for no limit."""


def probe_memory(view: HostView) -> MemoryFacts:
    """Facts about memory in bytes."""
    values: dict[str, int] = {}
    for line in (view.text("proc/meminfo") or "").splitlines():
        key, _, rest = line.partition(":")
        parts = rest.split()
        if parts and parts[0].isdigit():
            values[key] = int(parts[0]) * (1024 if parts[-1] == "kB" else 1)

    def fact(key: str) -> Fact[int]:
        return Fact(values.get(key), _MEMINFO)

    limit, used = _tightest_group(view)
    page = view.call("page_size", lambda: str(os.sysconf("SC_PAGE_SIZE"))) or ""
    return MemoryFacts(
        total=fact("MemTotal"),
        available=fact("MemAvailable"),
        limit=limit,
        limit_used=used,
        swap=fact("SwapTotal"),
        zram=_zram(view),
        huge_page_bytes=fact("Hugepagesize"),
        huge_pages_free=fact("HugePages_Free"),
        page_bytes=Fact(int(page) if page.isdigit() else None, "sysconf"),
        bandwidth=Fact(None, "not measured; edgekit probe --bandwidth"),
    )


def _zram(view: HostView) -> Fact[int]:
    """Bytes of compressed swap in memory; they are not more memory."""
    sizes = [view.number(f"sys/block/{name}/disksize") or 0
             for name in view.names("sys/block") if name.startswith("zram")]
    return Fact(sum(sizes), "/sys/block/zram*/disksize")


def _tightest_group(view: HostView) -> tuple[Fact[int], Fact[int]]:
    """(limit, use) in bytes of the group that leaves least room.

    Page cache counts as use but is given back under pressure, so inactive file pages are taken off.
    """
    source = "memory.max and memory.high of the control groups"
    found: list[tuple[int, int]] = []
    for group in group_chain(view):
        for name in ("memory.max", "memory.high"):
            limit = view.number(f"{group}/{name}")
            if limit is not None:
                used = view.number(f"{group}/memory.current") or 0
                found.append((limit, max(0, used - _reclaimable(view, group, "inactive_file"))))
    for group in legacy_chain(view, "memory"):
        limit = view.number(f"{group}/memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT:
            used = view.number(f"{group}/memory.usage_in_bytes") or 0
            given_back = _reclaimable(view, group, "total_inactive_file")
            found.append((limit, max(0, used - given_back)))
    if not found:
        return Fact(None, source), Fact(None, source)
    limit, used = min(found, key=lambda pair: pair[0] - pair[1])
    return Fact(limit, source), Fact(used, source)


def _reclaimable(view: HostView, group: str, name: str) -> int:
    for line in (view.text(f"{group}/memory.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0
