"""`edgekit doctor`: what is wrong with this host, the likeliest cause first, with what to type.

Each rule looks at one thing and gives nothing when it is well. Rules stand in the order of how
likely they explain a host that does not answer; a later finding is often a consequence of an
earlier one. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from edgekit.core.appliance import Appliance
from edgekit.core.host_layout import HostLayout
from edgekit.errors import ConfigError, EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.operations.boot_check import FAILED, load_boot_report, load_fallbacks
from edgekit.operations.host_records import load_appliance, local_key
from edgekit.operations.host_trust import load_host_trust, trust_warnings
from edgekit.operations.scrub import load_scrub_report
from edgekit.operations.unfinished import read_marker
from edgekit.system import generations, health
from edgekit.system.clock import wall_clock
from edgekit.system.files import free_bytes
from edgekit.system.services import (
    AUDIT_WRITER,
    GATEWAY,
    SystemdServices,
    UnitState,
    appliance_units,
)
from edgekit.system.site_config import check_site_file, load_site_config

MIB = 1 << 20
LOW_DISK_BYTES = 64 * MIB
SCRUB_OVERDUE_S = 30 * 86_400

_EXITS = {
    ExitCode.DIGEST: ("weights on this host's disk have rotted", "edgekit install SET"),
    ExitCode.WRONG_ANSWER: ("the model does not answer as its set promises", "edgekit rollback"),
    ExitCode.ENGINE_NOT_READY: ("the engine is too slow to start", "edgekit config show"),
    ExitCode.CONFIG: ("the site's configuration is wrong", "edgekit config check"),
    ExitCode.MISSING_TOOL: ("the engine's program is not there", "edgekit install SET"),
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that is wrong: in words, what shows it, and the command to run next."""

    problem: str
    evidence: str
    command: str


Rule = Callable[[HostLayout], Iterator[Diagnosis]]


def diagnose(layout: HostLayout) -> tuple[Diagnosis, ...]:
    """Every finding, the likeliest cause first; none when all is well."""
    found: list[Diagnosis] = []
    for rule in RULES:
        try:
            found += rule(layout)
        except ConfigError:
            continue  # one rule is about the configuration; the others only need it
        except EdgekitError as error:
            details = "; ".join(f"{name} {text}" for name, text in error.details().items())
            found.append(Diagnosis(error.message, details or "-", error.hint or "edgekit status"))
    return tuple(found)


def _nothing_serves(layout: HostLayout) -> Iterator[Diagnosis]:
    unfinished = read_marker(layout)
    if unfinished is not None:
        yield Diagnosis(
            "an installation was cut off", unfinished.generation, "edgekit install SET, once more"
        )
    if generations.current_generation(layout) is None:
        yield Diagnosis("no release is installed", str(layout.current), "edgekit install SET")


def _configuration(layout: HostLayout) -> Iterator[Diagnosis]:
    try:
        check_site_file(layout.site_config)
        load_site_config(layout.site_config)
    except ConfigError as error:
        yield Diagnosis(
            f"the site's configuration is wrong: {error.message}",
            error.where or str(layout.site_config),
            error.hint or f"edgekit config check {layout.site_config}",
        )


def _disks(layout: HostLayout) -> Iterator[Diagnosis]:
    for place in dict.fromkeys((layout.state, layout.opt, layout.root / "var/log")):
        free = free_bytes(place)
        if free < LOW_DISK_BYTES:
            yield Diagnosis(
                "a disk is full: nothing can be recorded, so nothing is answered",
                f"{free // MIB} MiB free at {place}",
                "edgekit gc, then journalctl --vacuum-size=100M",
            )


def _labels(layout: HostLayout) -> Iterator[Diagnosis]:
    generation = generations.current_generation(layout)
    if generation is None:
        return
    lost = generations.mislabelled(layout, generation)
    if lost:
        yield Diagnosis(
            f"{len(lost)} programs and units have lost their SELinux labels",
            f"the policy takes them for data, as {lost[0]}",
            "edgekit daemon boot-check --labels-only",
        )


