"""`edgekit status`: what is installed here, who signed it, and does it run."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from edgekit.core.host_layout import HostLayout
from edgekit.operations.host_records import load_appliance, require_generation
from edgekit.operations.host_trust import load_host_trust, trust_warnings
from edgekit.system.clock import wall_clock
from edgekit.system.files import read_bounded

MAX_DOCUMENT_BYTES = 16 << 20


def host_status(layout: HostLayout) -> dict[str, Any]:
    """The host's state as plain JSON values (`edgekit.status/1`). Raises NotInstalledError."""
    generation = require_generation(layout)
    appliance = load_appliance(layout, generation)
    host = load_host_trust(layout)
    return {
        "schema": "edgekit.status/1",
        "generation": generation,
        "generations": sorted(
            p.name for p in layout.generations.iterdir() if not p.name.startswith(".")
        ),
        "listen": appliance.listen,
        "alive": _alive(appliance.listen),
        "models": [
            {"name": m.name, "quantization": m.quantization, "context": m.context}
            for m in appliance.models
        ],
        "floor": {"epoch": host.floor.epoch, "sequence": host.floor.sequence},
        "policy": host.root.policy if host.root else "",
        "developer_root": bool(host.root and host.root.developer),
        "warnings": trust_warnings(layout, host, wall_clock()),
        "receipt": _document(layout.generation(generation) / "receipt.json"),
    }


def _document(path: Path) -> Any:
    if not path.exists():
        return None
    return json.loads(read_bounded(path, MAX_DOCUMENT_BYTES, path.name))


def _alive(listen: str) -> bool:
    """Whether the API answers on its health path."""
    address, _, port = listen.rpartition(":")
    connection = http.client.HTTPConnection(address, int(port), timeout=3)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
