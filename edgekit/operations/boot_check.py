"""After a boot: is the release still well, and if not, back to the one before, at most once (I10).

B0 labels that a relabelled host has lost are given again; a label decides nothing about the release
B1 wait until every unit of the appliance has started or has given up
B2 without a running audit writer nothing is decided: that is the host's trouble, not the release's
B3 an engine or a gateway that gave up, or a wrong answer, speaks against the release
B4 a connection that fails does not: an unplugged network never goes back to an older release
B5 the way back is taken once per generation, counted on disk before it is taken
B6 what cannot be recorded is not done; a report that cannot be written changes nothing

A check that is interrupted (power cut, kill) runs again after the next boot; a way back that had
begun is then walked to its end.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from edgekit.core.fields import Fields
from edgekit.core.host_layout import HostLayout
from edgekit.core.strict_json import parse_strict
from edgekit.errors import BusyError, EdgekitError, EngineError, EngineNotReadyError, TrustError
from edgekit.operations.activation import activate, check_health
from edgekit.operations.host_records import (
    audit_event,
    load_appliance,
    pretty_json,
    previous_generation,
    require_generation,
)
from edgekit.operations.host_trust import check_may_serve
from edgekit.operations.unfinished import read_marker
from edgekit.system.clock import boot_id, wall_clock
from edgekit.system.files import (
    durable_write,
    exclusive_lock,
    read_bounded,
    translate_os_error,
)
from edgekit.system.generations import installed, label_generation
from edgekit.system.services import AUDIT_WRITER, Services, UnitState, appliance_units

SCHEMA = "edgekit.boot/1"
MAX_RECORD_BYTES = 1 << 20
PASSED, FAILED, WENT_BACK, UNDECIDED = "passed", "failed", "went back", "undecided"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long units may take to settle (seconds), how often to look, how often to ask."""

    settle_s: float = 1500.0
    poll_s: float = 1.0
    tries: int = 3


class Manager(Services, Protocol):
    """What this check needs of a service manager; `SystemdServices` is the one there is."""

    def reload(self) -> None:
        """Read all units again: the manager goes by the labels they had when it read them."""

    def inspect(self, units: list[str]) -> dict[str, UnitState]:
        """Each unit's state."""

    def complaint(self, unit: str) -> str:
        """The last thing that a unit said."""


@dataclass(frozen=True, slots=True)
class BootReport:
    """What the last check after a boot found: verdict, reason, and the generation it leaves."""

    boot: str
    generation: str
    verdict: str
    reason: str
    serves: str
    at: int


def check_after_boot(
    layout: HostLayout, services: Manager, patience: Patience = Patience()
) -> BootReport | None:
    """Do B1 to B6; None when another command is changing this host, which then checks itself.

    Raises NotInstalledError, HostError; AuditUnavailableError when going back cannot be recorded.
    """
    try:
        with exclusive_lock(layout.lock, "this host"):
            report = _check(layout, services, patience)
    except BusyError:
        return None
    with contextlib.suppress(EdgekitError):  # B6
        durable_write(_report_path(layout), _encode_report(report))
    return report


def give_labels(layout: HostLayout, services: Manager) -> int:
    """Do B0 alone, for an operator: no unit is started or stopped, and nothing is judged.

    Returns how many programs and units had to be labelled. Raises BusyError; HostError when some
    could not be, after all others were.
    """
    with exclusive_lock(layout.lock, "this host"):
        return _give_labels(layout, services)


def load_boot_report(layout: HostLayout) -> BootReport | None:
    """The last report, None when there is none. Raises FormatError when it is damaged."""
    path = _report_path(layout)
    if not path.is_file():
        return None
    fields = Fields(_read(layout, path.name))
    fields.text("schema", choices=(SCHEMA,))
    report = BootReport(
        boot=fields.text("boot"),
        generation=fields.text("generation"),
        verdict=fields.text("verdict", choices=(PASSED, FAILED, WENT_BACK, UNDECIDED)),
        reason=fields.text("reason", max_length=2000),
        serves=fields.text("serves"),
        at=fields.integer("at", low=0, high=1 << 40),
    )
    fields.finish()
    return report


def _check(layout: HostLayout, services: Manager, patience: Patience) -> BootReport:
    generation = require_generation(layout)
    with contextlib.suppress(EdgekitError):  # B0; `doctor` names what is left without
        _give_labels(layout, services)
    verdict, reason = _judge(layout, generation, services, patience)
    serves = generation
    if verdict == FAILED:
        target = _way_back(layout, generation)
        if target is None:
            reason += "; there is no earlier release to go back to by itself"
        else:
            verdict, serves, reason = _go_back(layout, generation, target, reason, services)
    return BootReport(boot_id(), generation, verdict, reason, serves, wall_clock())


def _give_labels(layout: HostLayout, services: Manager) -> int:
    labelled = [label_generation(layout, name) for name in installed(layout)]
    given = sum(number for number, _ in labelled)
    if given:
        services.reload()
    for error in (error for _, refused in labelled for error in refused):
        raise translate_os_error(error, "labelling programs and units") from error
    return given


