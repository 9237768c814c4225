"""`edgekit plan` and `edgekit install`: from a verified set to a serving host, or no change."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.core import trust
from edgekit.core.config_rules import is_address
from edgekit.core.digest import Digest
from edgekit.core.events import Listener, Warned
from edgekit.core.facts import HostReport, without_containers
from edgekit.core.host_layout import DEFAULT_LISTEN, HostLayout
from edgekit.core.install_plan import InstallPlan, plan_install
from edgekit.core.planning.select import NO_WISHES, check_compatible, select_all
from edgekit.core.planning.values import Selection, Wishes
from edgekit.core.preflight import (
    Check,
    Surroundings,
    catching,
    check_disks,
    check_host,
    refuse,
)
from edgekit.errors import (
    ConfigError,
    EdgekitError,
    EngineError,
    PrivilegeError,
    TrustError,
    WrongAnswerError,
)
from edgekit.operations.host_records import (
    ensure_api_keys,
    is_committed,
    load_appliance,
)
from edgekit.operations.host_trust import trust_for_install
from edgekit.operations.installation import Installation, Receipt, advance_trust
from edgekit.operations.probe import probe_host
from edgekit.operations.surroundings import look_around
from edgekit.operations.unfinished import (
    INSTALL,
    Unfinished,
    close_unfinished,
    end_marker,
)
from edgekit.operations.verify import Trusting
from edgekit.system import generations
from edgekit.system.blob_store import discard_staging, intact_blobs, present_blobs
from edgekit.system.bundle_set import VerifiedSet, open_set, verify_set
from edgekit.system.clock import wall_clock
from edgekit.system.files import exclusive_lock, usual_umask
from edgekit.system.resources import read_unit_templates
from edgekit.system.site_config import load_site_config


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """What the operator may say. `report` replaces the probe (a report taken elsewhere)."""

    folders: tuple[Path, ...]
    layout: HostLayout
    listen: str | None = None
    """Address and port asked for on the command line; `listen_address` decides."""
    fingerprint: str | None = None
    insecure_developer: bool = False
    report: HostReport | None = None
    insecure_downgrade: str | None = None
    """Why an older release is let in; None refuses one."""
    wishes: Wishes = NO_WISHES
    """What is asked for instead of what the rules would choose."""
    now: int = field(default_factory=wall_clock)
    """What the clock says, in Unix seconds."""

    def listen_address(self) -> str:
        """The configuration's address, else the one asked for, else what serves now, else 11434.

        Raises ConfigError when the one asked for is none, or not the configuration's.
        """
        asked, site = self.listen, load_site_config(self.layout.site_config).server.listen
        if asked is not None and not is_address(asked):
            raise ConfigError("malformed listen address", found=asked, needed="ADDRESS:PORT")
        if asked and site and asked != site:
            raise ConfigError(
                "the site's configuration says another address",
                where=str(self.layout.site_config),
                found=f"listen = {site}",
                needed=asked,
                hint=f"edit {self.layout.site_config}, or leave --listen out",
            )
        return site or asked or self._served_address() or DEFAULT_LISTEN

    def _served_address(self) -> str | None:
        generation = generations.current_generation(self.layout)
        return None if generation is None else load_appliance(self.layout, generation).listen

    def trusting(self) -> Trusting:
        """Whom this command trusts."""
        return Trusting(
            self.layout, self.fingerprint, self.insecure_developer, must_match_host=True
        )


FailedStart = tuple[str, str, str]
"""Model, key of the way that was tried, what the engine said."""
MAX_STARTS = 3
"""Ways that are tried for one release before it is given up."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an installation would meet: every check, then the plan or the error it ends with."""

    verified: VerifiedSet
    checks: tuple[Check, ...]
    plan: InstallPlan | None
    problem: EdgekitError | None

    def require(self) -> InstallPlan:
        """The plan. Raises the problem when there is none."""
        if self.problem is not None:
            raise self.problem
        assert self.plan is not None
        return self.plan


def plan(options: InstallOptions) -> Outlook:
    """Verify the metadata, probe, check, decide. Changes nothing.

    Blobs already on the host are believed by their size here; `install` hashes them. Raises what
    verification raises; what is wrong with the host is in the result.
    """
    verified = _verify(options)  # I1
    return _look(options, verified, present_blobs(options.layout, _sizes(verified)))


def install(options: InstallOptions, listener: Listener) -> Receipt:
    """Install a set: old or new at every moment, and old again after any failure.

    Run again, it finishes an installation that was cut off, replaces blobs that rotted, or says
    that everything is in place. Raises BusyError, PrivilegeError, what `plan` raises, DigestError,
    DiskFullError, EngineError, PortInUseError.
    """
    layout = options.layout
    if not layout.is_private and os.geteuid() != 0:
        raise PrivilegeError("installing needs root", hint="sudo edgekit install SET")
    with usual_umask(), exclusive_lock(layout.lock, "this host"):
        verified = _verify(options)  # I1
        failed: tuple[FailedStart, ...] = ()
        while True:
            intact = intact_blobs(layout, _sizes(verified), listener)
            decided = _look(options, verified, intact, failed).require()
            unfinished = close_unfinished(layout)
            previous = _committed_previous(unfinished, decided)
            if decided.previous == decided.generation and _is_whole(decided):
                return _finish(verified, decided, unfinished)
            reason = options.insecure_downgrade if verified.below_floor else None
            run = Installation(verified, decided, previous, listener, break_glass=reason)
            try:
                return run.run()
            except EngineError as error:
                failed = _step_down(options, verified, decided, failed, error)
                for model, way, words in failed[-len(decided.selections) :]:
                    listener(Warned(f"{model}: {way} did not start ({words}); taking the next way"))


