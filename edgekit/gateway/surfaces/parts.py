"""An answer as a row of parts: reasoning, text and tool calls, each opened, grown and closed.

OpenAI's Responses and Anthropic's Messages both stream answers this way; the engine's chat events
only say what was added. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a part holds."""

    REASONING = "reasoning"
    TEXT = "text"
    CALL = "call"


class Change(Enum):
    """What happened to a part."""

    OPENED = "opened"
    GREW = "grew"
    CLOSED = "closed"


@dataclass(slots=True)
class Part:
    """One part; `value` is its text, or a call's arguments as JSON text, so far."""

    kind: Kind
    index: int
    call_id: str = ""
    name: str = ""
    value: str = ""


Step = tuple[Change, Part, str]
"""What happened, to which part, and the text it grew by."""


class Parts:
    """Collects the engine's chat events (or one whole answer) into parts."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._open: tuple[Kind, int] | None = None

    def feed(self, event: Mapping[str, Any]) -> Iterator[Step]:
        """The steps that one event means."""
        for choice in (event.get("choices") or ())[:1]:
            added = choice.get("delta") or choice.get("message") or {}
            reasoning = added.get("reasoning_content") or added.get("reasoning") or ""
            if reasoning:
                yield from self._grow(Kind.REASONING, 0, reasoning)
            if text := added.get("content") or "":
                yield from self._grow(Kind.TEXT, 0, text)
            for position, call in enumerate(added.get("tool_calls") or ()):
                yield from self._call(call.get("index", position), call)

    def end(self) -> Iterator[Step]:
        """The step that closes the last part, if one is open."""
        if self._open is not None:
            self._open = None
            yield Change.CLOSED, self.parts[-1], ""

    def _call(self, number: int, call: Mapping[str, Any]) -> Iterator[Step]:
        function = call.get("function") or {}
        if self._open != (Kind.CALL, number):
            yield from self._start(Kind.CALL, number)
            self.parts[-1].call_id = call.get("id") or f"call_{len(self.parts)}"
            self.parts[-1].name = function.get("name") or ""
            yield Change.OPENED, self.parts[-1], ""
        yield from self._add(function.get("arguments") or "")

    def _grow(self, kind: Kind, number: int, text: str) -> Iterator[Step]:
        if self._open != (kind, number):
            yield from self._start(kind, number)
            yield Change.OPENED, self.parts[-1], ""
        yield from self._add(text)

    def _start(self, kind: Kind, number: int) -> Iterator[Step]:
        yield from self.end()
        self.parts.append(Part(kind, len(self.parts)))
        self._open = (kind, number)

    def _add(self, text: str) -> Iterator[Step]:
        if text:
            self.parts[-1].value += text
            yield Change.GREW, self.parts[-1], text
