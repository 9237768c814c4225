"""Canonical JSON out, strict JSON in.

Out: sorted keys, no spaces, ASCII escapes, one trailing newline never added. In: no duplicate keys,
no floats, no NaN, bounded depth and size, integers within 64 bits, and (for signed documents) bytes
that equal their own canonical form. These rules are bundle-v1 section 3.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from edgekit.errors import FormatError

MAX_DEPTH = 16
MAX_INTEGER = 2**63 - 1


_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A whole string (skipped over, with the brackets in it) or one bracket."""


def encode_canonical(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no white space, ASCII."""
    return _CANONICAL.encode(value).encode("ascii")


def parse_strict(
    data: bytes, *, max_bytes: int, what: str, floats: bool = False, max_depth: int = MAX_DEPTH
) -> Any:
    """Parse JSON bytes under the rules above.

    `max_bytes` is the size limit in bytes and `what` names the document in messages. With `floats`
    (API requests only) finite numbers with a point or exponent are accepted.
    Raises FormatError; accepts white space between tokens.
    """
    if len(data) > max_bytes:
        raise FormatError(
            f"{what} is too large", found=f"{len(data)} bytes", needed=f"at most {max_bytes} bytes"
        )
    _check_depth(data, what, max_depth)
    try:
        decoder = _WITH_FLOATS if floats else _STRICT
        return decoder.decode(data.decode("utf-8", errors="strict"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not valid JSON", found=str(error)) from error


def parse_canonical(data: bytes, *, max_bytes: int, what: str) -> Any:
    """Parse JSON bytes that must equal their own canonical encoding, as signed documents must."""
    value = parse_strict(data, max_bytes=max_bytes, what=what)
    if encode_canonical(value) != data:
        raise FormatError(f"{what} is not in canonical form")
    return value


def _check_depth(data: bytes, what: str, limit: int) -> None:
    """Refuse deep nesting before the recursive parser sees it."""
    if data.count(b"{") + data.count(b"[") <= limit:
        return
    depth = 0
    for token in _TOKENS.finditer(data):
        byte = data[token.start()]
        if byte in (0x7B, 0x5B):
            depth += 1
            if depth > limit:
                raise FormatError(f"{what} is nested too deeply", needed=f"at most {limit}")
        elif byte in (0x7D, 0x5D):
            depth -= 1


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"duplicate key {name[:60]!r}")
        result[name] = value
    return result


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"number {text[:20]!r} is not an integer")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:20]!r} is not finite")
    return value


def _bounded_int(text: str) -> int:
    if len(text) > 20:
        raise ValueError("integer does not fit 64 bits")
    value = int(text)
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError("integer does not fit 64 bits")
    return value


def _decoder(parse_float: Callable[[str], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_unique_pairs,
        parse_float=parse_float,
        parse_constant=_refuse_number,
        parse_int=_bounded_int,
    )


# made once: `json.loads` and `json.dumps` make new ones for each call with options
_STRICT = _decoder(_refuse_number)
_WITH_FLOATS = _decoder(_finite_float)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
