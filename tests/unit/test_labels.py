"""SELinux labels of a release; what a policy makes of them: `python -m tests.machine`."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgekit.__main__ import main
from edgekit.core.events import Warned
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import InstallPlan
from edgekit.errors import EdgekitError
from edgekit.operations import installation
from edgekit.operations.boot_check import load_boot_report
from edgekit.operations.doctor import diagnose
from edgekit.system import generations, services
from edgekit.system.process import Completed
from edgekit.system.selinux import has_policy
from tests.unit.test_planner import HostBuilder, plan

PROGRAM, UNIT, DATA = (
    f"system_u:object_r:{kind}:s0\0".encode() for kind in ("bin_t", "systemd_unit_t", "usr_t")
)


class Host(HostLayout):
    """The host's own layout, below a folder."""

    is_private = False


def label(path: Path) -> bytes:
    return os.getxattr(path, "security.selinux")


def make(path: Path, text: str = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostLayout:
    """A host with a policy, and release `g` as a relabelled host has it: all of it is data."""
    for name, value in (("PROGRAMS", PROGRAM), ("UNITS", UNIT)):
        example = tmp_path / "host" / name
        example.mkdir(parents=True)
        try:
            os.setxattr(example, "security.selinux", value)
        except OSError as error:  # labels need root, and a file system that keeps them
            pytest.skip(f"cannot run here: {error}")
        monkeypatch.setattr(generations, name, example)
    monkeypatch.setattr(generations, "has_policy", lambda: True)
    layout = Host(tmp_path)
    folder = layout.generation("g")
    make(folder / "runtime/edgekit", mode=0o555)
    make(folder / "plan.json")
    make(folder / "units/edgekit.target")
    for path in folder.rglob("*"):
        os.setxattr(path, "security.selinux", DATA)
    return layout


def test_programs_and_units_are_labelled_like_those_of_the_host(layout: HostLayout) -> None:
    folder = layout.generation("g")
    assert generations.mislabelled(layout, "g") == (
        folder / "runtime/edgekit", folder / "units/edgekit.target",
    )
    generations.label_generation(layout, "g")
    assert generations.mislabelled(layout, "g") == ()
    assert label(folder / "runtime/edgekit") == PROGRAM
    assert label(folder / "units/edgekit.target") == UNIT
    assert label(folder / "plan.json") == label(folder / "units") == DATA


def test_without_a_policy_no_label_is_looked_at(
    layout: HostLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "has_policy", lambda: False)
    assert generations.mislabelled(layout, "g") == ()
    generations.label_generation(layout, "g")
    assert label(layout.generation("g") / "runtime/edgekit") == DATA


def test_a_private_root_needs_no_labels(layout: HostLayout) -> None:
    private = HostLayout(layout.root)
    private.current.symlink_to("generations/g")
    generations.label_generation(private, "g")
    assert label(private.generation("g") / "runtime/edgekit") == DATA
    assert not [one for one in diagnose(private) if "SELinux" in one.problem]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """No file of this name can be labelled."""
    give = os.setxattr

    def setxattr(path: Path, *arguments: Any) -> None:
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))
        give(path, *arguments)

    monkeypatch.setattr(os, "setxattr", setxattr)


def test_what_can_be_labelled_is_whatever_becomes_of_the_rest(
    layout: HostLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "edgekit", errno.EIO)
    given, refused = generations.label_generation(layout, "g")
    assert (given, [error.errno for error in refused]) == (1, [errno.EIO])
    assert label(layout.generation("g") / "units/edgekit.target") == UNIT


@pytest.fixture
def release(layout: HostLayout, tmp_path: Path) -> InstallPlan:
    """A release with a unit, which is about to be built."""
    units = (("edgekit.target", "[Unit]\n"),)
    return replace(
        plan(tmp_path, HostBuilder()), layout=layout, generation="n", tree=(), units=units
    )


def test_a_release_has_its_labels_when_it_is_built(release: InstallPlan) -> None:
    generations.build_generation(release, {})
    assert label(release.layout.generation("n") / "units/edgekit.target") == UNIT


def test_a_place_without_labels_is_a_warning(
    release: InstallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "edgekit.target", errno.ENOTSUP)
    documents = dict.fromkeys(("release.json", "manifest.json"), b"{}")
    verified = SimpleNamespace(metadata=documents, root=SimpleNamespace(data=b"{}"))
    said: list[object] = []
    monkeypatch.setattr(installation, "ensure_api_keys", lambda _layout, **_: "")
    installation.Installation(cast("Any", verified), release, None, said.append)._build()
    assert [one.text for one in said if isinstance(one, Warned)] == [
        "1 programs and units cannot get their SELinux labels here"
    ]
    unit = release.layout.generation("n") / "units/edgekit.target"
    assert generations.mislabelled(release.layout, "n") == (unit,)


def test_a_label_refused_for_another_reason_fails_the_build(
    release: InstallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "edgekit.target", errno.EACCES)
    with pytest.raises(EdgekitError, match="building the generation"):
        generations.build_generation(release, {})
    assert generations.installed(release.layout) == ("g",)


def test_lost_labels_are_named_and_what_doctor_says_to_type_gives_them_back(
    layout: HostLayout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.current.symlink_to("generations/g")
    found = [one for one in diagnose(layout) if "SELinux" in one.problem]
    assert [one.command for one in found] == ["edgekit daemon boot-check --labels-only"]
    assert found[0].problem.startswith("2 programs and units ")

    calls: list[list[str]] = []

    def record(argv: list[str], **_: object) -> Completed:
        calls.append(argv)
        return Completed(tuple(argv), 0, b"", b"")

    monkeypatch.setattr(services, "run", record)
    monkeypatch.setattr(HostLayout, "HOST", layout.root)
    monkeypatch.setattr(HostLayout, "is_private", False)
    monkeypatch.setattr(sys, "argv", found[0].command.split())
    assert main() == 0
    assert capsys.readouterr().out == "edgekit-boot-check: 2 programs and units were labelled\n"
    assert calls == [["systemctl", "daemon-reload"]], "no unit is touched"
    assert load_boot_report(layout) is None, "nothing is judged"
    assert not [one for one in diagnose(layout) if "SELinux" in one.problem]


def test_a_check_with_an_option_that_it_does_not_know_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edgekit", "daemon", "boot-check", "--label"])
    assert main() == 2
    assert "--labels-only" in capsys.readouterr().err


def test_a_policy_is_seen_where_the_kernel_shows_it(tmp_path: Path) -> None:
    assert not has_policy(loaded=tmp_path / "enforce")
    assert has_policy(loaded=make(tmp_path / "enforce", "1"))
