"""Making a generation the one that serves, or none: units, the `current` link, the daemons."""

from __future__ import annotations

from edgekit.core.host_layout import HostLayout
from edgekit.core.site_units import site_drop_ins
from edgekit.operations.host_records import load_appliance, local_key
from edgekit.operations.tls import ensure_tls, seal_tls_key
from edgekit.system import generations, health
from edgekit.system.services import ForegroundServices, Services, SystemdServices
from edgekit.system.site_config import load_site_config


def services_for(layout: HostLayout) -> Services:
    """The host's own systemd, or child processes for a private root."""
    return ForegroundServices(layout) if layout.is_private else SystemdServices(layout)


def activate(layout: HostLayout, generation: str, services: Services) -> None:
    """Stop what runs, let `current` name the generation (I5), and start it.

    Raises EngineError, HostError; the caller decides what to go back to.
    """
    services.stop()
    if isinstance(services, SystemdServices):
        folder = layout.generation(generation) / "units"
        services.link_units(tuple(sorted(path.name for path in folder.iterdir())))
    generations.switch_current(layout, generation)
    appliance = load_appliance(layout, generation)
    site = load_site_config(layout.site_config)
    ensure_tls(layout, site, appliance)
    if isinstance(services, SystemdServices):
        services.write_drop_ins(site_drop_ins(site, layout.tls, seal_tls_key(layout)))
    services.start(appliance)


def deactivate(layout: HostLayout, services: Services) -> None:
    """Stop what runs; nothing serves afterwards and no unit of ours is linked."""
    services.stop()
    generations.clear_current(layout)
    if isinstance(services, SystemdServices):
        services.unlink_units()


def check_health(layout: HostLayout, generation: str) -> dict[str, float]:
    """Ask the serving generation its known questions through the API (I9); each model's rate.

    Rates are tokens per second. Raises EngineError for a wrong answer, none, or one that is slower
    than the site or else the set allows.
    """
    appliance = load_appliance(layout, generation)
    rates = health.ask_known_questions(appliance, local_key(layout))
    site = load_site_config(layout.site_config).health.min_tokens_per_second
    health.check_rates(rates, appliance, site)
    return rates
