"""What became of a generation: collected from the engine's events, told to client and audit log."""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Outcome:
    """Counts, times (monotonic ns) and the keyed digest of the text that was generated.

    The text itself is collected only when the site's policy keeps it.
    """

    digest: hmac.HMAC
    keeps_text: bool = False
    started_ns: int = field(default_factory=time.monotonic_ns)
    first_token_ns: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    pieces: int = 0
    last_token_ns: int = 0
    status: int = 0
    cached: int = 0
    finish_reason: str | None = None
    timings: Mapping[str, Any] = field(default_factory=dict)
    _pieces: list[bytes] = field(default_factory=list)
    _earlier: int = 0

    def begin(self) -> None:
        """The next of several answers to the same prompt begins."""
        self._earlier = self.tokens_out or 0
        self.tokens_out = None

    def text(self) -> bytes:
        """What was generated so far, reasoning included; empty unless the policy keeps it."""
        return b"".join(self._pieces)

    def observe(self, event: Mapping[str, Any]) -> str:
        """Take in one event (or whole answer) of the engine; returns the text it carries."""
        if (usage := event.get("usage")) is not None:
            self._take_usage(usage)
        if (timings := event.get("timings")) is not None and isinstance(timings, dict):
            self.timings = timings
        choices = event.get("choices")
        if not choices:
            return ""
        choice = choices[0]
        if choice.get("finish_reason") is not None:
            self.finish_reason = str(choice["finish_reason"])
        part = choice.get("delta") or choice.get("message") or choice
        text = part.get("content") or part.get("text") or ""
        hidden = part.get("reasoning_content") or part.get("reasoning") or ""
        if text or hidden or part.get("tool_calls"):
            self.pieces += 1
            self.last_token_ns = time.monotonic_ns()
            if self.first_token_ns is None:
                self.first_token_ns = self.last_token_ns
            piece = f"{hidden}{text}".encode("utf-8", errors="surrogatepass")
            self.digest.update(piece)
            if self.keeps_text:
                self._pieces.append(piece)
        return str(text)

    def _take_usage(self, usage: Mapping[str, Any]) -> None:
        self.tokens_in = _count(usage.get("prompt_tokens"))
        count = _count(usage.get("completion_tokens"))
        self.tokens_out = None if count is None else self._earlier + count
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.cached = _count(details.get("cached_tokens")) or 0

    @property
    def used_tokens(self) -> int:
        """Tokens of prompt and answer; an answer that was cut off counts by its pieces."""
        return (self.tokens_in or 0) + (self.pieces if self.tokens_out is None else self.tokens_out)

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object."""
        tokens_in, tokens_out = self.tokens_in or 0, self.tokens_out or 0
        return {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    def durations(self) -> dict[str, int]:
        """Ollama's final counts and durations (ns): the engine's own figures where it gives any."""
        now = time.monotonic_ns()
        first = self.first_token_ns or now
        return {
            "total_duration": now - self.started_ns,
            "load_duration": 0,
            "prompt_eval_count": self.tokens_in or 0,
            "prompt_eval_duration": self._timing("prompt_ms", first - self.started_ns),
            "eval_count": self.tokens_out or 0,
            "eval_duration": self._timing("predicted_ms", now - first),
        }

    def _timing(self, key: str, measured_ns: int) -> int:
        value = self.timings.get(key)
        return int(value * 1_000_000) if isinstance(value, int | float) else measured_ns


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
