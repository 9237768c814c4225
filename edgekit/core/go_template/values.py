"""What a template computes with, and the limits within which it does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

Value = Union[str, bool, int, None, "tuple[Value, ...]", "Mapping[str, Value]", "Record"]


@dataclass(frozen=True, slots=True)
class Record:
    """A thing with fields. One that is `shown` can be printed, as JSON."""

    kind: str
    fields: Mapping[str, Value]
    shown: bool = False


class ShownList(tuple[Value, ...]):
    """A list that can be printed, as JSON; without anything in it as `null`."""

    __slots__ = ()


class MisuseError(Exception):
    """A template asks for what its values do not have. Its text is the refusal's."""


class OutOfRangeError(MisuseError):
    """An index lies outside of its list or text."""


@dataclass(slots=True)
class Budget:
    """How much one run may do: steps, and characters that it puts together or looks through."""

    steps: int
    characters: int

    def step(self, count: int = 1) -> None:
        """Take so many. Raises MisuseError when none is left."""
        self.steps -= count
        if self.steps < 0:
            raise MisuseError("it takes too many steps for a conversation of this length")

    def text(self, text: str) -> str:
        """The same text, once it is counted. Raises MisuseError."""
        self.characters -= len(text)
        if self.characters < 0:
            raise MisuseError("it makes too much text of a conversation of this length")
        return text


@dataclass(frozen=True, slots=True)
class Setting:
    """What functions work in: a budget, and today's and yesterday's date as text.

    `anything` is for a run that only looks whether everything is there: no index is out of range.
    """

    budget: Budget
    today: str = ""
    yesterday: str = ""
    anything: bool = field(default=False, kw_only=True)


def is_true(value: Value) -> bool:
    """Go's idea of it: neither nil, zero nor empty."""
    return isinstance(value, Record) or bool(value)


def kind_of(value: Value) -> str:
    """`bool`, `int`, `string`, `nil`, or for everything else nothing."""
    names = {bool: "bool", int: "int", str: "string", type(None): "nil"}
    return names.get(type(value), "")


def shown(value: Value, budget: Budget) -> str:
    """A value as an action prints it. Raises MisuseError for what prompts have no use for."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    if (isinstance(value, Record) and value.shown) or isinstance(value, ShownList):
        return as_json(value, budget)
    what = value.kind if isinstance(value, Record) else "a list"
    raise MisuseError(f"{what} cannot be printed: name a text in it, or use json")


def as_json(value: Value, budget: Budget) -> str:
    """JSON as Go writes it: compact, sorted, safe inside HTML."""
    text = json.dumps(
        _plain(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return budget.text(text)


def _plain(value: Value) -> Any:
    if isinstance(value, Record):
        return {name: _plain(inner) for name, inner in value.fields.items()}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        # the lists of a conversation that are empty are Go's nil lists
        return [_plain(inner) for inner in value] or None
    return value
