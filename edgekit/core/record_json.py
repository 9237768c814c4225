"""Canonical JSON of flat tables, as audit records are, faster than the library makes it.

Records come in few shapes: the same names with values of the same types. What a shape has in common
(names in order, quotes, commas) is made once, and filled in. That is right only when no text needs
an escape, which is looked at for all of them at once; whatever does not fit is the library's.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)
_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
"""What stands in canonical JSON as itself."""

_FILLED = {str: '"%s"', int: "%d"}
_RENDERED = (bool, type(None), dict)
_WORDS = {True: "true", False: "false", None: "null"}
_UNFIT = "\\", 0
"""A backslash never passes."""

MAX_SHAPES = 256


class _Shape(NamedTuple):
    """`values` picks them in the order of the template, of which those at `rendered` are made text
    first. `quotes` is how many quotes the template has."""

    template: str
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    rendered: tuple[int, ...]
    quotes: int


def encode_record(table: Mapping[str, Any]) -> bytes:
    """Sorted keys, no white space, ASCII: what `strict_json.encode_canonical` makes of it."""
    text, quotes = _fill(table)
    # a quote more, a backslash, a control character: then something needs an escape
    if text.isascii():
        data = text.encode("ascii")
        if data.translate(None, _PLAIN) == b'"' * quotes:
            return data
    return _ENCODER.encode(table).encode("ascii")


def _fill(table: Mapping[str, Any]) -> tuple[str, int]:
    """What canonical JSON would be without escapes, and how many quotes it would have then."""
    shape = _shape(tuple(table), tuple(map(type, table.values())))
    if shape is None:
        return _UNFIT
    template, pick, rendered, quotes = shape
    values = pick(table)
    if rendered:
        some = list(values)
        for index in rendered:
            value = some[index]
            if value.__class__ is dict:
                some[index], inner = _fill(value)
                quotes += inner
            else:
                some[index] = _WORDS[value]
        values = tuple(some)
    return template % values, quotes


@functools.lru_cache(maxsize=MAX_SHAPES)
def _shape(keys: tuple[Any, ...], types: tuple[type, ...]) -> _Shape | None:
    """None for what the library has to encode."""
    kinds = dict(zip(keys, types, strict=True))
    known = all(kind in _FILLED or kind in _RENDERED for kind in types)
    if len(keys) < 2 or not known or not all(isinstance(key, str) for key in keys):
        return None
    order = sorted(keys)
    template = ",".join(
        f"{json.dumps(key)}:".replace("%", "%%") + _FILLED.get(kinds[key], "%s") for key in order
    )
    return _Shape(
        "{" + template + "}",
        itemgetter(*order),
        tuple(index for index, key in enumerate(order) if kinds[key] in _RENDERED),
        template.count('"'),
    )
