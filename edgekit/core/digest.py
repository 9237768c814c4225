"""Digests: an algorithm and a value, always together, always checked before use in a path."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from edgekit.errors import FormatError

_HEX_LENGTH = {"sha256": 64, "sha384": 96}
DEFAULT_ALGORITHM = "sha384"


class Hasher(Protocol):
    """What hashlib's objects offer and this project uses."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`sha384:<96 hex digits>` or `sha256:<64 hex digits>`; lower case, exact length."""

    algorithm: str
    value: str

    def __post_init__(self) -> None:
        length = _HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise FormatError(
                "unknown digest algorithm",
                found=repr(self.algorithm[:40]),
                needed="sha256 or sha384",
            )
        if len(self.value) != length or re.fullmatch(r"[0-9a-f]+", self.value) is None:
            raise FormatError(
                "malformed digest", found=repr(self.value[:100]), needed=f"{length} hex digits"
            )

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @property
    def short(self) -> str:
        """Twelve digits, for people; never used to decide anything."""
        return self.value[:12]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`. Raises FormatError."""
        algorithm, separator, value = text.partition(":")
        if not separator:
            raise FormatError("malformed digest", found=repr(text[:100]), needed="algorithm:hex")
        return cls(algorithm, value)

    @classmethod
    def of(cls, data: bytes | memoryview, algorithm: str = DEFAULT_ALGORITHM) -> Digest:
        """The digest of these bytes."""
        hasher = new_hasher(algorithm)
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())


def new_hasher(algorithm: str) -> Hasher:
    """A fresh hashlib object. Raises FormatError for an algorithm edgekit does not use."""
    if algorithm not in _HEX_LENGTH:
        raise FormatError("unknown digest algorithm", found=repr(algorithm[:40]))
    return hashlib.new(algorithm, usedforsecurity=True)
