"""Progress events: what long work tells whoever listens, without knowing who that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Started:
    """A named piece of work began; `total` is in bytes, or None when its size is unknown."""

    task: str
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Advanced:
    """`amount` more bytes of the task are done."""

    task: str
    amount: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The task is done; `note` is a short result for people."""

    task: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the operator should know; work goes on."""

    text: str


Event = Started | Advanced | Finished | Warned


class Listener(Protocol):
    """Receives events, in order, possibly from several threads; must not raise."""

    def __call__(self, event: Event, /) -> None: ...


def ignore_events(_event: Event) -> None:
    """The listener of callers who want no progress."""
