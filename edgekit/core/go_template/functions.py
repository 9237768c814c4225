"""The functions that templates may call, as text/template and Ollama define them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from edgekit.core.go_template.values import (
    MisuseError,
    OutOfRangeError,
    Record,
    Setting,
    Value,
    as_json,
    is_true,
    kind_of,
)

_MANY = 64
ARGUMENTS: Mapping[str, tuple[int, int]] = MappingProxyType({
    "and": (1, _MANY),
    "currentDate": (0, 1),
    "eq": (2, _MANY),
    "ge": (2, 2),
    "gt": (2, 2),
    "index": (1, 4),
    "json": (1, 1),
    "le": (2, 2),
    "len": (1, 1),
    "lt": (2, 2),
    "ne": (2, 2),
    "not": (1, 1),
    "or": (1, _MANY),
    "print": (0, _MANY),
    "printf": (1, _MANY),
    "slice": (1, 3),
    "yesterdayDate": (0, 1),
})
"""How many arguments each takes, at least and at most. `and` and `or` are the runner's."""
_VERB = re.compile(r"%(.?)", re.DOTALL)
_CHARACTERS_PER_STEP = 1024
_ITEMS_PER_STEP = 16


def call(name: str, arguments: Sequence[Value], setting: Setting) -> Value:
    """The value of a function. Raises MisuseError."""
    if len(arguments) < ARGUMENTS[name][0]:
        raise MisuseError(f"{name} has lost an argument behind .Response")
    return _FUNCTIONS[name](arguments, setting)


def _equal(arguments: Sequence[Value], setting: Setting) -> bool:
    """Whether the first is one of the others."""
    first, kind = arguments[0], kind_of(arguments[0])
    for other in arguments[1:]:
        other_kind = kind_of(other)
        if not kind or not other_kind:
            raise MisuseError("only texts, numbers and booleans can be compared")
        if kind != other_kind and "nil" not in (kind, other_kind):
            raise MisuseError(f"values of type {kind} and {other_kind} cannot be compared")
        _count(other, setting)
        if kind == other_kind and first == other:
            return True
    return False


def _less(arguments: Sequence[Value], setting: Setting) -> bool:
    first, second = arguments
    _count(second, setting)
    if isinstance(first, str) and isinstance(second, str):
        return first.encode("utf-8", "replace") < second.encode("utf-8", "replace")
    numbers = kind_of(first) == kind_of(second) == "int"
    if numbers and isinstance(first, int) and isinstance(second, int):
        return first < second
    raise MisuseError("only two texts or two numbers can be put in order")


def _less_or_equal(arguments: Sequence[Value], setting: Setting) -> bool:
    return _less(arguments, setting) or arguments[0] == arguments[1]


def _length(arguments: Sequence[Value], setting: Setting) -> int:
    value = arguments[0]
    if isinstance(value, str):
        return len(_bytes(value, setting))
    if isinstance(value, tuple | Mapping):
        return len(value)
    raise MisuseError("len is of a text, a list or a map")


def _index(arguments: Sequence[Value], setting: Setting) -> Value:
    value = arguments[0]
    if value is None:
        raise MisuseError("index of nothing")
    for at in arguments[1:]:
        value = _item(value, at, setting)
    return value


def _item(value: Value, at: Value, setting: Setting) -> Value:
    if isinstance(value, Mapping):
        if not isinstance(at, str):
            raise MisuseError("the key of a map is a text")
        return next(iter(value.values()), None) if setting.anything else value.get(at)
    if not isinstance(value, tuple):
        raise MisuseError("index is into a list or a map")
    number = 0 if setting.anything and kind_of(at) == "int" and value else at
    return value[_within(number, len(value) - 1)]


