r"""A schema's `pattern` in words that llama.cpp's grammar keeps to. Pure.

It answers as if a pattern were not there when it cannot follow it, and says so in its log alone:
one that is not for the whole text, `\d` and its kin, groups with `?`, anchors inside. A repetition
whose bounds are the wrong way round stops it for everyone. So every pattern is read here; what can
be said in other words is, the rest is refused (llama.cpp common/json-schema-to-grammar.cpp, b11549;
tests/gateway/test_schema_limits.py asks the engine). What JSON would have to escape is left out of
every set: the engine writes it as it is, and the answer would be no JSON.
"""

from __future__ import annotations

import re

from edgekit.errors import FormatError

Ranges = list[tuple[int, int]]
_SETS: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "s": [(0x09, 0x0D), (0x20, 0x20)],
}
_ESCAPED: Ranges = [(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C)]
"""Characters that JSON escapes in a text."""
_CONTROLS = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B, "0": 0x00}
_PLAIN = frozenset(".^$*+?()[]{}|")
"""What means something else without a backslash."""
_TOKEN = re.compile(
    r"(?P<escape>\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[^ux]))"
    r"|(?P<set>\[\^?(?:\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[^ux])|[^\]\\\[])+\])"
    r"|(?P<open>\((?:\?:)?(?!\?))|(?P<close>\))"
    r"|(?P<times>[*+?]|\{[0-9]{1,4}(?:,[0-9]{0,4})?\})"
    r"|(?P<plain>[^\\\[\](){}*+?^$\"])",
    re.DOTALL,
)
_INSIDE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)|.", re.DOTALL)


def engine_pattern(pattern: str) -> str:
    """The same texts in the engine's words. Raises FormatError for what it would not keep to."""
    if not re.fullmatch(r"\^(?:[^\\]|\\.)*\$", pattern, re.DOTALL):
        raise FormatError("a pattern must begin with ^ and end with $: engines keep no other")
    inner, place, depth, repeatable = pattern[1:-1], 0, 0, False
    made: list[str] = []
    while place < len(inner):
        match = _TOKEN.match(inner, place)
        if match is None:
            raise _unknown(inner[place])
        kind, text = str(match.lastgroup), match[0]
        if kind == "times":
            _check_times(text, repeatable=repeatable)
        depth += (kind == "open") - (kind == "close")
        if depth < 0:
            raise FormatError("a pattern has a group that does not begin")
        made.append(_in_other_words(kind, text))
        repeatable = kind not in ("open", "times") and text != "|"
        place = match.end()
    if depth:
        raise FormatError("a pattern has a group that does not end")
    return f"^{''.join(made)}$"


def _in_other_words(kind: str, text: str) -> str:
    if kind == "escape" and text[1].lower() in _SETS:
        return _rendered(_SETS[text[1].lower()], outside=text[1].isupper())
    if kind == "escape":
        return _literal(_code(text))
    if kind == "set":
        return _set(text)
    if text == ".":
        return _rendered([(0x0A, 0x0A), (0x0D, 0x0D)], outside=True)
    return "(" if kind == "open" else text


def _code(text: str) -> int:
    """The character that stands for itself, or behind a backslash."""
    if len(text) == 1:
        return ord(text)
    letter = text[1]
    if letter in "ux":
        return int(f"0x{text[2:]}", 0)
    if letter in _CONTROLS:
        return _CONTROLS[letter]
    if letter.isalnum() or not letter.isascii():
        raise _unknown(text)
    return ord(letter)


def _literal(code: int) -> str:
    if any(low <= code <= high for low, high in _ESCAPED):
        raise _unknown(chr(code))
    return f"\\{chr(code)}" if chr(code) in _PLAIN else chr(code)


def _set(text: str) -> str:
    outside = text.startswith("[^")
    items = [match[0] for match in _INSIDE.finditer(text[2 if outside else 1 : -1])]
    ranges: Ranges = []
    place = 0
    while place < len(items):
        item = items[place]
        if len(item) == 2 and item[1] in _SETS:
            ranges += _SETS[item[1]]
        elif items[place + 1 : place + 2] == ["-"] and place + 2 < len(items):
            low, high = _code(item), _code(items[place + 2])
            if low > high:
                raise FormatError("a pattern has a range that ends before it begins")
            ranges.append((low, high))
            place += 2
        else:
            ranges.append((_code(item), _code(item)))
        place += 1
    return _rendered(ranges, outside=outside)


def _rendered(ranges: Ranges, *, outside: bool) -> str:
    """A set without what JSON escapes."""
    if outside:
        return f"[^{_items(_merged([*ranges, *_ESCAPED]))}]"
    kept = _merged(ranges)
    for low, high in _ESCAPED:
        kept = [part for one in kept for part in _without(one, low, high)]
    if not kept:
        raise FormatError("a pattern has a set of nothing but what JSON escapes")
    return f"[{_items(kept)}]"


def _merged(ranges: Ranges) -> Ranges:
    made: Ranges = []
    for low, high in sorted(ranges):
        if made and low <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(high, made[-1][1]))
        else:
            made.append((low, high))
    return made


def _without(one: tuple[int, int], low: int, high: int) -> Ranges:
    parts = [(one[0], min(one[1], low - 1)), (max(one[0], high + 1), one[1])]
    return [part for part in parts if part[0] <= part[1]]


def _items(ranges: Ranges) -> str:
    return "".join(_item(low) + (f"-{_item(high)}" if high > low else "") for low, high in ranges)


def _item(code: int) -> str:
    return chr(code) if code > 0xFFFF else f"\\u{code:04x}"


def _check_times(text: str, *, repeatable: bool) -> None:
    if not repeatable:
        raise FormatError("a pattern repeats nothing, or a repetition")
    low, comma, high = text.strip("{}").partition(",")
    if comma and high and int(low) > int(high):
        raise FormatError("a pattern repeats something at least more often than at most")


def _unknown(text: str) -> FormatError:
    return FormatError(f"engines do not keep to {text!r} in a pattern")
