"""A sample of the crash states; every byte: `python -m tests.audit --only crash`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit import crash


def test_no_crash_loses_what_was_acknowledged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for figure in crash.run(tmp_path, step=97):
        with capsys.disabled():
            print("\n" + figure.line())
        assert figure.problems == []
        assert figure.good