def _units(layout: HostLayout) -> Iterator[Diagnosis]:
    appliance = _serving(layout)
    if appliance is None or layout.is_private:
        return
    services = SystemdServices(layout)
    states = {
        unit: _with_its_failure(services, unit, state)
        for unit, state in services.inspect(appliance_units(appliance)).items()
    }
    # the audit writer first: without it the gateway answers nothing, whatever else is well
    for unit in sorted(states, key=lambda name: (name != AUDIT_WRITER, name == GATEWAY)):
        if states[unit].active != "active":
            yield diagnose_unit(unit, states[unit], services.complaint(unit))
    for unit, state in states.items():
        if state.active == "active" and state.restarts:
            yield Diagnosis(
                f"{unit} runs, but was restarted {state.restarts} times",
                state.result or "-",
                f"journalctl -u {unit}",
            )


def _with_its_failure(services: SystemdServices, unit: str, state: UnitState) -> UnitState:
    """A unit that was restarted, or that a signal ended, with what systemd noted it died of."""
    if state.result != "signal" and not (state.restarts and state.result == "success"):
        return state
    return replace(state, result=services.last_failure(unit) or state.result)


def diagnose_unit(unit: str, state: UnitState, last: str) -> Diagnosis:
    """What a unit that is down died of; `last` is the last thing it said."""
    if state.result == "oom-kill":
        return Diagnosis(
            f"{unit} needed more memory than planned", last, "edgekit probe, then edgekit plan SET"
        )
    if state.result == "watchdog":
        return Diagnosis(f"{unit} hung and was killed", last, f"systemctl restart {unit}")
    problem, command = _EXITS.get(
        ExitCode(state.exit_status) if state.exit_status in set(ExitCode) else ExitCode.INTERNAL,
        (f"{unit} is {state.active} ({state.result})", f"journalctl -u {unit}"),
    )
    if state.given_up:
        command += f"; then systemctl reset-failed {unit}, systemctl start edgekit.target"
    return Diagnosis(problem, f"{unit}: {last}", command)


def _answers(layout: HostLayout) -> Iterator[Diagnosis]:
    appliance = _serving(layout)
    if appliance is None:
        return
    try:
        health.ask_known_questions(appliance, local_key(layout))
    except EdgekitError as error:
        hint = "edgekit serve --root DIR" if layout.is_private else "systemctl start edgekit.target"
        yield Diagnosis(error.message, error.found or appliance.listen, error.hint or hint)


def _past(layout: HostLayout) -> Iterator[Diagnosis]:
    for name, one in load_fallbacks(layout).items():
        yield Diagnosis(f"{name} was left by itself after a boot", one.reason, "edgekit status")
    report = load_boot_report(layout)
    if report is not None and report.verdict == FAILED:
        yield Diagnosis(
            "the check after the last boot failed", report.reason, "edgekit rollback"
        )
    scrubbed = load_scrub_report(layout)
    if scrubbed is not None and scrubbed.bad:
        yield Diagnosis(
            "installed files are not what was signed", scrubbed.bad[0], "edgekit install SET"
        )
    if scrubbed is not None and wall_clock() - scrubbed.at > SCRUB_OVERDUE_S:
        yield Diagnosis(
            "nothing was scrubbed for a month", f"last at {scrubbed.at}", "edgekit scrub"
        )


def _trust(layout: HostLayout) -> Iterator[Diagnosis]:
    for warning in trust_warnings(layout, load_host_trust(layout), wall_clock()):
        yield Diagnosis(warning, "edgekit trust show", "timedatectl, or edgekit trust import ROOT")


def _serving(layout: HostLayout) -> Appliance | None:
    generation = generations.current_generation(layout)
    return None if generation is None else load_appliance(layout, generation)


RULES: tuple[Rule, ...] = (
    _nothing_serves,
    _configuration,
    _disks,
    _labels,
    _units,
    _answers,
    _past,
    _trust,
)
