"""A sample of `python -m tests.fuzz.gateway`: every kind of malformed request, a hundred times."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.gateway import run

CASES = 2300
SEED = 20261125


def test_malformed_requests_reach_no_engine_and_leave_nothing(tmp_path: Path) -> None:
    tally = run(tmp_path, CASES, SEED)
    print(f"planned {tally.planned}, fired {sum(tally.fired.values())}: {dict(tally.answers)}")
    assert tally.problems() == []
    assert min(tally.fired.values()) >= CASES // len(tally.fired)
    assert tally.answers["closed"] < CASES / 3  # most are told what was wrong
