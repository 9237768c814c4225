"""Strict JSON as API bodies use it: fractions allowed, everything else as strict as ever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.strict_json import MAX_DEPTH, parse_strict
from edgekit.errors import FormatError


def parse(data: bytes, **options: Any) -> Any:
    return parse_strict(data, max_bytes=1 << 20, what="body", **options)


def test_fractions_only_on_request() -> None:
    assert parse(b"[0.5,1e3,-0.0]", floats=True) == [0.5, 1000.0, 0.0]
    with pytest.raises(FormatError):
        parse(b"[0.5]")


@pytest.mark.parametrize("data", [b"1e999", b"-1e999", b"NaN", b"Infinity", b'{"a":1,"a":1}'])
def test_what_is_refused_all_the_same(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse(data, floats=True)


@pytest.mark.parametrize("limit", [1, 5, MAX_DEPTH, 100])
def test_depth_is_counted_outside_strings_only(limit: int) -> None:
    text = rb'"{[\"[[\\"'
    assert parse(b"[" * limit + text + b"]" * limit, max_depth=limit)
    assert parse(b"[" + b",".join([b"[" + text + b"]"] * 50) + b"]", max_depth=2)
    with pytest.raises(FormatError, match="nested"):
        parse(b"[" * (limit + 1) + b"]" * (limit + 1), max_depth=limit)


def depth_by_hand(data: bytes) -> int:
    """The definition: brackets outside strings, one byte at a time."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            in_string = escaped or byte != 0x22
            escaped = not escaped and byte == 0x5C
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


@given(st.lists(st.sampled_from(b'[]{}"\\ a,'), max_size=80).map(bytes), st.integers(1, 4))
def test_depth_check_equals_its_definition(data: bytes, limit: int) -> None:
    try:
        parse(data, max_depth=limit)
        refused = False
    except FormatError as error:
        refused = "nested" in str(error)
    assert refused == (depth_by_hand(data) > limit)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_round_trip(value: Any) -> None:
    assert parse(json.dumps(value).encode(), floats=True, max_depth=100) == value
