"""`edgekit probe`: facts about this host, each with its source."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.facts import HostReport
from edgekit.system.probe.cpu import probe_cpu
from edgekit.system.probe.memory import probe_memory
from edgekit.system.probe.os_release import probe_system
from edgekit.system.probe.storage import probe_disk


def probe_host(*, places: tuple[Path, ...], root: Path = Path("/")) -> HostReport:
    """Look at the host; `places` are the folders edgekit would write to. Changes nothing."""
    return HostReport(
        cpu=probe_cpu(root),
        memory=probe_memory(root),
        disks=tuple(probe_disk(place) for place in places),
        system=probe_system(root),
    )
