"""Cards as the kernel's graphics subsystem shows them in sysfs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.system.probe.view import HostView

_DRM = "sys/class/drm"


@dataclass(frozen=True, slots=True)
class Card:
    """One card: its folder below /sys/class/drm, its uevent lines, its memory in bytes."""

    folder: str
    driver: str | None
    address: str
    device: str
    memory: int | None
    memory_used: int | None


def cards_of(view: HostView, vendor: str) -> list[Card]:
    """Cards of one vendor (`0x1002`), in the kernel's order."""
    found = []
    for name in view.names(_DRM):
        folder = f"{_DRM}/{name}/device"
        if re.fullmatch(r"card[0-9]+", name) and view.text(f"{folder}/vendor") == vendor:
            lines = (view.text(f"{folder}/uevent") or "").splitlines()
            event = dict(line.split("=", 1) for line in lines if "=" in line)
            found.append(
                Card(
                    folder=folder,
                    driver=event.get("DRIVER"),
                    address=event.get("PCI_SLOT_NAME", name),
                    device=(view.text(f"{folder}/device") or "unknown").removeprefix("0x"),
                    memory=view.number(f"{folder}/mem_info_vram_total"),
                    memory_used=view.number(f"{folder}/mem_info_vram_used"),
                )
            )
    return found
