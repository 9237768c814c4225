"""What every surface's translator does with the engine's events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Protocol

from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError, render_problem

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode

HIDDEN = ("timings", "usage", "id", "created", "model", "__verbose")


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


class OpenAiTranslator:
    """OpenAI's chunks: one id, one created and the model name as asked, on every chunk.

    Order (research/serving.md 2.1): role, content.., finish, usage if asked for, [DONE].
    """

    def __init__(self, job: Job, outcome: Outcome) -> None:
        self.content_type = "text/event-stream" if job.stream else "application/json"
        self._job = job
        self._outcome = outcome
        self._chat = job.endpoint == "/v1/chat/completions"
        prefix = "chatcmpl-" if self._chat else "cmpl-"
        self._marks = {
            "id": prefix + secrets.token_hex(12),
            "created": int(time.time()),
            "model": job.asked_name,
        }

    def event(self, event: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        if not event.get("choices"):
            return b""  # the engine's usage chunk: ours follows in `last`
        return b"data: " + encode({**_visible(event), **self._marks}) + b"\n\n"

    def last(self) -> bytes:
        data = b"data: [DONE]\n\n"
        if self._job.include_usage:
            kind = "chat.completion.chunk" if self._chat else "text_completion"
            chunk = {**self._marks, "object": kind, "choices": [], "usage": self._outcome.usage()}
            data = b"data: " + encode(chunk) + b"\n\n" + data
        return data

    def whole(self, answer: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        return encode({**_visible(answer), **self._marks, "usage": self._outcome.usage()})

    def broken(self, error: ApiError) -> bytes:
        return b"data: " + render_problem(error, openai=True) + b"\n\n"


class OllamaTranslator:
    """Ollama's lines: text as it comes, tool calls whole, counts and durations on the last."""

    def __init__(self, job: Job, outcome: Outcome) -> None:
        self.content_type = "application/x-ndjson" if job.stream else "application/json"
        self._job = job
        self._outcome = outcome
        self._chat = job.endpoint == "/api/chat"
        self._calls: dict[int, dict[str, str]] = {}

    def event(self, event: dict[str, Any], text: str) -> bytes:
        for choice in event.get("choices") or ():
            self._collect((choice.get("delta") or {}).get("tool_calls") or ())
        return self._line(text, {"done": False}) if text else b""

    def last(self) -> bytes:
        lines = b""
        if self._calls:
            lines = self._line("", {"done": False}, calls=True)
        return lines + self._line("", self._final())

    def whole(self, answer: dict[str, Any], text: str) -> bytes:
        message = answer["choices"][0].get("message") or {}
        self._collect(message.get("tool_calls") or ())
        return self._line(text, self._final(), calls=True)

    def broken(self, error: ApiError) -> bytes:
        return render_problem(error, openai=False) + b"\n"

    def _collect(self, calls: Any) -> None:
        """Put the pieces of streamed tool calls together, by index."""
        for position, call in enumerate(calls):
            kept = self._calls.setdefault(
                call.get("index", position), {"name": "", "arguments": ""}
            )
            function = call.get("function") or {}
            kept["name"] += function.get("name") or ""
            kept["arguments"] += function.get("arguments") or ""

    def _line(self, text: str, rest: Mapping[str, Any], *, calls: bool = False) -> bytes:
        line: dict[str, Any] = {"model": self._job.asked_name, "created_at": timestamp()}
        if self._chat:
            line["message"] = {"role": "assistant", "content": text}
            if calls and self._calls:
                line["message"]["tool_calls"] = [
                    {"function": {"name": c["name"], "arguments": _arguments(c["arguments"])}}
                    for _, c in sorted(self._calls.items())
                ]
        else:
            line["response"] = text
        return encode({**line, **rest}) + b"\n"

    def _final(self) -> dict[str, Any]:
        reason = "length" if self._outcome.finish_reason == "length" else "stop"
        return {"done": True, "done_reason": reason, **self._outcome.durations()}


def timestamp() -> str:
    """Now, as Ollama writes it: RFC 3339, UTC."""
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def _visible(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event without what describes the engine's host, paths and speed."""
    return {key: value for key, value in event.items() if key not in HIDDEN}


def _arguments(text: str) -> Any:
    """Arguments as an object; a model that wrote no JSON object gets its text shown as it is."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"_raw": text}
    return value if isinstance(value, dict) else {"_raw": text}
