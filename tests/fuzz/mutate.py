"""Mutations of bytes and of JSON values, decided by a random number generator alone."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

_NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    16,
    31,
    32,
    33,
    64,
    127,
    128,
    255,
    256,
    4096,
    65_535,
    65_536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 64,
    2**64 - 1,
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**53,
    2**63,
    2**64,
    -(2**63),
    10**30,
    0.5,
    "",
    "a",
    "../x",
    "/etc/passwd",
    "a" * 300,
    "\0",
    "\u202e",
    "\ud800",
    "F32",
    "__class__",
    [],
    {},
    [[]],
    [0, 1],
    ["a"],
    {"a": 1},
    "sha384:" + "0" * 96,
    "2036-01-01T00:00:00Z",
)


def mutated(
    data: bytes, others: Sequence[bytes], words: Sequence[bytes], rng: random.Random
) -> bytes:
    """`data` with one to six changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        data = rng.choice(_CHANGES)(data, others, words, rng)
    return data[: 1 << 20]


def mutated_json(data: bytes, rng: random.Random) -> bytes:
    """JSON with one to three values, keys or items changed, in its canonical form."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed_value(value, rng)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("utf-8")


Change = Callable[[bytes, Sequence[bytes], Sequence[bytes], random.Random], bytes]


def _flip(data: bytes, _o: Sequence[bytes], _w: Sequence[bytes], rng: random.Random) -> bytes:
    if not data:
        return b"\0"
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _byte(data: bytes, _o: Sequence[bytes], _w: Sequence[bytes], rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + bytes((rng.randrange(256),)) + data[place + 1 :]


def _number(data: bytes, _o: Sequence[bytes], _w: Sequence[bytes], rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    number = rng.choice(_NUMBERS)
    packed = struct.pack("<Q", number) if rng.random() < 0.5 else struct.pack("<I", number % 2**32)
    return data[:place] + packed + data[place + len(packed) :]


def _cut(data: bytes, _o: Sequence[bytes], _w: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:start] + data[min(end, start + rng.choice((1, 4, 8, 64, 1 << 20))) :]


def _repeat(data: bytes, _o: Sequence[bytes], _w: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    piece = data[start : min(end, start + 256)]
    return data[:end] + piece * rng.choice((1, 1, 2, 40)) + data[end:]


def _word(data: bytes, _o: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    word = rng.choice(words) if words else b"\0"
    return data[:place] + word + data[place + rng.choice((0, len(word))) :]


def _splice(data: bytes, others: Sequence[bytes], _w: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _truncate(data: bytes, _o: Sequence[bytes], _w: Sequence[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


_CHANGES: tuple[Change, ...] = (
    _flip,
    _byte,
    _byte,
    _number,
    _number,
    _number,
    _cut,
    _repeat,
    _word,
    _word,
    _splice,
    _truncate,
)


def _changed_value(value: Any, rng: random.Random) -> Any:
    """A value with one place in it changed, found by walking down at random."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        return _changed_table(dict(value), rng)
    if isinstance(value, list) and value and rng.random() < 0.9:
        return _changed_list(list(value), rng)
    if type(value) is int and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 8, -8, 2**32))
    if isinstance(value, str) and value and rng.random() < 0.5:
        place = rng.randrange(len(value))
        return value[:place] + rng.choice("aZ0_/.\0\u00e9 ") + value[place + rng.randrange(2) :]
    return rng.choice(_VALUES)


def _changed_table(table: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    key = rng.choice(sorted(table))
    action = rng.random()
    if action < 0.1:
        del table[key]
    elif action < 0.2:
        table[rng.choice(("x", "", key + "x", "__metadata__"))] = rng.choice(_VALUES)
    else:
        table[key] = _changed_value(table[key], rng)
    return table


def _changed_list(items: list[Any], rng: random.Random) -> list[Any]:
    place = rng.randrange(len(items))
    action = rng.random()
    if action < 0.1:
        del items[place]
    elif action < 0.2:
        items.insert(place, items[rng.randrange(len(items))])
    else:
        items[place] = _changed_value(items[place], rng)
    return items
