"""A sample of the kills; all of them: `python -m tests.audit kills --full`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit import kills


def test_clients_hold_no_answer_that_the_log_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = kills.run_kills(tmp_path / "none", *kills.SAMPLE, seed=1)
    with capsys.disabled():
        print("\n" + figure.line())
    assert figure.problems == []
    assert figure.good


def test_gateway_that_answers_before_it_records_is_found(tmp_path: Path) -> None:
    found = kills.run_kills(tmp_path / "control", *kills.SAMPLE, seed=1, bug="answers_first")
    assert any("K1" in problem for problem in found.problems)
