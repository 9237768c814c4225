"""Documents made to exhaust a reader are refused in little memory and little time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault.hostile_headers import NAMES, hostile
from tests.support.sets import SetBuilder, verify

HEADROOM_MIB = 48
SLOW_S = 5.0
ROOT = Path(__file__).resolve().parents[2]


def outcomes(folder: Path, headroom: int) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fault.hostile_headers", str(folder), str(headroom)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_no_header_exhausts_memory_or_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = SetBuilder()
    folder = built.write(tmp_path / "demo")
    rows = outcomes(folder, HEADROOM_MIB)
    planned = len(NAMES) * len(list(hostile()))
    refused = [row for row in rows if row[2] in ("FormatError", "SetShapeError", "SignatureError")]
    with capsys.disabled():
        print(f"\nhostile headers in {HEADROOM_MIB} MiB: planned {planned}, refused {len(refused)}")
    assert len(refused) == planned, [row for row in rows if row not in refused]
    assert [row for row in rows if float(row[3]) > SLOW_S] == []
    verify(built.host(), folder)


def test_the_limit_is_in_force(tmp_path: Path) -> None:
    """With next to no room the same documents do run out of it, so that room is what counts."""
    rows = outcomes(SetBuilder().write(tmp_path / "demo"), 4)
    assert "MemoryError" in {row[2] for row in rows}
