"""What every surface's translator promises, and what they share."""

from __future__ import annotations

import json
import time
from typing import Any, Protocol

from edgekit.errors import EngineError
from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError, render_problem, surface_of

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def encode(value: object) -> bytes:
    """Compact UTF-8 JSON; what UTF-8 cannot carry (half a surrogate pair) is replaced."""
    return _encode(value).encode("utf-8", errors="replace")


class Translator(Protocol):
    """Turns the engine's events into one surface's bytes."""

    content_type: str

    def event(self, event: dict[str, Any], text: str) -> bytes:
        """Bytes to send for an event that carries `text`; may be none."""

    def last(self) -> bytes:
        """The bytes that close a good stream; the response record is durable before them."""

    def whole(self, answer: dict[str, Any], text: str) -> bytes:
        """The body for a request that did not ask for a stream."""

    def broken(self, error: ApiError) -> bytes:
        """The bytes that end a stream which cannot be finished."""


class WholeTranslator:
    """A translator for answers that come whole: subclasses write `whole`."""

    content_type = "application/json"

    def __init__(self, job: Job, outcome: Outcome) -> None:
        self._job = job
        self._outcome = outcome

    def event(self, event: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        """Nothing is asked for as a stream here. Raises EngineError."""
        raise EngineError("the engine streams an answer that has no stream")

    def last(self) -> bytes:
        """The same."""
        raise EngineError("the engine streams an answer that has no stream")

    def broken(self, error: ApiError) -> bytes:
        """The error as its surface writes it."""
        return render_problem(error, surface_of(self._job.endpoint))


def timestamp() -> str:
    """Now, as Ollama writes it: RFC 3339, UTC."""
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def read_arguments(text: str) -> dict[str, Any]:
    """Arguments as an object; a model that wrote no JSON object gets its text shown as it is."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"_raw": text}
    return value if isinstance(value, dict) else {"_raw": text}
