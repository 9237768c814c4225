"""Accelerators of every vendor: NVIDIA's own tool first, then what the kernel shows on the bus."""

from __future__ import annotations

import re

from edgekit.core.facts import GpuFacts
from edgekit.system.probe.amd import probe_amd
from edgekit.system.probe.intel import probe_intel
from edgekit.system.probe.nvidia import probe_nvidia, without_driver
from edgekit.system.probe.view import HostView

_PCI = "sys/bus/pci/devices"
_DISPLAY_CLASSES = ("0x0300", "0x0302", "0x1200")
"""Display controller, 3D controller, processing accelerator (PCI class codes)."""
_NVIDIA = "0x10de"


def probe_gpus(view: HostView) -> tuple[GpuFacts, ...]:
    """All accelerators, in the order the vendors' tools or the bus number them."""
    nvidia = probe_nvidia(view) or _nvidia_on_the_bus(view)
    return (*nvidia, *probe_amd(view), *probe_intel(view))


def _nvidia_on_the_bus(view: HostView) -> list[GpuFacts]:
    """Cards that are there without a driver: the report must say so instead of nothing."""
    found = []
    for address in view.names(_PCI):
        folder = f"{_PCI}/{address}"
        kind = (view.text(f"{folder}/class") or "")[:6]
        if kind in _DISPLAY_CLASSES and view.text(f"{folder}/vendor") == _NVIDIA:
            device = re.sub(r"^0x", "", view.text(f"{folder}/device") or "unknown")
            found.append(without_driver(view, f"/{_PCI}", address, device))
    return found
