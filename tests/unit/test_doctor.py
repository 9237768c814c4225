"""The doctor's translations: what systemd says of a unit, into a cause and a command."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from edgekit.core.host_layout import HostLayout
from edgekit.operations.doctor import diagnose, diagnose_unit
from edgekit.operations.support_bundle import write_support_bundle
from edgekit.system import services
from edgekit.system.process import Completed
from edgekit.system.services import SystemdServices, UnitState

ENGINE = "edgekit-engine@demo.service"


def state(result: str = "exit-code", restarts: int = 0, exit_status: int = 1) -> UnitState:
    return UnitState("failed", "failed", result, restarts, exit_status)


@pytest.mark.parametrize(
    ("unit", "problem", "command"),
    [
        (state(exit_status=22), "weights on this host's disk have rotted", "edgekit install SET"),
        (state(exit_status=52), "the model does not answer as its set promises",
         "edgekit rollback"),
        (state(exit_status=15), "the site's configuration is wrong", "edgekit config check"),
        (state(exit_status=51), "the engine is too slow to start", "edgekit config show"),
        (state("oom-kill"), f"{ENGINE} needed more memory than planned",
         "edgekit probe, then edgekit plan SET"),
        (state("watchdog"), f"{ENGINE} hung and was killed", f"systemctl restart {ENGINE}"),
        (state(exit_status=200), f"{ENGINE} is failed (exit-code)", f"journalctl -u {ENGINE}"),
    ],
)
def test_each_end_of_a_unit_has_a_cause_and_a_command(
    unit: UnitState, problem: str, command: str
) -> None:
    found = diagnose_unit(ENGINE, unit, "its last words")
    assert (found.problem, found.command) == (problem, command)
    assert "its last words" in found.evidence


def test_a_unit_that_was_given_up_is_started_again_afterwards() -> None:
    found = diagnose_unit(ENGINE, state(exit_status=22, restarts=3), "-")
    assert found.command == (
        f"edgekit install SET; then systemctl reset-failed {ENGINE}, "
        "systemctl start edgekit.target"
    )


_START = f"Starting {ENGINE} - a model...\n"
_OOM = f"{ENGINE}: A process of this unit has been killed by the OOM killer.\n"
_KERNEL = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    f"oom_memcg=/system.slice/system-edgekit.slice/{ENGINE},task=edgekit,pid=7,uid=61000\n"
)


def _failed(result: str) -> str:
    return f"{ENGINE}: Failed with result '{result}'.\nFailed to start {ENGINE}.\n"


@pytest.mark.parametrize(
    ("journal", "result"),
    [
        ("", ""),
        (_START, ""),
        (_START + _OOM, ""),
        (_START + _failed("signal"), "signal"),
        (_START + _OOM + _failed("oom-kill"), "oom-kill"),
        (_START + _OOM + _failed("signal"), "oom-kill"),
        (_START + _failed("signal") + _OOM, "oom-kill"),
        (_START + _KERNEL + _failed("signal"), "oom-kill"),
        (_START + _KERNEL.replace("engine@", "engine@other-") + _failed("signal"), "signal"),
        (_START + _KERNEL + _failed("signal") + _START + _failed("signal"), "signal"),
        (_OOM + _failed("oom-kill") + _START + _failed("watchdog"), "watchdog"),
        (_failed("exit-code") + _START + _OOM + _failed("signal"), "oom-kill"),
        (_failed("signal") + _OOM + _START, "oom-kill"),
        (_failed("signal") + _OOM + _START + _failed("watchdog"), "watchdog"),
        (_failed("signal") + _OOM + _START + _failed("signal"), "signal"),
        (_failed("signal") + _START + _OOM, "signal"),
        (_START + _OOM + _failed("watchdog"), "watchdog"),
    ],
)
def test_what_killed_a_unit_is_known_in_whatever_order_systemd_heard_of_it(
    monkeypatch: pytest.MonkeyPatch, journal: str, result: str
) -> None:
    def answer(argv: list[str], **_: object) -> Completed:
        return Completed(tuple(argv), 0, journal.encode(), b"")

    monkeypatch.setattr(services, "run", answer)
    assert SystemdServices(HostLayout(Path("/"))).last_failure(ENGINE) == result


def test_an_empty_host_is_told_what_to_do_first(tmp_path: Path) -> None:
    first = diagnose(HostLayout(tmp_path))[0]
    assert (first.problem, first.command) == ("no release is installed", "edgekit install SET")


def test_a_wrong_configuration_is_named_with_its_line(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path)
    layout.configuration.mkdir(parents=True)
    layout.site_config.write_text("schema = 1\n[server]\nlisten = 5\n", "utf-8")
    layout.site_config.chmod(0o644)
    found = [one for one in diagnose(layout) if "expected a string" in one.problem]
    assert len(found) == 1
    assert found[0].problem.startswith("the site's configuration is wrong: ")
    assert "line 3" in found[0].evidence
    assert found[0].command == f"edgekit config check {layout.site_config}"


def test_the_archive_is_private_and_replaces_what_names_this_host(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path / "h")
    (layout.root / "etc").mkdir(parents=True)
    (layout.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n", "utf-8")
    drop_in = layout.units / "edgekit-gateway.service.d/mine.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(
        "# 0123456789abcdef0123456789abcdef\n"
        "Environment=TOKEN=ek_08211aca_EEiSagresHk1dxZiDzUIGWfSQ64rXox3Ry_H0tLKYYo\n", "utf-8")
    target = tmp_path / "support.tar.gz"
    names = write_support_bundle(layout, target)
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        assert tuple(archive.getnames()) == tuple(f"edgekit-support/{name}" for name in names)
        member = archive.extractfile("edgekit-support/drop-ins.txt")
        assert member is not None
        text = member.read().decode()
        doctor = archive.extractfile("edgekit-support/doctor.json")
        assert doctor is not None
        assert json.load(doctor)[0]["problem"] == "no release is installed"
    assert "[machine-id]" in text
    assert "ek_0821" not in text
    assert "0123456789abcdef" not in text
