"""Ollama's `keep_alive`: how long a model stays in memory after a request."""

from __future__ import annotations

import math
import re

from edgekit.gateway.body import Body
from edgekit.gateway.problems import ApiError, bad_field

KEEP_ALIVE = {"anyOf": [{"type": "number"}, {"type": "string", "maxLength": 40}]}
MAX_CHARS = 40
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def take_keep_alive(body: Body) -> float | None:
    """Seconds; infinite for a negative one, None when nothing is said. Raises ApiError.

    It says when a model may leave, not that it must stay: one that another needs the room of goes
    earlier, when nobody uses it.
    """
    value = body.raw("keep_alive", KEEP_ALIVE)
    if value is None:
        return None
    if isinstance(value, str):
        if len(value) > MAX_CHARS:
            raise bad_field("keep_alive", f"must have at most {MAX_CHARS} characters")
        return _kept(_duration_s(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _malformed()
    return _kept(float(value))


def _kept(seconds: float) -> float:
    return seconds if seconds >= 0 else math.inf


def _duration_s(text: str) -> float:
    """A duration as Go writes it (`1h30m`), or a bare number of seconds."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if re.fullmatch(r"[0-9]{1,9}", digits):
        return sign * float(digits)
    total, end = 0.0, 0
    for part in _PART.finditer(digits):
        if part.start() != end:
            break
        total, end = total + float(part[1]) * _UNITS_S[part[2]], part.end()
    if not digits or end != len(digits):
        raise _malformed()
    return sign * total


def _malformed() -> ApiError:
    return bad_field("keep_alive", "must be seconds or a text like 5m")
