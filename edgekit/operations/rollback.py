"""`edgekit rollback`: back to the generation that served before the current one.

Afterwards the two have changed places: what was left is what the next rollback goes back to, and gc
keeps both.
"""

from __future__ import annotations

import contextlib
import os

from edgekit.core.events import Finished, Listener, Started
from edgekit.core.host_layout import HostLayout
from edgekit.errors import EdgekitError, NotInstalledError
from edgekit.operations.activation import activate, check_health, services_for
from edgekit.operations.host_records import (
    audit_event,
    is_committed,
    previous_generation,
    require_generation,
    set_previous,
)
from edgekit.system.files import exclusive_lock, usual_umask
from edgekit.system.services import ForegroundServices


def rollback(
    layout: HostLayout, listener: Listener, to: str | None = None
) -> tuple[str, str]:
    """Serve the previous generation again, or the one named `to`; (from, to).

    The floor stays where it is: going back is a local act, and a set older than the floor still
    cannot be installed. When the previous generation does not answer its questions the current one
    is started again and the error raised. Raises NotInstalledError, BusyError, EngineError.
    """
    with usual_umask(), exclusive_lock(layout.lock, "this host"):
        current = require_generation(layout)
        previous = previous_generation(layout, current) if to is None else _named(layout, to)
        if previous is None or previous == current:
            raise NotInstalledError(
                "there is no earlier release to go back to", found=current, hint="edgekit status"
            )
        record = {"generation": previous, "previous": current, "actor": f"uid {os.getuid()}"}
        audit_event(layout, {"type": "rollback_begin", **record})
        services = services_for(layout)
        listener(Started("roll back"))
        try:
            set_previous(layout, previous, current)
            activate(layout, previous, services)
            check_health(layout, previous)
        except BaseException:
            with contextlib.suppress(EdgekitError):
                activate(layout, current, services)
            audit_event(layout, {"type": "rollback_abort", **record})
            raise
        audit_event(layout, {"type": "rollback_commit", **record})
        if isinstance(services, ForegroundServices):
            services.stop()
        listener(Finished("roll back"))
    return current, previous


def _named(layout: HostLayout, generation: str) -> str:
    if not is_committed(layout, generation):
        raise NotInstalledError(
            "no such release is installed here", found=generation, hint="edgekit status"
        )
    return generation