def _judge(
    layout: HostLayout, generation: str, services: Manager, patience: Patience
) -> tuple[str, str]:
    """(verdict, reason) about the generation that booted."""
    appliance = load_appliance(layout, generation)
    states = _settled(services, appliance_units(appliance), patience)  # B1
    if states[AUDIT_WRITER] != "active":  # B2
        return UNDECIDED, f"{AUDIT_WRITER} is {states[AUDIT_WRITER]}"
    given_up = [unit for unit, state in states.items() if state != "active"]
    if given_up:  # B3
        return FAILED, f"{given_up[0]} is {states[given_up[0]]}: {services.complaint(given_up[0])}"
    verdict, reason = UNDECIDED, ""
    for attempt in range(patience.tries):
        try:
            check_health(layout, generation)
        except EngineNotReadyError as error:  # B4
            verdict, reason = UNDECIDED, _in_words(error)
        except EngineError as error:
            verdict, reason = FAILED, _in_words(error)
        else:
            return PASSED, ""
        time.sleep(patience.poll_s * attempt)
    return verdict, reason


def _settled(services: Manager, units: list[str], patience: Patience) -> dict[str, str]:
    """The units' states once none of them is on its way, or when the time is over."""
    deadline = time.monotonic() + patience.settle_s
    while True:
        states = {unit: state.active for unit, state in services.inspect(units).items()}
        moving = [unit for unit in units if states[unit] not in ("active", "failed", "inactive")]
        if not moving or time.monotonic() >= deadline:
            return states
        time.sleep(patience.poll_s)


def _go_back(
    layout: HostLayout, generation: str, target: str, reason: str, services: Manager
) -> tuple[str, str, str]:
    """(verdict, generation that serves, reason) after walking the way back to its end."""
    record = {"generation": target, "previous": generation, "reason": reason[:500], "actor": "boot"}
    audit_event(layout, {"type": "fallback_begin", **record})  # B6
    _count(layout, generation, target, reason)  # B5
    try:
        activate(layout, target, services)
        check_health(layout, target)
    except EdgekitError as error:
        with contextlib.suppress(EdgekitError):
            activate(layout, generation, services)
        _count(layout, generation, "", reason)
        audit_event(layout, {"type": "fallback_abort", **record})
        why = f"{error.message} ({error.found})" if error.found else error.message
        return FAILED, generation, f"{reason}; and {target} is not well either: {why}"
    _count(layout, generation, "", reason)
    audit_event(layout, {"type": "fallback_commit", **record})
    return WENT_BACK, target, reason


def _way_back(layout: HostLayout, generation: str) -> str | None:
    """Where to go: one that was begun is finished, a new one is taken once per generation."""
    counted = load_fallbacks(layout)
    if generation in counted:
        return counted[generation].under_way_to or None
    target = previous_generation(layout, generation)
    unfinished = read_marker(layout)
    if target is None and unfinished is not None and unfinished.generation == generation:
        target = unfinished.previous or None
    if target is None or target in counted or not layout.generation(target).is_dir():
        return None
    return target if _is_allowed(layout, target) else None


def _is_allowed(layout: HostLayout, generation: str) -> bool:
    """Whether the newest root still lets a release this old run."""
    try:
        check_may_serve(layout, generation)
    except TrustError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Fallback:
    """A generation that was left by itself: why, and where to while that is not finished."""

    reason: str
    under_way_to: str


def load_fallbacks(layout: HostLayout) -> dict[str, Fallback]:
    """Generations that this host has left by itself, ever. Raises FormatError when damaged."""
    path = _fallbacks_path(layout)
    if not path.is_file():
        return {}
    fields = Fields(_read(layout, path.name))
    found = {}
    for item in fields.items("fallbacks", max_items=1000):
        name = item.text("generation")
        found[name] = Fallback(item.text("reason", max_length=2000), item.text("under_way_to"))
        item.finish()
    fields.finish()
    return found


def _count(layout: HostLayout, generation: str, under_way_to: str, reason: str) -> None:
    known = {**load_fallbacks(layout), generation: Fallback(_plain(reason), under_way_to)}
    table = {
        "fallbacks": [
            {"generation": name, "reason": one.reason, "under_way_to": one.under_way_to}
            for name, one in known.items()
        ]
    }
    durable_write(_fallbacks_path(layout), pretty_json(table))


def _encode_report(report: BootReport) -> bytes:
    return pretty_json({"schema": SCHEMA, **asdict(report), "reason": _plain(report.reason)})


def _read(layout: HostLayout, name: str) -> Any:
    data = read_bounded(layout.state / name, MAX_RECORD_BYTES, name)
    return parse_strict(data, max_bytes=MAX_RECORD_BYTES, what=name)


def _in_words(error: EdgekitError) -> str:
    details = "; ".join(f"{name} {text}" for name, text in error.details().items())
    return f"{error.message}; {details}" if details else error.message


def _plain(text: str) -> str:
    """One line of printable text, as the readers of these records demand."""
    return "".join(char if char.isprintable() else " " for char in text)[:1500]


def _report_path(layout: HostLayout) -> Path:
    return layout.state / "boot.json"


def _fallbacks_path(layout: HostLayout) -> Path:
    return layout.state / "fallbacks.json"
