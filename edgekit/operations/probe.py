"""`edgekit probe`: facts about this host, each with its source; or about one that is not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.core.facts import HostReport
from edgekit.core.profile import (
    MAX_PROFILE_BYTES,
    MAX_REPORT_BYTES,
    parse_profile,
    parse_report,
)
from edgekit.system.files import read_bounded
from edgekit.system.probe.cpu import probe_cpu
from edgekit.system.probe.memory import probe_memory
from edgekit.system.probe.os_release import probe_system
from edgekit.system.probe.storage import probe_disk


def load_host(
    profile: Path | None, report: Path | None, *, places: tuple[Path, ...]
) -> HostReport | None:
    """The facts of a profile or of a recorded report; None when neither is given.

    Disks of a recorded report stand for `places` in the order they were probed. Raises RecipeError,
    FormatError or HostError.
    """
    if profile is not None:
        data = read_bounded(profile, MAX_PROFILE_BYTES, "profile")
        return parse_profile(data, file=str(profile), places=tuple(map(str, places))).report
    if report is None:
        return None
    recorded = parse_report(
        read_bounded(report, MAX_REPORT_BYTES, "probe report"), file=str(report)
    )
    disks = tuple(
        replace(disk, path=str(place))
        for disk, place in zip(recorded.disks, places, strict=False)
    )
    return replace(recorded, disks=disks)


def probe_host(*, places: tuple[Path, ...], root: Path = Path("/")) -> HostReport:
    """Look at the host; `places` are the folders edgekit would write to. Changes nothing."""
    return HostReport(
        cpu=probe_cpu(root),
        memory=probe_memory(root),
        disks=tuple(probe_disk(place) for place in places),
        system=probe_system(root),
    )
