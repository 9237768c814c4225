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
from edgekit.operations.host_trust import check_may_serve
from edgekit.operations.unfinished import (
    ROLLBACK,
    Unfinished,
    begin_marker,
    close_unfinished,
    end_marker,
    new_attempt,
    read_marker,
)
from edgekit.system.files import exclusive_lock, usual_umask
from edgekit.system.services import ForegroundServices


def rollback(
    layout: HostLayout, listener: Listener, to: str | None = None
) -> tuple[str, str]:
    """Serve the previous generation again, or the one named `to`; (from, to).

    A rollback that was cut off is finished, not followed by another. After an installation that was
    cut off, previous is what served before it. The floor stays where it is: going back is a local
    act, and a set older than the floor still cannot be installed. When the previous generation does
    not answer its questions the current one is started again and the error raised. Raises
    NotInstalledError, BusyError, EngineError, and RollbackError for a release that the newest root
    forbids.
    """
    with usual_umask(), exclusive_lock(layout.lock, "this host"):
        step = _step(layout, require_generation(layout), to)
        check_may_serve(layout, step.generation)
        begin_marker(layout, step)
        record = {
            "attempt": step.attempt,
            "generation": step.generation,
            "previous": step.previous,
            "actor": f"uid {os.getuid()}",
        }
        services = services_for(layout)
        listener(Started("roll back"))
        try:
            audit_event(layout, {"type": "rollback_begin", **record})
            if is_committed(layout, step.previous):
                set_previous(layout, step.generation, step.previous)
            activate(layout, step.generation, services)
            check_health(layout, step.generation)
        except BaseException:
            with contextlib.suppress(EdgekitError):
                activate(layout, step.previous, services)
                audit_event(layout, {"type": "rollback_abort", **record})
                end_marker(layout)
            raise
        audit_event(layout, {"type": "rollback_commit", **record})
        end_marker(layout)
        if isinstance(services, ForegroundServices):
            services.stop()
        listener(Finished("roll back"))
    return step.previous, step.generation


def _step(layout: HostLayout, current: str, to: str | None) -> Unfinished:
    """From where to where; raises NotInstalledError when there is nothing to go back to."""
    unfinished = read_marker(layout)
    if unfinished is not None and _goes_on(unfinished, to):
        return unfinished
    target = previous_generation(layout, current) if to is None else to
    if unfinished is not None:
        close_unfinished(layout)
        if to is None and unfinished.generation == current and not is_committed(layout, current):
            target = unfinished.previous or None
    if target is None or target == current:
        raise NotInstalledError(
            "there is no earlier release to go back to", found=current, hint="edgekit status"
        )
    if not is_committed(layout, target):
        raise NotInstalledError(
            "no such release is installed here", found=target, hint="edgekit status"
        )
    return Unfinished(ROLLBACK, new_attempt(), target, current)


def _goes_on(unfinished: Unfinished, to: str | None) -> bool:
    """Whether this is the rollback that was cut off."""
    return (
        unfinished.verb == ROLLBACK
        and bool(unfinished.attempt)
        and to in (None, unfinished.generation)
    )
