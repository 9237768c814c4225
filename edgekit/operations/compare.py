"""`edgekit plan --compare`: what was planned for each engine, and what it took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.fields import Fields
from edgekit.core.host_layout import HostLayout
from edgekit.core.planning.engine_report import REPORT_SUFFIX, Buffer, compare
from edgekit.core.strict_json import parse_strict
from edgekit.errors import HostError, NotInstalledError
from edgekit.operations.host_records import load_appliance, require_generation
from edgekit.system.files import read_bounded

MAX_REPORT_BYTES = 1 << 20


def compare_installed(layout: HostLayout) -> dict[str, Any]:
    """Planned and found bytes of every term (`edgekit.comparison/1`).

    Engines that have not reported have an empty list. Raises NotInstalledError.
    """
    generation = require_generation(layout)
    engines = []
    for engine in load_appliance(layout, generation).engines:
        buffers = _load(Path(engine.socket))
        terms = compare(dict(engine.planned), buffers) if buffers else ()
        engines.append(
            {
                "engine": engine.name,
                "placement": engine.placement,
                "terms": [
                    {"name": t.name, "planned": t.planned, "found": t.found, "large": t.is_large}
                    for t in terms
                ],
            }
        )
    if not engines:
        raise NotInstalledError("this release serves no model", where=generation)
    return {"schema": "edgekit.comparison/1", "generation": generation, "engines": engines}


def _load(socket: Path) -> tuple[Buffer, ...]:
    path = socket.with_name(socket.stem + REPORT_SUFFIX)
    try:
        data = read_bounded(path, MAX_REPORT_BYTES, "engine report")
    except HostError:
        return ()
    fields = Fields(parse_strict(data, max_bytes=MAX_REPORT_BYTES, what="engine report"))
    fields.text("schema", choices=("edgekit.engine-report/1",))
    found = []
    for item in fields.items("buffers", max_items=256):
        found.append(
            Buffer(
                item.text("kind"), item.text("device"), item.integer("bytes", low=0, high=1 << 50)
            )
        )
        item.finish()
    fields.finish()
    return tuple(found)
