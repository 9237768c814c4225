"""AMD accelerators through sysfs: graphics cards, and the compute nodes (KFD) behind them."""

from __future__ import annotations

from edgekit.core.facts import Fact, GpuFacts
from edgekit.system.probe.drm import Card, cards_of
from edgekit.system.probe.view import HostView

_VENDOR = "0x1002"
_NODES = "sys/class/kfd/kfd/topology/nodes"
_DRM = "/sys/class/drm"
_SMALL_APERTURE = 4 << 30
"""An APU's carve-out; a card of its own has more."""


def probe_amd(view: HostView) -> list[GpuFacts]:
    """All of them; the target (gfx942) is known only where the compute driver is."""
    nodes = _nodes(view)
    cards = cards_of(view, _VENDOR)
    return [_gpu(view, card, nodes.get(_location(card.address))) for card in cards]


def _gpu(view: HostView, card: Card, node: dict[str, str] | None) -> GpuFacts:
    free = None
    if card.memory is not None and card.memory_used is not None:
        free = max(0, card.memory - card.memory_used)
    name = view.text(f"{card.folder}/product_name") or f"AMD device {card.device}"
    shares = node is not None and int(node.get("cpu_cores_count", "0")) > 0
    small = card.memory is not None and card.memory < _SMALL_APERTURE
    kernel = view.text("sys/module/amdgpu/version") or view.call("kernel", lambda: None)
    return GpuFacts(
        vendor=Fact("amd", _DRM),
        name=Fact(name[:200], _DRM),
        identity=Fact(card.address, _DRM),
        architecture=Fact(_target(node), f"/{_NODES}"),
        memory=Fact(card.memory, _DRM),
        memory_free=Fact(free, _DRM),
        driver=Fact(card.driver, _DRM),
        driver_version=Fact(kernel, "/sys/module/amdgpu/version"),
        cuda=Fact(None, "not NVIDIA"),
        integrated=Fact(shares or small, f"/{_NODES}"),
        partitioned=Fact(value=False, source=_DRM),
        partition=Fact(None, _DRM),
    )


def _nodes(view: HostView) -> dict[int, dict[str, str]]:
    """Compute nodes with an accelerator by their place on the bus."""
    found = {}
    for name in view.names(_NODES):
        lines = (view.text(f"{_NODES}/{name}/properties") or "").splitlines()
        node = dict(line.split(" ", 1) for line in lines if " " in line)
        place = node.get("location_id", "")
        if place.isdigit() and node.get("simd_count", "0") != "0":
            found[int(node.get("domain", "0")) << 16 | int(place)] = node
    return found


def _location(address: str) -> int:
    """`0000:03:00.0` as the compute driver numbers it."""
    try:
        domain, bus, rest = address.split(":")
        device, function = rest.split(".")
        return (
            int(domain, 16) << 16 | int(bus, 16) << 8 | int(device, 16) << 3 | int(function, 16)
        )
    except ValueError:
        return -1


def _target(node: dict[str, str] | None) -> str | None:
    """90402 is gfx942: major, minor and stepping in decimal pairs."""
    text = (node or {}).get("gfx_target_version", "")
    if not text.isdigit() or int(text) == 0:
        return None
    number = int(text)
    return f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"
