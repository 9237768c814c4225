"""What an installed engine itself sees: ggml's list of devices, of whatever vendor."""

from __future__ import annotations

import json

from edgekit.core.facts import Fact
from edgekit.system.probe.view import HostView

_PACKS = "opt/edgekit/current/engines"
_PROGRAMS = ("edgekit-ggml", "edgekit-llama")
"""Programs of the llama.cpp packs that list devices; beside the server, or the server itself."""
MAX_DEVICES = 64


def probe_engine_devices(view: HostView) -> Fact[tuple[str, ...]]:
    """Every device as `NAME KIND SIZE MiB DESCRIPTION`; unknown while no llama.cpp is installed.

    A device of kind `gpu` or `igpu` that is missing here is one that the engine will not use.
    """
    for pack in view.names(_PACKS):
        for program in _PROGRAMS:
            path = view.path(f"{_PACKS}/{pack}/{program}")
            if view.is_live and not path.is_file():
                continue
            text = view.command("ggml-devices", [str(path), "devices"])
            if text is not None:
                return Fact(_devices(text), f"/{_PACKS}/{pack}/{program} devices")
    return Fact(None, "no llama.cpp pack is installed here")


def _devices(text: str) -> tuple[str, ...]:
    found = []
    for line in text.splitlines()[:MAX_DEVICES]:
        try:
            device = json.loads(line)
            size = int(device["total"]) >> 20
            found.append(f"{device['name']} {device['type']} {size} MiB {device['description']}")
        except (ValueError, KeyError, TypeError):
            continue  # the engine's own remarks between the lines
    return tuple(words[:200] for words in found)
