"""The short form of the fuzzer, as part of every test run; the long form is in its own help."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import make_input
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
INPUTS = dict.fromkeys(TARGETS, 20_000) | {"envelope": 2000}
"""An envelope costs several milliseconds of signatures and of 25 kB of keys."""


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_brings_an_unexpected_error(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz",
            target,
            "--inputs",
            str(INPUTS[target]),
            "--save",
            str(tmp_path),
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    with capsys.disabled():
        print(f"\nfuzz {done.stdout}", end="")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {name: int(number) for name, number in re.findall(r"(\w+) (\d+),", done.stdout)}
    assert figures["planned"] == figures["fired"] == INPUTS[target]
    assert figures["refused"] + figures["accepted"] == INPUTS[target]
    assert figures["accepted"] > 0, "no input came through: the seeds are not right"


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_follow_from_their_number(target: str) -> None:
    assert [make_input(target, 7, n) for n in range(20)] == [
        make_input(target, 7, n) for n in range(20)
    ]
