"""Intel accelerators through sysfs."""

from __future__ import annotations

from edgekit.core.facts import Fact, GpuFacts
from edgekit.system.probe.drm import cards_of
from edgekit.system.probe.view import HostView

_VENDOR = "0x8086"
_DRM = "/sys/class/drm"
_DISCRETE = {
    "56a0": ("Intel Arc A770", 16), "56a1": ("Intel Arc A750", 8), "56a5": ("Intel Arc A380", 6),
    "56a6": ("Intel Arc A310", 4), "e20b": ("Intel Arc B580", 12), "e20c": ("Intel Arc B570", 10),
    "e211": ("Intel Arc Pro B60", 24), "e212": ("Intel Arc Pro B50", 16),
}
"""PCI device to name and GiB of memory (the kernel's device table, Intel's data sheets): the kernel
shows no size for these cards."""


def probe_intel(view: HostView) -> list[GpuFacts]:
    """All of them; the small ones inside processors, too."""
    found = []
    for card in cards_of(view, _VENDOR):
        name, gib = _DISCRETE.get(card.device.lower(), (f"Intel device {card.device}", 0))
        shares = gib == 0
        found.append(
            GpuFacts(
                vendor=Fact("intel", _DRM),
                name=Fact(name, f"PCI device {card.device}"),
                identity=Fact(card.address, _DRM),
                architecture=Fact(None, _DRM),
                memory=Fact(gib << 30 if gib else None, f"PCI device {card.device}"),
                memory_free=Fact(None, _DRM),
                driver=Fact(card.driver, _DRM),
                driver_version=Fact(None, _DRM),
                cuda=Fact(None, "not NVIDIA"),
                integrated=Fact(shares, f"PCI device {card.device}"),
                partitioned=Fact(value=False, source=_DRM),
                partition=Fact(None, _DRM),
            )
        )
    return found
