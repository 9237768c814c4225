"""Processor facts from /proc/cpuinfo, sysfs topology and the control groups."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgekit.core.facts import CpuFacts, Fact
from edgekit.system.probe.cgroup import group_chain, read_text


def probe_cpu(root: Path = Path("/")) -> CpuFacts:
    """Facts about the processor; `root` replaces `/` for recorded hosts."""
    text = read_text(root / "proc/cpuinfo") or ""
    return CpuFacts(
        arch=Fact(platform.machine(), "uname"),
        name=_first(text, ("model name", "Model", "Hardware")),
        flags=_flags(text),
        usable_threads=Fact(len(os.sched_getaffinity(0)), "sched_getaffinity"),
        physical_cores=_physical_cores(root),
        quota=_quota(root),
    )


def _first(text: str, keys: tuple[str, ...]) -> Fact[str]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys and value.strip():
            return Fact(value.strip(), "/proc/cpuinfo")
    return Fact(None, "/proc/cpuinfo")


def _flags(text: str) -> Fact[tuple[str, ...]]:
    """Flags as the kernel shows them: what the hypervisor or BIOS masks is already gone."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return Fact(tuple(sorted(value.split())), "/proc/cpuinfo")
    return Fact(None, "/proc/cpuinfo")


def _physical_cores(root: Path) -> Fact[int]:
    """Distinct sets of sibling threads: one set is one core."""
    folder = root / "sys/devices/system/cpu"
    siblings = {
        text
        for path in folder.glob("cpu[0-9]*/topology/thread_siblings_list")
        if (text := read_text(path)) is not None
    }
    return Fact(len(siblings) or None, "/sys/devices/system/cpu")


def _quota(root: Path) -> Fact[int]:
    """The tightest cpu.max on the way to the root, in hundredths of a CPU."""
    tightest: int | None = None
    for group in group_chain(root):
        parts = (read_text(group / "cpu.max") or "").split()
        if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]) > 0:
            share = int(parts[0]) * 100 // int(parts[1])
            tightest = share if tightest is None else min(tightest, share)
    return Fact(tightest, "cpu.max of the control groups")
