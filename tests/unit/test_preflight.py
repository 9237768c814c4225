"""Every question of the preflight: asked, answered with needed and found, and refused in order."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.digest import Digest
from edgekit.core.facts import DiskFacts, Fact, HostReport
from edgekit.core.host_layout import HostLayout
from edgekit.core.names import RelPath
from edgekit.core.preflight import (
    DISK_HEADROOM_BYTES,
    MIB,
    PASSED,
    REFUSED,
    UNKNOWN,
    WARNED,
    Check,
    Surroundings,
    catching,
    check_disks,
    check_host,
    refuse,
)
from edgekit.core.profile import parse_profile
from edgekit.core.release import CarriedImage, Manifest, Requirements
from edgekit.errors import (
    EdgekitError,
    IncompatibleHostError,
    InsufficientError,
    PortInUseError,
)
from edgekit.system.probe.cgroup import limits_memory
from edgekit.system.probe.view import HostView

LAYOUT = HostLayout(Path("/"))
STATE, OPT = str(LAYOUT.state), str(LAYOUT.opt)
PROFILE = b"""\
format = 1
name = "box"
arch = "x86_64"
cores = 4
memory_gib = 8
disk_gib = 1
glibc = "2.36"
systemd = 252
cpu_flags = []
"""
IMAGE = CarriedImage("hello", "r/hello:1", Digest.of(b"m", "sha256"), (RelPath("images/x"),))
HERE = Surroundings(
    file_systems={STATE: 1, OPT: 1}, port_is_free=True, clock="believed",
    clock_text="today", limits_memory=True)


def host(**system: Any) -> HostReport:
    report = parse_profile(PROFILE, file="p", places=(STATE, OPT)).report
    facts = {name: Fact(value, "test") for name, value in system.items()}
    return replace(report, system=replace(report.system, **facts))


def disk_with(report: HostReport, path: str, **changes: Any) -> HostReport:
    facts = {name: Fact(value, "test") for name, value in changes.items()}
    disks = tuple(replace(d, **facts) if d.path == path else d for d in report.disks)
    return replace(report, disks=disks)


def manifest(*, images: bool = False, systemd: int = 0) -> Manifest:
    values: dict[str, Any] = {field.name: () for field in fields(Manifest)}
    values |= {"name": "demo", "version": "1.0.0", "created": 0, "users": 1, "rehearsed_on": "",
               "requirements": Requirements("x86_64", (2, 17), (), systemd),
               "images": (IMAGE,) if images else ()}
    return Manifest(**values)


def ask(report: HostReport, around: Surroundings = HERE, **of_manifest: Any) -> dict[str, Check]:
    checks = check_host(manifest(**of_manifest), report, LAYOUT, around, listen="127.0.0.1:11434")
    return {f"{check.name} {check.where or ''}".strip(): check for check in checks}


def error_of(*checks: Check) -> EdgekitError:
    error = refuse(checks)
    assert error is not None
    return error


def test_a_good_host_passes_everything() -> None:
    checks = ask(host(podman="podman 4"), images=True)
    assert {check.verdict for check in checks.values()} == {PASSED}
    assert len(checks) == 9
    assert refuse(checks.values()) is None


@pytest.mark.parametrize(
    ("report", "around", "name", "kind", "found"),
    [
        (disk_with(host(), STATE, read_only=True, file_system="ext4"), HERE,
         f"writable {STATE}", IncompatibleHostError, "ext4, mounted ro"),
        (disk_with(host(), OPT, no_exec=True, file_system="xfs"), HERE,
         f"runs programs {OPT}", IncompatibleHostError, "xfs, mounted noexec"),
        (host(systemd=248), HERE, "systemd", IncompatibleHostError, "248"),
        (host(systemd=None), HERE, "systemd", IncompatibleHostError, "none"),
        (host(systemd_running=False), HERE, "systemd runs", IncompatibleHostError, "another init"),
        (host(), replace(HERE, port_is_free=False), "port", PortInUseError, "127.0.0.1:11434"),
        (host(), replace(HERE, disks=(
            DiskFacts(**{  # type: ignore[arg-type]
                field.name: Fact(None, "t") for field in fields(DiskFacts)
            } | {"path": "/etc", "read_only": Fact(True, "t")}),)),
         "writable /etc", IncompatibleHostError, "None, mounted ro"),
    ],
)
def test_what_is_refused(
    report: HostReport, around: Surroundings, name: str, kind: type[EdgekitError], found: str
) -> None:
    check = ask(report, around)[name]
    assert (check.verdict, check.found) == (REFUSED, found)
    assert check.needed
    assert check.hint
    error = error_of(check)
    assert (type(error), error.found, error.needed) == (kind, found, check.needed)


def test_a_set_may_need_a_newer_systemd_than_edgekit_does() -> None:
    assert ask(host(), systemd=255)["systemd"].needed == "systemd 255"
    assert ask(host(), systemd=255)["systemd"].verdict == REFUSED


@pytest.mark.parametrize("clock", ["behind", "ahead"])
def test_a_wrong_clock_warns_and_never_refuses(clock: str) -> None:
    check = ask(host(), replace(HERE, clock=clock, clock_text="1970-01-01"))["clock"]
    assert (check.verdict, check.found) == (WARNED, "1970-01-01")
    assert check.hint is not None
    assert refuse([check]) is None


def test_a_kernel_that_cannot_limit_memory_is_told_of() -> None:
    check = ask(host(), replace(HERE, limits_memory=False))["memory limits"]
    assert (check.verdict, check.hint) == (WARNED, "boot with cgroup_enable=memory")


@pytest.mark.parametrize(
    ("files", "limits"),
    [({"cgroup.controllers": "cpu memory pids\n"}, True), ({"cgroup.controllers": "cpu\n"}, False),
     ({"unified/cgroup.controllers": "\n", "memory/memory.limit_in_bytes": "1\n"}, True),
     ({"unified/cgroup.controllers": "\n"}, False), ({}, None)],
)
def test_the_memory_controller_of_both_versions(
    tmp_path: Path, files: dict[str, str], limits: bool | None
) -> None:
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    assert limits_memory(HostView(tmp_path)) is limits


def test_images_without_a_container_runtime_warn() -> None:
    assert ask(host(podman=None), images=True)["containers"].verdict == WARNED
    assert "containers" not in ask(host(podman=None))


def test_what_is_not_known_is_said_and_not_taken_for_good() -> None:
    checks = ask(disk_with(host(), OPT, no_exec=None, read_only=None), Surroundings())
    unknown = {name for name, check in checks.items() if check.verdict == UNKNOWN}
    assert unknown == {f"writable {OPT}", f"runs programs {OPT}", "clock", "port", "memory limits"}


def test_a_private_root_needs_no_systemd(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path)
    report = parse_profile(PROFILE, file="p", places=(str(layout.state), str(layout.opt))).report
    names = {c.name for c in check_host(manifest(), report, layout, HERE, listen="127.0.0.1:1")}
    assert names == {"writable", "runs programs", "clock", "port"}


NEEDS = ((STATE, 600 * MIB), (OPT, 500 * MIB))


def test_peaks_on_one_file_system_are_added() -> None:
    (check,) = check_disks(host(), NEEDS, HERE)
    assert (check.verdict, check.found) == (REFUSED, "1024 MiB")
    assert check.needed == f"{1100 + DISK_HEADROOM_BYTES // MIB} MiB, 64 MiB of it to spare"
    assert check.hint == "free 140 MiB there, then run the same command again"
    assert isinstance(error_of(check), InsufficientError)


def test_peaks_on_two_file_systems_are_not() -> None:
    checks = check_disks(host(), NEEDS, replace(HERE, file_systems={STATE: 1, OPT: 2}))
    assert [check.verdict for check in checks] == [PASSED, PASSED]
    checks = check_disks(disk_with(host(), OPT, free=563 * MIB), NEEDS, Surroundings())
    assert [check.verdict for check in checks] == [PASSED, REFUSED]
    assert checks[1].where == OPT


def test_a_disk_that_nobody_looked_at_is_said_to_be_unknown() -> None:
    (check,) = check_disks(host(), (("/var/lib/containers", 5),), HERE)
    assert (check.verdict, check.where) == (UNKNOWN, "/var/lib/containers")


def test_headroom_is_exact() -> None:
    needed = 100 * MIB
    for free, verdict in ((164 * MIB, PASSED), (164 * MIB - 1, REFUSED), (None, UNKNOWN)):
        report = disk_with(host(), STATE, free=free)
        (check,) = check_disks(report, ((STATE, needed), (OPT, 0)), HERE)
        assert check.verdict == verdict


def test_the_first_refusal_leads_and_the_others_stand_beside_it() -> None:
    def small() -> None:
        raise InsufficientError("not enough memory", needed="9 GiB", found="1 GiB", hint="buy")

    first = catching("memory", small, "memory")
    second = ask(host(systemd=3))["systemd"]
    error = error_of(first, second)
    assert isinstance(error, InsufficientError)
    assert (error.message, error.needed, error.hint) == ("not enough memory", "9 GiB", "buy")
    assert error.found == (
        "1 GiB\nand systemd: this host's systemd is too old or missing, needed systemd 249"
    )


def test_every_check_is_a_plain_table() -> None:
    for check in ask(host(), images=True).values():
        assert set(check.table()) == {
            "name", "verdict", "message", "where", "needed", "found", "hint"}
        assert all(isinstance(value, str) for value in check.table().values())
