"""Schemathesis against the served description: what it says is what the gateway does.

A sample of its phases here; all of them, with more examples: `python -m tests.clients [EXAMPLES]`.
"""

from __future__ import annotations

from tests.clients.described import check_description
from tests.gateway.conftest import Site

SAMPLE = 12


def test_what_is_described_is_what_is_served(answering: Site) -> None:
    count, report = check_description(answering, "examples,fuzzing", SAMPLE)
    assert count > 200, report
