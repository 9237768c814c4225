"""A sample of every fault suite, as part of every test run, with the bugs that each must see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault.suites import SUITES
from tests.fault.tracer import can_trace
from tools.reliability import load_rows, problems

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", SUITES)
def test_a_sample_of_the_suite_is_good(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not can_trace():
        pytest.skip("cannot run here: the tracer knows x86-64 Linux only")
    if reason := SUITES[name].why_not():
        pytest.skip(f"cannot run here: {reason}")
    done = subprocess.run([sys.executable, "-m", "tests.fault", name], cwd=ROOT, check=False,
                          capture_output=True, text=True)
    with capsys.disabled():
        print(f"\nfault {done.stdout}", end="")
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith(f"{name}: "))
    figures = {word: int(number) for word, number in re.findall(r"(\w+) (\d+)[,\n]", line + "\n")}
    assert figures["planned"] == figures["fired"] == figures["old"] + figures["new"]
    assert figures["bad"] == 0


def test_rows_of_full_runs_hold_what_a_release_needs() -> None:
    rows = load_rows()
    assert problems(rows) == []
    assert set(rows) <= set(SUITES), "a row of a suite that is no more"


def test_a_row_below_its_bar_is_found() -> None:
    good = {"bar": 5, "planned": 5, "fired": 5, "old": 2, "new": 3, "bad": 0,
            "controls": {"x": {"planned": 3, "bad": 1}}}
    assert problems({"s": good}) == []
    for change in ({"fired": 4}, {"planned": 4, "fired": 4, "new": 2}, {"bad": 1, "new": 2},
                   {"controls": {"x": {"planned": 3, "bad": 0}}}):
        assert problems({"s": good | change}), change
