"""Answers of `/v1/messages`: content blocks, streamed as Anthropic's named events."""

from __future__ import annotations

import secrets
from typing import Any

from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError, Surface, render_problem
from edgekit.gateway.surfaces.parts import Change, Kind, Part, Parts, Step
from edgekit.gateway.surfaces.translator import encode, read_arguments

_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}


class AnthropicTranslator:
    """One message. Reasoning is shown only to a client that asked for thinking."""

    def __init__(self, job: Job, outcome: Outcome) -> None:
        self.content_type = "text/event-stream" if job.stream else "application/json"
        self._job = job
        self._outcome = outcome
        self._parts = Parts()
        self._id = f"msg_{secrets.token_hex(12)}"
        self._shown: list[Part] = []
        self._begun = False

    def event(self, event: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        return self._begin() + b"".join(self._step(step) for step in self._parts.feed(event))

    def last(self) -> bytes:
        data = self._begin() + b"".join(self._step(step) for step in self._parts.end())
        ending = {"stop_reason": self._stop_reason(), "stop_sequence": None}
        data += _send("message_delta", delta=ending, usage=self._usage())
        return data + _send("message_stop")

    def whole(self, answer: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        for step in self._parts.feed(answer):
            self._step(step)
        return encode(
            {
                **self._message(),
                "content": [_block(part, whole=True) for part in self._shown],
                "stop_reason": self._stop_reason(),
                "usage": self._usage(),
            }
        )

    def broken(self, error: ApiError) -> bytes:
        return b"event: error\ndata: " + render_problem(error, Surface.ANTHROPIC) + b"\n\n"

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _send("message_start", message=self._message())

    def _step(self, step: Step) -> bytes:
        change, part, text = step
        if part.kind is Kind.REASONING and not self._job.echo["thinking"]:
            return b""
        if change is Change.OPENED:
            self._shown.append(part)
        index = next(i for i, shown in enumerate(self._shown) if shown is part)
        if change is Change.OPENED:
            return _send(
                "content_block_start", index=index, content_block=_block(part, whole=False)
            )
        if change is Change.CLOSED:
            return _send("content_block_stop", index=index)
        return _send("content_block_delta", index=index, delta=_delta(part, text))

    def _message(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._job.asked_name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def _stop_reason(self) -> str:
        if any(part.kind is Kind.CALL for part in self._shown):
            return "tool_use"
        return _STOP_REASONS.get(self._outcome.finish_reason or "", "end_turn")

    def _usage(self) -> dict[str, int]:
        usage = self._outcome.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
        }


def _send(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + encode({"type": kind, **fields}) + b"\n\n"


def _block(part: Part, *, whole: bool) -> dict[str, Any]:
    """A content block: empty when it opens in a stream, with everything in a whole answer."""
    value = part.value if whole else ""
    if part.kind is Kind.TEXT:
        return {"type": "text", "text": value}
    if part.kind is Kind.REASONING:
        return {"type": "thinking", "thinking": value, "signature": ""}
    return {
        "type": "tool_use",
        "id": part.call_id,
        "name": part.name,
        "input": read_arguments(value),
    }


def _delta(part: Part, text: str) -> dict[str, Any]:
    if part.kind is Kind.TEXT:
        return {"type": "text_delta", "text": text}
    if part.kind is Kind.REASONING:
        return {"type": "thinking_delta", "thinking": text}
    return {"type": "input_json_delta", "partial_json": text}
