"""NVIDIA accelerators through nvidia-smi and the kernel's driver files."""

from __future__ import annotations

import re
from dataclasses import replace

from edgekit.core.facts import Fact, GpuFacts, unknown_facts
from edgekit.system.probe.view import HostView

_FIELDS = (
    "uuid", "name", "memory.total", "memory.free", "compute_cap", "driver_version",
    "mig.mode.current", "pci.bus_id",
)
_QUERY = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
_SMI = "nvidia-smi"
_MIB = 1 << 20
_SLICE = re.compile(r"MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[\w-]+)\)")
_SLICE_MEMORY = re.compile(r"\.(\d+)gb")
_INTEGRATED = ("Orin", "Thor", "GB10", "nvgpu", "Xavier", "Tegra")
"""Words in the names of accelerators that share the host's memory and have none of their own."""


def probe_nvidia(view: HostView) -> list[GpuFacts]:
    """All of them, slices after the whole they were cut from; empty without the tool."""
    text = view.command("nvidia-smi-query", _QUERY)
    if not text:
        return []
    cuda = _cuda(view)
    gpus = [gpu for line in text.splitlines() if (gpu := _gpu(view, line, cuda)) is not None]
    if not any(gpu.partitioned.value for gpu in gpus):
        return gpus
    return _with_slices(gpus, view.command("nvidia-smi-list", ("nvidia-smi", "-L")) or "")


def _gpu(view: HostView, line: str, cuda: Fact[tuple[int, int]]) -> GpuFacts | None:
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(_FIELDS):
        return None
    row = dict(zip(_FIELDS, values, strict=True))
    name = row["name"][:200]
    shares = any(word in name for word in _INTEGRATED)
    return GpuFacts(
        vendor=Fact("nvidia", _SMI),
        name=Fact(name, _SMI),
        identity=Fact(row["uuid"][:100], _SMI),
        architecture=Fact(row["compute_cap"] if "." in row["compute_cap"] else None, _SMI),
        memory=_memory(view, row["memory.total"], "MemTotal", shares=shares),
        memory_free=_memory(view, row["memory.free"], "MemAvailable", shares=shares),
        driver=Fact("nvidia", _SMI),
        driver_version=Fact(row["driver_version"][:40], _SMI),
        cuda=cuda,
        integrated=Fact(shares, "nvidia-smi: name"),
        partitioned=Fact(row["mig.mode.current"] == "Enabled", _SMI),
        partition=Fact(None, _SMI),
    )


def _memory(view: HostView, mib: str, key: str, *, shares: bool) -> Fact[int]:
    """Bytes; of one that shares the host's memory, what the host has (it reports none itself)."""
    if mib.isdigit():
        return Fact(int(mib) * _MIB, _SMI)
    match = re.search(rf"^{key}:\s+(\d+) kB", view.text("proc/meminfo") or "", re.MULTILINE)
    if shares and match:
        return Fact(int(match.group(1)) * 1024, "/proc/meminfo")
    return Fact(None, _SMI)


def _cuda(view: HostView) -> Fact[tuple[int, int]]:
    """The newest CUDA the driver runs, as nvidia-smi prints it in its head."""
    match = re.search(r"CUDA Version:\s+(\d+)\.(\d+)", view.command("nvidia-smi", (_SMI,)) or "")
    return Fact((int(match.group(1)), int(match.group(2))) if match else None, _SMI)


def _with_slices(gpus: list[GpuFacts], listing: str) -> list[GpuFacts]:
    """`nvidia-smi -L` names each card's slices below it; their size is in the profile's name."""
    found: list[GpuFacts] = []
    cards = {gpu.identity.value: gpu for gpu in gpus}
    current: GpuFacts | None = None
    for line in listing.splitlines():
        uuid = re.search(r"\(UUID: (GPU-[\w-]+)\)", line)
        if uuid is not None:
            current = cards.get(uuid.group(1))
            found += [current] if current is not None else []
            continue
        match = _SLICE.search(line)
        if match is None or current is None:
            continue
        size = _SLICE_MEMORY.search(match.group(1))
        memory = Fact(int(size.group(1)) << 30 if size else None, "nvidia-smi -L")
        found.append(
            replace(
                current,
                identity=Fact(match.group(2), "nvidia-smi -L"),
                memory=memory,
                memory_free=memory,
                partitioned=Fact(value=False, source="nvidia-smi -L"),
                partition=Fact(match.group(1), "nvidia-smi -L"),
            )
        )
    return found or gpus


def without_driver(view: HostView, source: str, address: str, device: str) -> GpuFacts:
    """An NVIDIA device on the bus that no tool speaks for."""
    driver = view.text(f"sys/bus/pci/devices/{address}/driver_name")
    return unknown_facts(
        GpuFacts,
        source,
        vendor=Fact("nvidia", source),
        name=Fact(f"NVIDIA device {device}", source),
        identity=Fact(address, source),
        driver=Fact(driver, source),
        integrated=Fact(value=False, source=source),
        partitioned=Fact(value=False, source=source),
    )
