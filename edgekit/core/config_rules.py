"""What a key of the site configuration may hold: one value that reads, checks and documents it.

A table of the configuration is a frozen dataclass whose fields are made by `key`. The reader and
the reference page (docs/reference/config.md) both come from those fields, so they cannot differ.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

from edgekit.core.fields import Fields

T = TypeVar("T")


class Rule(Protocol):
    """How one key is read. `kind` and `allowed` are its columns in the reference."""

    @property
    def kind(self) -> str:
        """The TOML type, in words."""

    @property
    def allowed(self) -> str:
        """The range, in words."""

    def read(self, table: Fields, name: str, default: Any) -> Any:
        """Take the key out of its table, or the default. Raises what `Fields` raises."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string. `says` puts the pattern in words."""

    says: str
    pattern: str | None = None
    choices: tuple[str, ...] | None = None
    max_length: int = 200
    kind = "text"

    @property
    def allowed(self) -> str:
        return ", ".join(f"`{choice}`" for choice in self.choices) if self.choices else self.says

    def read(self, table: Fields, name: str, default: Any) -> Any:
        return table.text(
            name,
            max_length=self.max_length,
            pattern=self.pattern,
            choices=self.choices,
            default=default,
        )


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of strings under one pattern."""

    says: str
    max_items: int
    pattern: str | None = None
    max_length: int = 200
    kind = "list of text"

    @property
    def allowed(self) -> str:
        return f"at most {self.max_items}: {self.says}"

    def read(self, table: Fields, name: str, default: Any) -> Any:
        return table.texts(
            name,
            max_items=self.max_items,
            max_length=self.max_length,
            pattern=self.pattern,
            default=list(default),
        )


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number of some unit, ends included."""

    low: int
    high: int
    unit: str = ""
    kind = "integer"

    @property
    def allowed(self) -> str:
        return f"{self.low:,} to {self.high:,} {self.unit}".rstrip()

    def read(self, table: Fields, name: str, default: Any) -> Any:
        return table.integer(name, low=self.low, high=self.high, default=default)


@dataclass(frozen=True, slots=True)
class Boolean:
    """`true` or `false`."""

    kind = "boolean"
    allowed = "`true`, `false`"

    def read(self, table: Fields, name: str, default: Any) -> Any:
        return table.boolean(name, default)


@dataclass(frozen=True, slots=True)
class Address:
    """`ADDRESS:PORT` with a numeric address, or empty."""

    kind = "text"
    allowed = "`ADDRESS:PORT` (IPv6 in brackets), or empty"

    def read(self, table: Fields, name: str, default: Any) -> Any:
        text = table.text(name, max_length=60, default=default)
        if text and not is_address(text):
            raise table.fail(name, f"{text!r} is not a numeric ADDRESS:PORT")
        return text


def is_address(text: str) -> bool:
    """Whether this is an IP address and a port from 1 to 65535, as in `127.0.0.1:11434`."""
    address, _, port = text.rpartition(":")
    is_bracketed = address.startswith("[") and address.endswith("]")
    try:
        family = ipaddress.ip_address(address.strip("[]")).version
    except ValueError:
        return False
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    return digits and 1 <= int(port) <= 65535 and is_bracketed == (family == 6)


def key(default: Any, rule: Rule, meaning: str) -> Any:
    """A dataclass field for one key: its default, what it may hold, what it is for."""
    return field(default=default, metadata={"rule": rule, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class Key:
    """One key as the reference shows it."""

    name: str
    default: Any
    rule: Rule
    meaning: str


def keys_of(kind: type) -> tuple[Key, ...]:
    """The keys of a table, in the order of its class."""
    return tuple(
        Key(item.name, item.default, item.metadata["rule"], item.metadata["meaning"])
        for item in fields(kind)
    )


def read_table(kind: type[T], table: Fields) -> T:
    """One table to its value; keys that its class does not name are refused."""
    values = {item.name: item.rule.read(table, item.name, item.default) for item in keys_of(kind)}
    table.finish()
    return kind(**values)


@dataclass(frozen=True, slots=True)
class Networks:
    """IP networks and addresses, as systemd takes them."""

    max_items: int
    kind = "list of text"

    @property
    def allowed(self) -> str:
        return f"at most {self.max_items}: `10.20.0.0/16`, `10.20.0.7`, `fd00::/8`"

    def read(self, table: Fields, name: str, default: Any) -> Any:
        texts = table.texts(name, max_items=self.max_items, max_length=64, default=list(default))
        for text in texts:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise table.fail(name, f"{text!r} is not a network: {error}") from error
        return texts


def is_loopback(listen: str) -> bool:
    """Whether `ADDRESS:PORT` can be reached from this host alone."""
    return ipaddress.ip_address(listen.rpartition(":")[0].strip("[]")).is_loopback
