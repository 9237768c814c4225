"""Answers of `/api/chat` and `/api/generate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError, Surface, render_problem
from edgekit.gateway.surfaces.ollama_context import make_context
from edgekit.gateway.surfaces.translator import encode, read_arguments, timestamp


class OllamaTranslator:
    """Ollama's lines: text as it comes, tool calls whole, counts and durations on the last."""

    def __init__(self, job: Job, outcome: Outcome) -> None:
        self.content_type = "application/x-ndjson" if job.stream else "application/json"
        self._job = job
        self._outcome = outcome
        self._chat = job.endpoint == "/api/chat"
        self._calls: dict[int, dict[str, str]] = {}
        self._conversation = job.echo["conversation"]
        self._answer: list[str] = []

    def event(self, event: dict[str, Any], text: str) -> bytes:
        choice = (event.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        self._collect(delta.get("tool_calls") or ())
        more = self._extras(choice, delta)
        if self._conversation:
            self._answer.append(text)
        return self._line(text, {**more, "done": False}) if text or more else b""

    def last(self) -> bytes:
        lines = b""
        if self._calls:
            lines = self._line("", {"done": False}, calls=True)
        return lines + self._line("", self._final())

    def whole(self, answer: dict[str, Any], text: str) -> bytes:
        choice = answer["choices"][0]
        message = choice.get("message") or {}
        self._collect(message.get("tool_calls") or ())
        more = self._extras(choice, message)
        self._answer.append(text)
        return self._line(text, {**more, **self._final()}, calls=True)

    def broken(self, error: ApiError) -> bytes:
        return render_problem(error, Surface.OLLAMA) + b"\n"

    def _extras(self, choice: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
        """Reasoning, and the probabilities of tokens where they were asked for."""
        extras: dict[str, Any] = {}
        thought = part.get("reasoning_content") or part.get("reasoning")
        if thought and self._job.echo["thinking"]:
            extras["thinking"] = thought
        if tokens := (choice.get("logprobs") or {}).get("content"):
            extras["logprobs"] = [_probability(token) for token in tokens]
        return extras

    def _collect(self, calls: Any) -> None:
        """Put the pieces of streamed tool calls together, by index."""
        for position, call in enumerate(calls):
            kept = self._calls.setdefault(
                call.get("index", position), {"name": "", "arguments": ""}
            )
            function = call.get("function") or {}
            kept["name"] += function.get("name") or ""
            kept["arguments"] += function.get("arguments") or ""

    def _line(self, text: str, rest: dict[str, Any], *, calls: bool = False) -> bytes:
        line: dict[str, Any] = {"model": self._job.asked_name, "created_at": timestamp()}
        if self._chat:
            line["message"] = {"role": "assistant", "content": text}
            if "thinking" in rest:
                line["message"]["thinking"] = rest.pop("thinking")
            if calls and self._calls:
                line["message"]["tool_calls"] = [
                    {"function": {"name": c["name"], "arguments": read_arguments(c["arguments"])}}
                    for _, c in sorted(self._calls.items())
                ]
        else:
            line["response"] = text
        return encode({**line, **rest}) + b"\n"

    def _final(self) -> dict[str, Any]:
        reason = "length" if self._outcome.finish_reason == "length" else "stop"
        final = {"done": True, "done_reason": reason, **self._outcome.durations()}
        if self._conversation:
            answer = {"role": "assistant", "content": "".join(self._answer)}
            final["context"] = make_context([*self._conversation, answer])
        return final


def _probability(token: Mapping[str, Any]) -> dict[str, Any]:
    """A token's probability as Ollama writes it; the alternatives only where there are any."""
    kept = {key: token[key] for key in ("token", "logprob", "bytes") if key in token}
    top = token.get("top_logprobs")
    return {**kept, "top_logprobs": [_probability(other) for other in top]} if top else kept
