"""What becomes of prompts and answers at a site. Pure.

Four modes, from the most private to the least:

    none     counts only
    hash     keyed digests; what happens unless a site says otherwise
    sealed   also the text, encrypted to the auditor's public key
    full     also the text, in clear
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class TextMode(IntEnum):
    """What is kept of a text; more of it with every step."""

    NONE = 0
    HASH = 1
    SEALED = 2
    FULL = 3

    @property
    def label(self) -> str:
        """The mode's name in records."""
        return self.name.lower()

    @property
    def keeps_text(self) -> bool:
        """Whether a side file is written."""
        return self >= TextMode.SEALED


SETTINGS = {
    "none": TextMode.NONE,
    "hash": TextMode.HASH,
    "sealed": TextMode.SEALED,
    "insecure-full": TextMode.FULL,
}
"""The modes as sites write them in their configuration."""


@dataclass(frozen=True, slots=True)
class TextPolicy:
    """Which mode is for whom.

    A rule for the API key or for the model stands before `default`; when both exist, the more
    private one counts.
    """

    default: TextMode = TextMode.HASH
    keys: Mapping[str, TextMode] = field(default_factory=dict)
    models: Mapping[str, TextMode] = field(default_factory=dict)

    def mode(self, key_id: str, model: str) -> TextMode:
        """The mode for a request with this key to this model."""
        rules = [
            mode
            for mode in (self.keys.get(key_id), self.models.get(model.removesuffix(":latest")))
            if mode is not None
        ]
        return min(rules, default=self.default)

    def modes(self) -> frozenset[TextMode]:
        """Every mode that may happen."""
        return frozenset({self.default, *self.keys.values(), *self.models.values()})

    def table(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "default": self.default.label,
            "keys": {name: mode.label for name, mode in sorted(self.keys.items())},
            "models": {name: mode.label for name, mode in sorted(self.models.items())},
        }


def parse_rules(rules: Iterable[str]) -> dict[str, TextMode]:
    """`NAME=SETTING` texts, whose shape was checked, to modes by name; of two, the more private."""
    modes: dict[str, TextMode] = {}
    for rule in rules:
        name, _, setting = rule.rpartition("=")
        name, mode = name.removesuffix(":latest"), SETTINGS[setting]
        modes[name] = min(mode, modes.get(name, mode))
    return modes
