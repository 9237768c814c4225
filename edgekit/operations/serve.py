"""`edgekit serve`: run an installation in a private root in the foreground, until told to stop."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.core.host_layout import HostLayout
from edgekit.errors import NotInstalledError
from edgekit.operations.install import load_appliance
from edgekit.system.files import exclusive_lock
from edgekit.system.generations import current_generation
from edgekit.system.services import ForegroundServices


def serve(layout: HostLayout, ready: Callable[[str], None]) -> None:
    """Start the installed generation below `layout.root`, call `ready` with its address, wait.

    Returns never by itself: raises EngineError when a daemon ends, KeyboardInterrupt when the user
    stops it; no process is left behind either way. Raises NotInstalledError.
    """
    generation = current_generation(layout)
    if generation is None:
        raise NotInstalledError(
            "no release is installed here",
            where=str(layout.root),
            hint="edgekit install SET --root DIR",
        )
    appliance = load_appliance(layout, generation)
    with exclusive_lock(layout.run / "serve.lock", "this root's service"):
        services = ForegroundServices(layout)
        try:
            services.start(appliance)
            ready(appliance.listen)
            services.wait()
        finally:
            services.stop()
