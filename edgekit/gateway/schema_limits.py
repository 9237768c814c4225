"""What a JSON schema may cost the engine that turns it into a grammar.

Engines walk all the ways in which a grammar can go on, between two tokens, for everyone at once: a
pattern of 15 characters stops one for good. What costs is counted: alternatives, properties, and
the repetitions that a pattern has once repeated groups are written out. The limits were found with
llama.cpp's server: the worst that they let through holds it up for less than a second.

Patterns are put in the engine's words (`core.schema_pattern`): of others it takes no notice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from edgekit.core.schema_pattern import engine_pattern
from edgekit.errors import FormatError
from edgekit.gateway.problems import bad_field

MAX_PATTERN_CHARS = 512
MAX_REPETITIONS = 24
"""In one pattern, with the groups that a bounded repetition repeats written out."""
MAX_ALL_REPETITIONS = 256
"""In all patterns of a schema."""
MAX_ALTERNATIVES = 1000
"""Values of `enum`, and entries of `anyOf`, `oneOf` and `allOf`, in all of a schema."""
MAX_PROPERTIES = 400

_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d{1,9})(?:,(\d{0,9}))?\}|.", re.DOTALL)


def check_schema(schema: Any, param: str) -> None:
    """Refuse a schema that would hold up the engine, or that it would not keep to; its patterns
    become the engine's. Raises ApiError."""
    repetitions = alternatives = properties = 0
    for table, key, value in _entries(schema):
        if key == "pattern" and isinstance(value, str):
            repetitions += _check_pattern(value, param)
            table[key] = _engine_pattern(value, param)
        elif key in ("enum", "anyOf", "oneOf", "allOf") and isinstance(value, list):
            alternatives += len(value)
        elif key in ("properties", "patternProperties") and isinstance(value, dict):
            properties += len(value)
    if repetitions > MAX_ALL_REPETITIONS:
        raise bad_field(param, f"its patterns have more than {MAX_ALL_REPETITIONS} repetitions")
    if alternatives > MAX_ALTERNATIVES:
        raise bad_field(param, f"the schema has more than {MAX_ALTERNATIVES} alternatives")
    if properties > MAX_PROPERTIES:
        raise bad_field(param, f"the schema has more than {MAX_PROPERTIES} properties")


def repetitions_of(pattern: str) -> int:
    """How many repetitions a pattern has, those in a group as often as the group is repeated."""
    outer: list[int] = []  # counts of the groups around
    total = last = 0  # of this group so far, and of its last item
    for token in _TOKENS.finditer(pattern):
        text = token[0]
        if text == "(":
            outer.append(total)
            total = last = 0
        elif text == ")" and outer:
            last, total = total, outer.pop() + total
        elif text in ("*", "+", "?"):
            total, last = total + 1, last + 1
        elif token[1] is not None:
            times = int(token[2] or token[1]) if last else 1
            total, last = total + last * (max(times, 1) - 1) + 1, last * max(times, 1) + 1
        else:
            last = 0
    return total + sum(outer)


def _check_pattern(pattern: str, param: str) -> int:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise bad_field(param, f"a pattern has more than {MAX_PATTERN_CHARS} characters")
    found = repetitions_of(pattern)
    if found > MAX_REPETITIONS:
        raise bad_field(
            param,
            f"a pattern has {found} repetitions, written out; at most {MAX_REPETITIONS} are taken",
        )
    return found


def _engine_pattern(pattern: str, param: str) -> str:
    try:
        return engine_pattern(pattern)
    except FormatError as error:
        raise bad_field(param, error.message) from error


def _entries(value: Any) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Every table in a value of bounded depth, each of its keys, and what that holds."""
    if isinstance(value, dict):
        for key, below in tuple(value.items()):
            yield value, key, below
            yield from _entries(below)
    elif isinstance(value, list):
        for item in value:
            yield from _entries(item)
