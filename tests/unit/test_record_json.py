"""Canonical JSON of records is what the library makes of them, whatever is in them."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from edgekit.core.record_json import MAX_SHAPES, encode_record
from edgekit.core.strict_json import encode_canonical

TEXTS = st.text() | st.sampled_from(['"', "\\", "\x7f", "\x00", "%s", "%%", '","a":"', "\ud800"])
VALUES = TEXTS | st.integers() | st.booleans() | st.none()
TABLES = st.dictionaries(
    TEXTS, VALUES | st.dictionaries(TEXTS, VALUES) | st.lists(VALUES), max_size=6
)


@given(TABLES)
@example({"a": '","b":"', "b": ""})
@example({"a": "", "b": {"c": '"', "d": "\\"}})
@example({"a": True, "b": 1})
@example({"a": {}, "b": None})
@example({"%d": 1, '"': "x"})
def test_every_table_is_encoded_as_the_library_does(table: dict[str, Any]) -> None:
    assert encode_record(table) == encode_canonical(table)


def test_so_many_shapes_that_none_is_kept() -> None:
    for number in range(2 * MAX_SHAPES):
        table = {f"k{number}": number, "text": "plain", "flag": False}
        assert encode_record(table) == encode_canonical(table)
