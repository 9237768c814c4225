"""Answers of `/v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError, Surface, render_problem
from edgekit.gateway.surfaces.translator import encode

HIDDEN = ("timings", "usage", "id", "created", "model", "__verbose")


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
        return b"data: " + render_problem(error, Surface.OPENAI) + b"\n\n"


def _visible(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event without what describes the engine's host, paths and speed."""
    return {key: value for key, value in event.items() if key not in HIDDEN}
