"""Ollama's `keep_alive`, as its clients write it."""

from __future__ import annotations

import math

import pytest

from edgekit.gateway.body import Body
from edgekit.gateway.problems import ApiError
from edgekit.gateway.surfaces.keep_alive import take_keep_alive


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (0, 0), ("0", 0), ("0s", 0), (90, 90), (1.5, 1.5), ("300", 300),
        ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), (-1, math.inf),
        ("-1", math.inf), ("-1m", math.inf),
    ],
)
def test_it_is_seconds_or_a_duration(value: object, seconds: float | None) -> None:
    assert take_keep_alive(Body({"keep_alive": value})) == seconds


@pytest.mark.parametrize(
    "value", [True, [5], {}, "", "-", "5 m", "5x", "m5", "5m!", "1h-5m", "\u0665m", "5" * 41, "nan"]
)
def test_what_is_neither_is_refused(value: object) -> None:
    with pytest.raises(ApiError, match="keep_alive"):
        take_keep_alive(Body({"keep_alive": value}))
