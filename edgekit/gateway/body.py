"""Read API request bodies: every field is named, typed and bounded, anything else is refused.

Null means absent, as both official clients may send it. Messages name the field, never its value:
values are prompts, and prompts stay out of errors and logs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Self

from edgekit.core.strict_json import parse_strict
from edgekit.errors import FormatError
from edgekit.gateway.problems import ApiError, bad_field

MAX_BODY_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_STOPS = 8
MAX_STOP_CHARS = 200
MAX_SCHEMA_BYTES = 64 << 10


class Body:
    """One table of a request. Each reader removes its field; `finish` refuses what is left."""

    def __init__(self, table: object, path: str = "") -> None:
        if not isinstance(table, dict):
            raise bad_field(path or "body", "must be an object")
        self._path = path
        self._left = {key: value for key, value in table.items() if value is not None}

    def name(self, key: str) -> str:
        """The field's dotted name in messages."""
        return f"{self._path}.{key}" if self._path else key

    def raw(
        self,
        key: str,
        schema: Mapping[str, Any],  # noqa: ARG002  for describers
        *,
        required: bool = False,  # noqa: ARG002  the same
    ) -> Any:
        """Any value, or None; the caller checks it. The rest says what it will accept."""
        return self._left.pop(key, None)

    def text(self, key: str, *, max_chars: int, default: str | None = None) -> str:
        """A string of bounded length; required when there is no default."""
        value = self._left.pop(key, None)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise bad_field(self.name(key), "must be a string")
        if len(value) > max_chars:
            raise bad_field(self.name(key), f"must have at most {max_chars} characters")
        return value

    def choice(self, key: str, allowed: Collection[str], *, default: str | None = None) -> str:
        """One of these strings; required when there is no default."""
        value = self._left.pop(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise bad_field(self.name(key), f"must be one of {', '.join(allowed)}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """A boolean."""
        value = self.switch(key)
        return default if value is None else value

    def switch(self, key: str) -> bool | None:
        """A boolean, or None."""
        value = self._left.pop(key, None)
        if not isinstance(value, bool | None):
            raise bad_field(self.name(key), "must be a boolean")
        return value

    def integer(self, key: str, low: int, high: int) -> int | None:
        """An integer within [low, high], or None."""
        value = self._left.pop(key, None)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON knows one kind of number, and some clients write 1.0
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise bad_field(self.name(key), f"must be an integer from {low} to {high}")
        return value

    def count(self, key: str, low: int, high: int) -> int:
        """A required integer within [low, high]."""
        value = self.integer(key, low, high)
        if value is None:
            raise bad_field(self.name(key), "is required")
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        """A number within [low, high], or None."""
        value = self._left.pop(key, None)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise bad_field(self.name(key), f"must be a number from {low:g} to {high:g}")

    def stops(self, key: str) -> list[str] | None:
        """A string or a list of at most 8 strings of 1 to 200 characters, or None."""
        value = self._left.pop(key, None)
        if value is None:
            return None
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or len(values) > MAX_STOPS:
            raise bad_field(self.name(key), f"must be at most {MAX_STOPS} strings")
        if not all(isinstance(item, str) and 0 < len(item) <= MAX_STOP_CHARS for item in values):
            raise bad_field(self.name(key), f"each must have 1 to {MAX_STOP_CHARS} characters")
        return values

    def tables(self, key: str, *, max_items: int, required: bool = False) -> list[Self]:
        """A list of sub-tables, each as its own reader; empty when there is none."""
        values = self._left.pop(key, None)
        if required and not values:
            raise bad_field(self.name(key), f"must be 1 to {max_items} {key}")
        if not isinstance(values, list | None) or len(values or ()) > max_items:
            raise bad_field(self.name(key), f"must be a list of at most {max_items} items")
        return self.parts(key, values or [])

    def parts(self, key: str, values: list[Any]) -> list[Self]:
        """Readers of a list's items, for a list that came by `raw`."""
        path = self.name(key)
        return [type(self)(value, f"{path}[{index}]") for index, value in enumerate(values)]

    def capped(
        self,
        key: str,
        kind: type,
        schema: Mapping[str, Any] = MappingProxyType({}),  # noqa: ARG002  for describers
        *,
        max_bytes: int = MAX_SCHEMA_BYTES,
    ) -> Any:
        """A value of this type that is passed on as it is, bounded by its size as JSON; or None.

        `schema` is what the caller asks of it beyond that.
        """
        value = self._left.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, kind) or len(json.dumps(value)) > max_bytes:
            raise bad_field(self.name(key), f"malformed or larger than {max_bytes} bytes")
        return value

    def table(self, key: str) -> Self | None:
        """A sub-table as its own reader, or None."""
        value = self._left.pop(key, None)
        return None if value is None else type(self)(value, self.name(key))

    def whole_table(self, key: str) -> Self:
        """A required sub-table."""
        table = self.table(key)
        if table is None:
            raise bad_field(self.name(key), "is required")
        return table

    def only(self, key: str, *allowed: object, why: str) -> None:
        """Refuse any value of this field but these."""
        value = self._left.pop(key, None)
        if value is not None and not any(type(value) is type(x) and value == x for x in allowed):
            raise bad_field(self.name(key), why)

    def ignore(self, names: frozenset[str]) -> None:
        """Accept these fields without effect."""
        for key in names & self._left.keys():
            del self._left[key]

    def finish(self) -> None:
        """Refuse the first field that nobody asked for."""
        if self._left:
            name = self.name(min(self._left))
            raise ApiError(400, "unknown_field", f"unknown field {name[:100]!r}", param=name[:100])


def parse_body(data: bytes) -> Body:
    """Bytes of a request to a reader. Raises ApiError 400."""
    try:
        table = parse_strict(
            data, max_bytes=MAX_BODY_BYTES, what="request body", floats=True, max_depth=MAX_DEPTH
        )
    except FormatError as error:
        raise ApiError(400, "invalid_json", error.message) from error
    return Body(table)
