"""`edgekit probe`: facts about this host, each with its source; or about one that is not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.core.facts import MAX_REPORT_BYTES, HostReport, parse_report
from edgekit.core.planning.values import Wishes
from edgekit.core.profile import MAX_PROFILE_BYTES, Profile, parse_profile
from edgekit.system.files import read_bounded
from edgekit.system.probe.bandwidth import measure_bandwidth
from edgekit.system.probe.cpu import probe_cpu
from edgekit.system.probe.gpus import probe_gpus
from edgekit.system.probe.memory import probe_memory
from edgekit.system.probe.operating_system import probe_system
from edgekit.system.probe.storage import probe_disk
from edgekit.system.probe.view import HostView


def load_host(
    profile: Path | None, report: Path | None, *, places: tuple[Path, ...]
) -> HostReport | None:
    """The facts of a profile or of a recorded report; None when neither is given.

    Disks of a recorded report stand for `places` in the order they were probed. Raises RecipeError,
    FormatError or HostError.
    """
    if profile is not None:
        return load_profile(profile, places=places).report
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


def load_profile(path: Path, *, places: tuple[Path, ...]) -> Profile:
    """A profile; its disk stands for every one of `places`. Raises RecipeError or HostError."""
    data = read_bounded(path, MAX_PROFILE_BYTES, "profile")
    return parse_profile(data, file=str(path), places=tuple(map(str, places)))


def profile_wishes(wishes: Wishes, profile: Path | None) -> Wishes:
    """Wishes, with the number of users that the profile says where nobody said one."""
    if profile is None or wishes.users is not None:
        return wishes
    return replace(wishes, users=load_profile(profile, places=()).users)


def probe_host(
    *, places: tuple[Path, ...], root: Path = Path("/"), bandwidth: bool = False
) -> HostReport:
    """Look at the host; `places` are the folders edgekit would write to. Changes nothing.

    `root` is the folder of a recorded host. With `bandwidth` memory is copied for half a second.
    """
    view = HostView(root)
    memory = probe_memory(view)
    return HostReport(
        cpu=probe_cpu(view),
        memory=replace(memory, bandwidth=measure_bandwidth()) if bandwidth else memory,
        disks=tuple(probe_disk(view, place) for place in places),
        gpus=probe_gpus(view),
        system=probe_system(view),
    )