def _step_down(
    options: InstallOptions,
    verified: VerifiedSet,
    decided: InstallPlan,
    failed: tuple[FailedStart, ...],
    error: EngineError,
) -> tuple[FailedStart, ...]:
    """What has failed so far, when there is a next way to try; re-raises the error when not.

    A wrong answer is no matter of memory: no other way would be righter. What was asked for is not
    replaced by something else, and a release that had served is repaired, not changed.
    """
    is_over = len(failed) >= (MAX_STARTS - 1) * len(decided.selections)
    if (
        isinstance(error, WrongAnswerError)
        or is_over
        or options.wishes.given()
        or is_committed(options.layout, decided.generation)
    ):
        raise error
    words = error.message[:100]
    now = failed + tuple((s.model.name, s.chosen.key(), words) for s in decided.selections)
    outlook = _look(options, verified, present_blobs(options.layout, _sizes(verified)), now)
    if outlook.problem is not None:
        raise error
    return now


def _verify(options: InstallOptions) -> VerifiedSet:
    """The set as this host may install it: trusted, and not expired unless it already serves."""
    reason = options.insecure_downgrade
    if reason is not None and not (0 < len(reason) <= 200 and reason.isprintable()):
        raise TrustError("a downgrade says why", needed="a line of at most 200 characters")
    host = trust_for_install(options.trusting(), options.folders)
    verified = verify_set(open_set(options.folders), host, insecure_downgrade=reason is not None)
    statement = verified.statement
    if statement.generation != generations.current_generation(options.layout):
        floor = max(host.floor.time_floor, statement.created)
        trust.check_not_expired(verified.root, statement, trust.trust_time(floor, options.now))
    return verified


def _sizes(verified: VerifiedSet) -> dict[Digest, int]:
    return {entry.digest: entry.size for entry in verified.manifest.entries}


def _look(
    options: InstallOptions,
    verified: VerifiedSet,
    present: frozenset[Digest],
    failed: tuple[FailedStart, ...] = (),
) -> Outlook:
    """Ask every question of the preflight, then decide (nothing has been written yet)."""
    layout, manifest = options.layout, verified.manifest
    previous, listen = generations.current_generation(layout), options.listen_address()
    report = options.report or probe_host(places=(layout.state, layout.opt))
    if layout.is_private:
        report = without_containers(report, "a private root runs no containers")
    around = Surroundings()
    if options.report is None:
        around = look_around(layout, options.now, listen=None if previous else listen)
    selections: list[tuple[Selection, ...]] = []
    checks = [
        catching(
            "host",
            lambda: check_compatible(manifest, report),
            f"{manifest.requirements.arch}, glibc {_dotted(manifest.requirements.glibc)}, "
            f"{len(manifest.requirements.cpu_flags)} CPU flags",
        ),
        *check_host(manifest, report, layout, around, listen=listen),
        catching(
            "memory",
            lambda: selections.append(select_all(manifest, report, options.wishes, failed)),
            "memory for every model and its context",
        ),
    ]
    if not selections:
        return Outlook(verified, tuple(checks), None, refuse(checks))
    decided = plan_install(
        manifest=manifest,
        statement=verified.statement,
        selections=selections[0],
        layout=layout,
        templates=read_unit_templates(),
        present=present,
        listen=listen,
        previous=previous,
        links=around.share(str(layout.state), str(layout.opt)) is not False,
        cpu_flags=report.cpu.flags.value or (),
    )
    checks += check_disks(report, decided.disk_needs, around)
    found = replace(decided, checks=tuple(checks))
    return Outlook(verified, found.checks, found, refuse(checks))


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _is_whole(decided: InstallPlan) -> bool:
    """Whether the release is installed, and everything that was made for it is as it was."""
    layout, generation = decided.layout, decided.generation
    return (
        not decided.missing
        and is_committed(layout, generation)
        and not generations.damaged_environments(layout, generation, decided.tree)
    )


def _committed_previous(unfinished: Unfinished | None, decided: InstallPlan) -> str | None:
    """What a failure goes back to: what served, and was committed, before this release."""
    previous = decided.previous
    if unfinished is not None and (unfinished.verb, unfinished.generation) == (INSTALL, previous):
        previous = unfinished.previous or None
    return None if previous == decided.generation else previous


def _finish(
    verified: VerifiedSet, decided: InstallPlan, unfinished: Unfinished | None
) -> Receipt:
    """Everything is in place; do what an earlier run did not come to after its receipt.

    That run printed no API key when it was the host's first.
    """
    layout, key = decided.layout, ""
    advance_trust(layout, verified)
    if unfinished is not None:
        discard_staging(layout, decided.generation)
        if unfinished.verb == INSTALL and not unfinished.previous:
            key = ensure_api_keys(layout, renew=True)
        end_marker(layout)
    return Receipt(
        decided.generation, decided.generation, True, 0, {}, (), key, decided.appliance.listen, {}
    )