def _slice(arguments: Sequence[Value], setting: Setting) -> Value:
    value = arguments[0]
    items: Any = _bytes(value, setting) if isinstance(value, str) else value
    if not isinstance(items, tuple | bytes):
        raise MisuseError("slice is of a list or a text")
    numbers = [_within(at, 1 << 40 if setting.anything else len(items)) for at in arguments[1:]]
    if setting.anything:
        return value
    start, end = (*numbers, *(0, len(items))[len(numbers) :])
    if start > end:
        raise OutOfRangeError("a slice ends before it begins")
    setting.budget.step((end - start) // _ITEMS_PER_STEP)
    part = items[start:end]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _within(number: Value, last: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise MisuseError("an index is a number")
    if not 0 <= number <= last:
        raise OutOfRangeError("an index is out of range")
    return number


def _print(arguments: Sequence[Value], setting: Setting) -> str:
    """Go's Sprint: spaces between two of which none is a text."""
    text = ""
    for position, value in enumerate(arguments):
        earlier = arguments[position - 1] if position else ""
        text += "" if isinstance(value, str) or isinstance(earlier, str) else " "
        text += setting.budget.text(_formatted("v", value))
    return text


def _printf(arguments: Sequence[Value], setting: Setting) -> str:
    """Go's Sprintf, of `%s`, `%d`, `%v` and `%%`."""
    pattern, values = arguments[0], list(arguments[1:])
    if not isinstance(pattern, str):
        raise MisuseError("printf begins with a text")

    def filled(verb: re.Match[str]) -> str:
        if verb[1] == "%":
            return "%"
        if verb[1] not in ("s", "d", "v"):
            raise MisuseError(f"printf does not know %{verb[1]} here: use %s, %d, %v or %%")
        if not values:
            raise MisuseError("printf has more verbs than values")
        return setting.budget.text(_formatted(verb[1], values.pop(0)))

    text = _VERB.sub(filled, pattern)
    if values:
        raise MisuseError("printf has more values than verbs")
    return setting.budget.text(text)


def _formatted(verb: str, value: Value) -> str:
    kind = kind_of(value)
    if not kind:
        raise MisuseError("only texts, numbers and booleans can be formatted")
    if kind == "nil":
        return "<nil>" if verb == "v" else f"%!{verb}(<nil>)"
    text = str(value).lower() if kind == "bool" else str(value)
    fits = verb == "v" or (verb, kind) in (("s", "string"), ("d", "int"))
    return text if fits else f"%!{verb}({kind}={text})"


def _bytes(text: str, setting: Setting) -> bytes:
    """Go's texts are bytes."""
    _count(text, setting)
    return text.encode("utf-8", "replace")


def _count(value: Value, setting: Setting) -> None:
    """Looking through a long text is work, too."""
    if isinstance(value, str):
        setting.budget.step(len(value) // _CHARACTERS_PER_STEP)


_FUNCTIONS: Mapping[str, Callable[[Sequence[Value], Setting], Value]] = MappingProxyType({
    "currentDate": lambda _, setting: setting.today,
    "eq": _equal,
    "ge": lambda arguments, setting: not _less(arguments, setting),
    "gt": lambda arguments, setting: not _less_or_equal(arguments, setting),
    "index": _index,
    "json": lambda arguments, setting: as_json(arguments[0], setting.budget),
    "le": _less_or_equal,
    "len": _length,
    "lt": _less,
    "ne": lambda arguments, setting: not _equal(arguments, setting),
    "not": lambda arguments, _: not is_true(arguments[0]),
    "print": _print,
    "printf": _printf,
    "slice": _slice,
    "yesterdayDate": lambda _, setting: setting.yesterday,
})


def field_of(value: Value, name: str) -> Value:
    """A value's field; nothing for a key that a map does not have. Raises MisuseError."""
    if isinstance(value, Mapping):
        return value.get(name)
    if not isinstance(value, Record):
        raise MisuseError(f"a value of type {kind_of(value) or 'list'} has no field {name[:40]}")
    if name not in value.fields:
        known = ", ".join(value.fields)
        raise MisuseError(f"{value.kind} has no field {name[:40]}: it has {known}")
    return value.fields[name]
