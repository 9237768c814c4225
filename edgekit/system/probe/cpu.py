"""Processor facts from /proc/cpuinfo, sysfs topology and the control groups."""

from __future__ import annotations

import os
import platform
import re

from edgekit.core.facts import CpuFacts, Fact
from edgekit.system.probe.cgroup import group_chain, legacy_chain
from edgekit.system.probe.view import HostView

_CPUINFO, _TOPOLOGY = "/proc/cpuinfo", "/sys/devices/system/cpu"
_ARM_VENDORS = {"0x41": "ARM", "0x4e": "NVIDIA", "0x51": "Qualcomm", "0xc0": "Ampere"}
_SLOWER_PERCENT = 90
"""Cores below so much of the fastest core's capacity are efficiency cores."""


def probe_cpu(view: HostView) -> CpuFacts:
    """Facts about the processor."""
    text = view.text("proc/cpuinfo") or ""
    cores = _cores(view)
    fast, slow = _kinds(view, cores)
    sockets = {view.text(f"{folder}/topology/physical_package_id") for folder in _folders(view)}
    nodes = [n for n in view.names("sys/devices/system/node") if re.fullmatch(r"node[0-9]+", n)]
    return CpuFacts(
        arch=Fact(view.call("machine", platform.machine), "uname"),
        vendor=_vendor(text),
        name=_name(view, text),
        flags=_flags(text),
        usable_threads=_usable_threads(view),
        logical_cores=Fact(len(_folders(view)) or None, _TOPOLOGY),
        physical_cores=Fact(len(cores) or None, _TOPOLOGY),
        performance_cores=Fact(fast, _TOPOLOGY),
        efficiency_cores=Fact(slow, _TOPOLOGY),
        sockets=Fact(len(sockets - {None}) or None, _TOPOLOGY),
        numa_nodes=Fact(len(nodes) or None, "/sys/devices/system/node"),
        caches=_caches(view),
        quota=_quota(view),
    )


def _first(text: str, keys: tuple[str, ...]) -> str | None:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys and value.strip():
            return value.strip()[:200]
    return None


def _vendor(text: str) -> Fact[str]:
    vendor = _first(text, ("vendor_id", "CPU implementer"))
    return Fact(_ARM_VENDORS.get(vendor or "", vendor), _CPUINFO)


def _name(view: HostView, text: str) -> Fact[str]:
    """On Arm the kernel names no product: the device tree's model is next."""
    name = _first(text, ("model name", "Model", "Hardware"))
    if name is not None:
        return Fact(name, _CPUINFO)
    return Fact(view.text("proc/device-tree/model"), "/proc/device-tree/model")


def _flags(text: str) -> Fact[tuple[str, ...]]:
    """Flags as the kernel shows them: what the hypervisor or BIOS masks is already gone."""
    flags = None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            found = set(value.split())
            flags = found if flags is None else flags & found
    return Fact(tuple(sorted(flags)) if flags is not None else None, _CPUINFO)


def _usable_threads(view: HostView) -> Fact[int]:
    text = view.call("affinity", lambda: str(len(os.sched_getaffinity(0)))) or ""
    return Fact(int(text) if text.isdigit() else None, "sched_getaffinity")


def _folders(view: HostView) -> list[str]:
    folder = "sys/devices/system/cpu"
    names = [name for name in view.names(folder) if re.fullmatch(r"cpu[0-9]+", name)]
    return [f"{folder}/{name}" for name in names if view.exists(f"{folder}/{name}/topology")]


def _cores(view: HostView) -> dict[str, str]:
    """One folder for each distinct set of sibling threads: one set is one core."""
    cores: dict[str, str] = {}
    for folder in _folders(view):
        siblings = view.text(f"{folder}/topology/thread_siblings_list")
        package = view.text(f"{folder}/topology/physical_package_id")
        if siblings is not None:
            cores.setdefault(f"{package}:{siblings}", folder)
    return cores


def _kinds(view: HostView, cores: dict[str, str]) -> tuple[int | None, int | None]:
    """(fast, slow) cores where they differ, by capacity or else by highest frequency."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        rates = [view.number(f"{folder}/{name}") for folder in cores.values()]
        known = [rate for rate in rates if rate]
        if len(known) != len(cores) or not known:
            continue
        # Turbo limits differ by a few percent between equal cores.
        slow = sum(rate * 100 < max(known) * _SLOWER_PERCENT for rate in known)
        if (slow and view.exists("sys/devices/cpu_atom")) or (slow and name == "cpu_capacity"):
            return len(cores) - slow, slow
    return None, None


def _caches(view: HostView) -> Fact[tuple[str, ...]]:
    source = f"{_TOPOLOGY}/cpu0/cache"
    found = []
    for name in view.names("sys/devices/system/cpu/cpu0/cache"):
        folder = f"sys/devices/system/cpu/cpu0/cache/{name}"
        level, size = view.text(f"{folder}/level"), view.text(f"{folder}/size")
        kind = {"Data": "d", "Instruction": "i"}.get(view.text(f"{folder}/type") or "", "")
        if level and size:
            found.append(f"L{level}{kind} {size}")
    return Fact(tuple(found) or None, source)


def _quota(view: HostView) -> Fact[int]:
    """The tightest CPU quota on the way to the root, in hundredths of a CPU."""
    shares = []
    for group in group_chain(view):
        parts = (view.text(f"{group}/cpu.max") or "").split()
        if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]) > 0:
            shares.append(int(parts[0]) * 100 // int(parts[1]))
    for group in legacy_chain(view, "cpu"):
        quota = view.number(f"{group}/cpu.cfs_quota_us")
        period = view.number(f"{group}/cpu.cfs_period_us")
        if quota and period:
            shares.append(quota * 100 // period)
    return Fact(min(shares) if shares else None, "cpu.max of the control groups")
