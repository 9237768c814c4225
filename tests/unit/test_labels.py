"""SELinux labels of a release; what a policy makes of them: `python -m tests.machine`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.core.host_layout import HostLayout
from edgekit.operations.doctor import diagnose
from edgekit.system import generations
from edgekit.system.selinux import has_policy

PROGRAM, UNIT, DATA = (
    f"system_u:object_r:{kind}:s0\0".encode() for kind in ("bin_t", "systemd_unit_t", "usr_t")
)


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
    layout = HostLayout(tmp_path)
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


def test_lost_labels_are_named_with_what_gives_them_back(layout: HostLayout) -> None:
    layout.current.symlink_to("generations/g")
    found = [one for one in diagnose(layout) if "SELinux" in one.problem]
    assert [one.command for one in found] == ["edgekit daemon boot-check"]
    assert found[0].problem.startswith("2 programs and units ")
    generations.label_generation(layout, "g")
    assert not [one for one in diagnose(layout) if "SELinux" in one.problem]


def test_a_policy_is_seen_where_the_kernel_shows_it(tmp_path: Path) -> None:
    assert not has_policy(loaded=tmp_path / "enforce")
    assert has_policy(loaded=make(tmp_path / "enforce", "1"))
