"""`edgekit plan --compare`: what was planned for each engine, and what it took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.host_layout import HostLayout
from edgekit.core.planning.engine_report import compare
from edgekit.errors import NotInstalledError
from edgekit.operations.host_records import load_appliance, require_generation
from edgekit.system.engine_report import read_report


def compare_installed(layout: HostLayout) -> dict[str, Any]:
    """Planned and found bytes, or tokens, of every term (`edgekit.comparison/1`).

    Engines that have not reported have an empty list. Raises NotInstalledError.
    """
    generation = require_generation(layout)
    engines = []
    for engine in load_appliance(layout, generation).engines:
        buffers = read_report(Path(engine.socket))
        terms = compare(dict(engine.planned), buffers) if buffers else ()
        engines.append(
            {
                "engine": engine.name,
                "placement": engine.placement,
                "terms": [
                    {
                        "name": t.name, "unit": t.unit, "planned": t.planned, "found": t.found,
                        "large": t.is_large,
                    }
                    for t in terms
                ],
            }
        )
    if not engines:
        raise NotInstalledError("this release serves no model", where=generation)
    return {"schema": "edgekit.comparison/1", "generation": generation, "engines": engines}
