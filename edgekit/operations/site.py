"""`edgekit config apply`: the site's new configuration in force, or the one before it back."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgekit.core.events import Finished, Listener, Started, Warned
from edgekit.core.host_layout import HostLayout
from edgekit.core.site_config import MAX_CONFIG_BYTES, SiteConfig
from edgekit.core.site_units import site_drop_ins
from edgekit.errors import EdgekitError
from edgekit.operations.activation import check_health, services_for
from edgekit.operations.host_records import (
    audit_event,
    keep_config,
    load_appliance,
    require_generation,
)
from edgekit.operations.tls import ensure_tls, seal_tls_key
from edgekit.system.files import (
    durable_write,
    exclusive_lock,
    read_bounded,
    translate_os_error,
    usual_umask,
)
from edgekit.system.services import SystemdServices
from edgekit.system.site_config import check_site_file, load_site_config


def apply_config(layout: HostLayout, listener: Listener) -> None:
    """Check the configuration, restart what reads it, and ask the known questions.

    When they are not answered, the file that was refused is set aside as `edgekit.toml.refused`,
    the last one that worked takes its place, and the first error is raised. Engines read their
    part at their next start. In a private root the configuration is only checked: `serve` reads it.
    Raises ConfigError, NotInstalledError, BusyError, EngineError, HostError.
    """
    with usual_umask(), exclusive_lock(layout.lock, "this host"):
        generation = require_generation(layout)
        check_site_file(layout.site_config)
        site = load_site_config(layout.site_config)
        services = services_for(layout)
        if not isinstance(services, SystemdServices):
            return
        audit_event(layout, {"type": "config_begin", "actor": f"uid {os.getuid()}"})
        listener(Started("apply"))
        try:
            _restart(layout, services, site)
            check_health(layout, generation)
        except BaseException:
            listener(Warned("going back to the configuration before"))
            with contextlib.suppress(EdgekitError):
                _restore(layout)
                _restart(layout, services, load_site_config(layout.site_config))
            audit_event(layout, {"type": "config_abort", "actor": f"uid {os.getuid()}"})
            raise
        keep_config(layout)
        audit_event(layout, {"type": "config_commit", "actor": f"uid {os.getuid()}"})
        listener(Finished("apply"))


def _restart(layout: HostLayout, services: SystemdServices, site: SiteConfig) -> None:
    ensure_tls(layout, site, load_appliance(layout, require_generation(layout)))
    services.write_drop_ins(site_drop_ins(site, layout.tls, seal_tls_key(layout)))
    services.restart_front()


def _restore(layout: HostLayout) -> None:
    """Put the last configuration that worked (or none) in place of the one that does not."""
    path = layout.site_config
    try:
        if path.exists():
            path.replace(_refused(path))
    except OSError as error:
        raise translate_os_error(error, "setting the configuration aside") from error
    if layout.applied_config.exists():
        data = read_bounded(layout.applied_config, MAX_CONFIG_BYTES, "the configuration")
        durable_write(path, data)


def _refused(path: Path) -> Path:
    return path.with_name(f"{path.name}.refused")
