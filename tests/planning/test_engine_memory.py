"""The plan's memory beside the real engine's own report; all shapes: `python -m tests.planning`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.core.planning.engine_report import compare, need_terms
from tests.planning.__main__ import PLAIN_SAMPLE, SAMPLE, check
from tests.planning.engine import Case, measure
from tests.support.model_shapes import SHAPES


@pytest.mark.parametrize(
    "case", [*SAMPLE, *PLAIN_SAMPLE],
    ids=lambda case: case.shape.name + ("" if case.flash else "-plain"))
def test_cache_and_compute_buffer_are_what_the_engine_allocates(case: Case) -> None:
    assert check(measure(case)) == []


def test_a_plan_for_another_context_is_found_out() -> None:
    measured = measure(Case(SHAPES[0], 2048, 1, "f16"))
    need = replace(measured, need=measure(Case(SHAPES[0], 4096, 1, "f16")).need).need
    wrong = compare(need_terms(need), measured.buffers)
    assert {difference.name for difference in wrong if difference.is_large} == {
        "kv cache", "compute"}


def test_the_engine_logs_no_prompt() -> None:
    """Its verbosity is raised for the sizes of buffers; what people ask stays out of it."""
    measured = measure(Case(SHAPES[0], 1024, 1, "f16"), ask=True)
    assert "prompt processing" in measured.log or "launch_slot" in measured.log
    assert "<0x" not in measured.log.split("listening on")[-1]
