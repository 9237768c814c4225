"""What the preflight asks of this moment: the port, the clock, which folders share a disk."""

from __future__ import annotations

from edgekit.core import trust
from edgekit.core.host_layout import HostLayout
from edgekit.core.preflight import Surroundings
from edgekit.errors import PortInUseError
from edgekit.operations.host_trust import load_host_trust, trusted_time
from edgekit.system.files import file_system_of
from edgekit.system.probe.cgroup import limits_memory
from edgekit.system.probe.storage import probe_disk
from edgekit.system.probe.view import HostView
from edgekit.system.services import check_port_free


def look_around(layout: HostLayout, now: int, *, listen: str | None) -> Surroundings:
    """Look at this host; `now` is what its clock says, in Unix seconds. Changes nothing.

    `listen` is the address that must be free; None while a release of ours may hold it itself.
    """
    time = trusted_time(load_host_trust(layout), now)
    places = () if layout.is_private else (layout.units, layout.configuration, layout.containers)
    return Surroundings(
        file_systems={
            str(place): file_system_of(place) for place in (layout.state, layout.opt, *places)
        },
        port_is_free=None if listen is None else _is_free(listen),
        clock=time.clock,
        clock_text=trust.format_date(now),
        limits_memory=limits_memory(HostView()),
        disks=tuple(probe_disk(HostView(), place) for place in places),
    )


def _is_free(listen: str) -> bool:
    try:
        check_port_free(listen)
    except PortInUseError:
        return False
    return True
