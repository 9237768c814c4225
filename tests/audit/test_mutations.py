"""A sample of the mutations; all of them: `python -m tests.audit`."""

from __future__ import annotations

import pytest

from tests.audit import mutations

SAMPLE = 88
SMALL = 3_000


def test_every_mutation_is_found_and_located(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = mutations.make_subject(tmp_path_factory.mktemp("log") / "audit", SMALL)
    figure = mutations.run(subject, SAMPLE, seed=1)
    with capsys.disabled():
        print("\n" + figure.line())
    assert figure.problems == []
    assert figure.good
