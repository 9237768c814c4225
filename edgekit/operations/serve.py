"""`edgekit serve`: run an installation in a private root in the foreground, until told to stop."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.core.host_layout import HostLayout
from edgekit.operations.host_records import load_appliance, require_generation
from edgekit.system.files import exclusive_lock
from edgekit.system.services import ForegroundServices


def serve(layout: HostLayout, ready: Callable[[str], None]) -> None:
    """Start the installed generation below `layout.root`, call `ready` with its address, wait.

    Returns never by itself: raises EngineError when a daemon ends, KeyboardInterrupt when the user
    stops it; no process is left behind either way. Raises NotInstalledError.
    """
    generation = require_generation(layout)
    appliance = load_appliance(layout, generation)
    with exclusive_lock(layout.run / "serve.lock", "this root's service"):
        services = ForegroundServices(layout)
        try:
            services.start(appliance)
            ready(appliance.listen)
            services.wait()
        finally:
            services.stop()
