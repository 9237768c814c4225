"""Everything that is known to go wrong on hosts, asked before a byte is copied. Pure.

`check_host` gives one `Check` per question, passed or not, so that `plan` can print all of them;
`refuse` turns the ones that failed into one error. A check that fails stops an installation: there
is no option that skips it. A check that only warns says what will be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.core.engine_pack import EnginePack
from edgekit.core.facts import DiskFacts, HostReport
from edgekit.core.host_layout import HostLayout
from edgekit.core.planning.devices import usable_devices
from edgekit.core.release import Manifest
from edgekit.errors import (
    EdgekitError,
    HostError,
    IncompatibleHostError,
    InsufficientError,
    PortInUseError,
)

MIB = 1 << 20
MIN_SYSTEMD = 249
DISK_HEADROOM_BYTES = 64 * MIB
"""Kept free on every file system that is written to: documents, audit records, the journal."""

PASSED, WARNED, REFUSED, UNKNOWN = "passed", "warned", "refused", "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer. `error` is what a refusal becomes; None for the others."""

    name: str
    verdict: str
    message: str = ""
    where: str | None = None
    needed: str | None = None
    found: str | None = None
    hint: str | None = None
    error: type[EdgekitError] = HostError

    def table(self) -> dict[str, str]:
        """The check as plain JSON values; parts it has not are empty."""
        names = ("name", "verdict", "message", "where", "needed", "found", "hint")
        return {name: getattr(self, name) or "" for name in names}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a probe report does not hold, because it is true of this moment or this command.

    `file_systems` maps folders to the number of the file system that holds them, `clock` is what
    `trust_time` says of the clock (`believed`, `behind`, `ahead`), `limits_memory` whether units'
    memory can be limited, `disks` are facts about other folders that an installation writes to.
    None or nothing: not known, as for a host that is not
    here.
    """

    file_systems: Mapping[str, int] = field(default_factory=dict)
    port_is_free: bool | None = None
    clock: str | None = None
    clock_text: str = ""
    limits_memory: bool | None = None
    disks: tuple[DiskFacts, ...] = ()

    def share(self, first: str, second: str) -> bool | None:
        """Whether two folders lie on one file system; None when that is not known."""
        if first not in self.file_systems or second not in self.file_systems:
            return None
        return self.file_systems[first] == self.file_systems[second]


def catching(name: str, question: Callable[[], object], needed: str) -> Check:
    """A check from something that raises what is wrong, and `needed` for when it does not."""
    try:
        question()
    except HostError as error:
        return Check(
            name, REFUSED, error.message, error.where, error.needed, error.found, error.hint,
            type(error),
        )
    return Check(name, PASSED, needed=needed)


def check_host(
    manifest: Manifest,
    report: HostReport,
    layout: HostLayout,
    around: Surroundings,
    *,
    listen: str,
) -> tuple[Check, ...]:
    """The checks that need no plan. The listen address is asked only when nothing serves yet."""
    checks = [*_disk_flags(report, layout, around), _clock(around), _port(around, listen)]
    if not layout.is_private:
        checks += [_systemd(manifest, report), _systemd_runs(report), _memory_limits(around)]
    checks += [_accelerator(pack, report) for pack in manifest.engines if pack.accelerator != "cpu"]
    if manifest.images:
        checks.append(_containers(manifest, report))
    return tuple(checks)


def check_disks(
    report: HostReport, needs: Iterable[tuple[str, int]], around: Surroundings
) -> tuple[Check, ...]:
    """Whether the peak of what is written fits, summed by file system where that is known."""
    disks = {disk.path: disk for disk in (*report.disks, *around.disks)}
    groups: dict[object, list[tuple[str, int]]] = {}
    for place, needed in needs:
        groups.setdefault(around.file_systems.get(place, place), []).append((place, needed))
    return tuple(
        _free_space(
            disks.get(group[0][0]),
            ", ".join(place for place, _ in group),
            sum(needed for _, needed in group) + DISK_HEADROOM_BYTES,
        )
        for group in groups.values()
    )


def _free_space(disk: DiskFacts | None, places: str, needed: int) -> Check:
    name, spare = "disk", DISK_HEADROOM_BYTES // MIB
    text = f"{-(-needed // MIB)} MiB, {spare} MiB of it to spare"
    free = None if disk is None else disk.free.value
    if free is None:
        return Check(name, UNKNOWN, "the free disk space is not known", places, text)
    found = f"{free // MIB} MiB"
    if free >= needed:
        return Check(name, PASSED, where=places, needed=text, found=found)
    return Check(
        name, REFUSED, "not enough free disk", places, text, found,
        f"free {-(-(needed - free) // MIB)} MiB there, then run the same command again",
        InsufficientError,
    )


def _disk_flags(report: HostReport, layout: HostLayout, around: Surroundings) -> list[Check]:
    """Writable where something is written; programs must be allowed to run where they lie."""
    checks = []
    for disk in (*report.disks, *around.disks):
        needed = "writable"
        if disk.read_only.value:
            checks.append(
                Check(
                    "writable", REFUSED, "the file system is read-only", disk.path, needed,
                    f"{disk.file_system.value}, mounted ro",
                    "mount it writable, or give another --root", IncompatibleHostError,
                )
            )
        else:
            checks.append(_known("writable", disk.read_only.value, disk.path, needed))
        if disk.path == str(layout.opt):
            checks.append(_executable(disk))
    return checks


def _executable(disk: DiskFacts) -> Check:
    needed = "a file system that may run programs"
    if disk.no_exec.value:
        return Check(
            "runs programs", REFUSED, "programs may not run where releases are installed",
            disk.path, needed, f"{disk.file_system.value}, mounted noexec",
            f"mount -o remount,exec the file system of {disk.path}", IncompatibleHostError,
        )
    return _known("runs programs", disk.no_exec.value, disk.path, needed)


def _known(name: str, value: object, where: str, needed: str) -> Check:
    return Check(name, UNKNOWN if value is None else PASSED, where=where, needed=needed)


def _clock(around: Surroundings) -> Check:
    needed = "a clock that signed dates bear out"
    if around.clock is None:
        return Check("clock", UNKNOWN, "the clock is not known", needed=needed)
    if around.clock == "believed":
        return Check("clock", PASSED, needed=needed, found=around.clock_text)
    return Check(
        "clock", WARNED, f"the clock is {around.clock}: dates in logs will be wrong, and expiry is "
        "decided by signed dates alone", None, needed, around.clock_text,
        "timedatectl set-time 'YYYY-MM-DD HH:MM'",
    )  # fmt: skip


def _port(around: Surroundings, listen: str) -> Check:
    needed = f"{listen} free"
    if around.port_is_free is None:
        return Check("port", UNKNOWN, "not asked: the appliance itself may listen there",
                     needed=needed)
    if around.port_is_free:
        return Check("port", PASSED, needed=needed)
    return Check(
        "port", REFUSED, "another program already listens on the API's address", None, needed,
        listen, "ss -ltnp, or install with --listen ADDRESS:PORT", PortInUseError,
    )  # fmt: skip


def _systemd(manifest: Manifest, report: HostReport) -> Check:
    needed = f"systemd {max(MIN_SYSTEMD, manifest.requirements.systemd)}"
    version = report.system.systemd.value
    if version is not None and version >= max(MIN_SYSTEMD, manifest.requirements.systemd):
        return Check("systemd", PASSED, needed=needed, found=str(version))
    return Check(
        "systemd", REFUSED, "this host's systemd is too old or missing", None, needed,
        str(version or "none"), "edgekit install SET --root DIR", IncompatibleHostError,
    )  # fmt: skip


def _systemd_runs(report: HostReport) -> Check:
    needed = "systemd as the first process"
    if report.system.systemd_running.value is not False:
        return _known("systemd runs", report.system.systemd_running.value, "", needed)
    return Check(
        "systemd runs", REFUSED, "this host was not started by systemd", None, needed,
        "another init", "edgekit install SET --root DIR, then edgekit serve --root DIR",
        IncompatibleHostError,
    )  # fmt: skip


def _memory_limits(around: Surroundings) -> Check:
    needed = "the kernel's memory controller"
    if around.limits_memory is not False:
        return _known("memory limits", around.limits_memory, "", needed)
    return Check(
        "memory limits", WARNED, "an engine that needs more than planned will not be stopped", None,
        needed, "control groups without it", "boot with cgroup_enable=memory",
    )  # fmt: skip


def _accelerator(pack: EnginePack, report: HostReport) -> Check:
    """Whether an engine for an accelerator finds one here, with a driver that is new enough."""
    toolkit = f" {pack.cuda[0]}.{pack.cuda[1]}" if pack.accelerator == "cuda" else ""
    needed = f"{pack.accelerator}{toolkit} for {pack.kind}"
    usable = usable_devices(pack, report)
    if usable.devices:
        found = ", ".join(device.model for device in usable.devices)
        return Check("accelerator", PASSED, needed=needed, found=found)
    return Check(
        "accelerator", WARNED, f"{pack.kind} will not use an accelerator on this host", None,
        needed, usable.reason, "edgekit probe, to see the accelerators and drivers of this host",
    )  # fmt: skip


def _containers(manifest: Manifest, report: HostReport) -> Check:
    needed = f"podman, for {len(manifest.images)} container images"
    if report.system.podman.value is not None:
        return Check("containers", PASSED, needed=needed, found=report.system.podman.value)
    return Check(
        "containers", WARNED, "container images are carried but will not be loaded", None, needed,
        "no podman", "install podman, then run the same command again",
    )  # fmt: skip


def refuse(checks: Iterable[Check]) -> EdgekitError | None:
    """The error of the checks that failed: the first one's kind, with the others beside it."""
    failed = [check for check in checks if check.verdict == REFUSED]
    if not failed:
        return None
    first, *others = failed
    lines = [first.found or "unknown"]
    lines += [f"and {check.name}: {check.message}, needed {check.needed}" for check in others]
    return first.error(
        first.message,
        where=first.where,
        needed=first.needed,
        found="\n".join(lines) if first.found or others else None,
        hint=first.hint,
    )


def checks_table(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """The checks as plain JSON values."""
    return [check.table() for check in checks]
