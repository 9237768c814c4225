"""Take named, typed, bounded fields out of parsed documents; unknown keys are refused.

One reader serves JSON (manifests, plans) and TOML (recipes, profiles): the error class and the way
to say where a key stands differ, the rules do not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edgekit.errors import EdgekitError, FormatError

T = TypeVar("T")
ErrorFactory = Callable[[str, str], EdgekitError]
"""Makes the error to raise from a message and the dotted path of the key it is about."""

_REQUIRED: Any = object()
_UNSAFE = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of text: on a terminal they make it lie."""


def format_error(message: str, path: str) -> EdgekitError:
    """The default error factory: a FormatError that names the key."""
    return FormatError(message, where=path)


class Fields:
    """One table being read. Each `take` removes a key; `finish` refuses what is left over."""

    def __init__(self, table: object, path: str = "", error: ErrorFactory = format_error) -> None:
        self._path = path
        self._error = error
        if not isinstance(table, dict):
            raise error(f"expected a table, found {_kind(table)}", path)
        self._left: dict[str, Any] = dict(table)

    def path(self, key: str) -> str:
        """The dotted path of a key in this table."""
        return f"{self._path}.{key}" if self._path else key

    def fail(self, key: str, message: str) -> EdgekitError:
        """An error about one key, for the caller to raise."""
        return self._error(message, self.path(key))

    def take(self, key: str, kind: type[T], default: Any = _REQUIRED) -> T:
        """Remove and return a key of exactly this type (bool is not int)."""
        if key not in self._left:
            if default is _REQUIRED:
                raise self.fail(key, "missing key")
            return default  # type: ignore[no-any-return]
        value = self._left.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(key, f"expected {_kind_name(kind)}, found {_kind(value)}")
        return value

    def text(
        self,
        key: str,
        *,
        max_length: int = 200,
        pattern: str | None = None,
        choices: tuple[str, ...] | None = None,
        default: Any = _REQUIRED,
    ) -> str:
        """A string without control characters, of bounded length, pattern or choice."""
        value: str = self.take(key, str, default)
        if value is default:
            fallback: str = default
            return fallback
        if len(value) > max_length:
            raise self.fail(key, f"longer than {max_length} characters")
        # Most text is plain: asking character by character is for the rest.
        plain = value.isascii() and value.isprintable()
        if not plain and any(
            char in _UNSAFE or unicodedata.category(char) == "Cc" for char in value
        ):
            raise self.fail(key, "contains a control character")
        if pattern is not None and re.fullmatch(pattern, value) is None:
            raise self.fail(key, f"{value!r} does not match {pattern}")
        if choices is not None and value not in choices:
            raise self.fail(key, f"{value!r} is not one of {', '.join(choices)}")
        return value

    def integer(self, key: str, *, low: int, high: int, default: Any = _REQUIRED) -> int:
        """An integer within [low, high]."""
        value: int = self.take(key, int, default)
        if value is default:
            fallback: int = default
            return fallback
        if not low <= value <= high:
            raise self.fail(key, f"{value} is outside {low} to {high}")
        return value

    def boolean(self, key: str, default: Any = _REQUIRED) -> bool:
        """A boolean."""
        return self.take(key, bool, default)

    def table(self, key: str, default: Any = _REQUIRED) -> Fields:
        """A sub-table as its own reader."""
        return Fields(self.take(key, dict, default), self.path(key), self._error)

    def mapping(self, key: str, *, max_items: int = 1000) -> Mapping[str, Any]:
        """A table with free keys; the caller checks keys and values."""
        value: dict[str, Any] = self.take(key, dict)
        if len(value) > max_items:
            raise self.fail(key, f"more than {max_items} keys")
        return value

    def items(self, key: str, *, max_items: int, default: Any = _REQUIRED) -> list[Fields]:
        """A list of tables, each as its own reader."""
        values: list[Any] = self.take(key, list, default)
        if len(values) > max_items:
            raise self.fail(key, f"more than {max_items} items")
        return [
            Fields(value, f"{self.path(key)}[{index}]", self._error)
            for index, value in enumerate(values)
        ]

    def texts(
        self,
        key: str,
        *,
        max_items: int,
        max_length: int = 200,
        pattern: str | None = None,
        default: Any = _REQUIRED,
    ) -> tuple[str, ...]:
        """A list of strings under the same rules as `text`."""
        values: list[Any] = self.take(key, list, default)
        if len(values) > max_items:
            raise self.fail(key, f"more than {max_items} items")
        reader = Fields({str(i): v for i, v in enumerate(values)}, self.path(key), self._error)
        return tuple(
            reader.text(str(index), max_length=max_length, pattern=pattern)
            for index in range(len(values))
        )

    def keys(self) -> tuple[str, ...]:
        """The keys not taken yet."""
        return tuple(self._left)

    def __contains__(self, key: str) -> bool:
        """Whether a key is there that was not taken yet."""
        return key in self._left

    def finish(self) -> None:
        """Refuse any key that nobody asked for."""
        if self._left:
            key = min(self._left)
            raise self.fail(key, "unknown key")


def _kind(value: object) -> str:
    return _kind_name(type(value))


def _kind_name(kind: type) -> str:
    names = {
        dict: "a table",
        list: "a list",
        str: "a string",
        int: "an integer",
        bool: "a boolean",
        float: "a float",
        type(None): "null",
    }
    return names.get(kind, kind.__name__)
