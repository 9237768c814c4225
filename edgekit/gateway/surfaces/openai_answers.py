"""Answers of `/v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError, Surface, render_problem
from edgekit.gateway.surfaces.translator import encode

SHOWN = ("object", "system_fingerprint")
"""What is taken over from the engine's events beside their choices: nothing else is known to be
free of its host, paths and speed."""


class OpenAiTranslator:
    """OpenAI's chunks: one id, one created and the model name as asked, on every chunk.

    Order (research/serving.md 2.1): role, content.., finish, usage if asked for, [DONE].
    """

    def __init__(self, job: Job, outcome: Outcome) -> None:
        self.content_type = "text/event-stream" if job.stream else "application/json"
        self._job = job
        self._outcome = outcome
        self._chat = job.endpoint == "/v1/chat/completions"
        self._tail = b""
        self._offsets: defaultdict[int, int] = defaultdict(int)
        prefix = "chatcmpl-" if self._chat else "cmpl-"
        self._marks = {
            "id": prefix + secrets.token_hex(12),
            "created": int(time.time()),
            "model": job.asked_name,
        }

    def event(self, event: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        if not event.get("choices"):
            return b""  # the engine's usage chunk: ours follows in `last`
        self._rewrite(event)
        if not self._tail:  # the same behind every chunk
            self._tail = b"," + encode({**_shown(event), **self._marks})[1:] + b"\n\n"
        return b'data: {"choices":' + encode(event["choices"]) + self._tail

    def last(self) -> bytes:
        data = b"data: [DONE]\n\n"
        if self._job.include_usage:
            kind = "chat.completion.chunk" if self._chat else "text_completion"
            chunk = {**self._marks, "object": kind, "choices": [], "usage": self._outcome.usage()}
            data = b"data: " + encode(chunk) + b"\n\n" + data
        return data

    def whole(self, answer: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        self._rewrite(answer)
        choices = {"choices": answer.get("choices", [])}
        usage = {"usage": self._outcome.usage()}
        return encode({**choices, **_shown(answer), **self._marks, **usage})

    def _rewrite(self, event: dict[str, Any]) -> None:
        """Probabilities of `/v1/completions` in the shape of that call; chat's stay as they are."""
        if self._chat or self._job.echo["logprobs"] is None:
            return
        for choice in event.get("choices") or ():
            tokens = (choice.get("logprobs") or {}).get("content")
            if tokens:
                choice["logprobs"] = self._legacy(choice["index"], tokens)

    def _legacy(self, index: int, tokens: list[dict[str, Any]]) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token["token"])
        return {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [
                {other["token"]: other["logprob"] for other in token["top_logprobs"]}
                for token in tokens
            ],
            "text_offset": offsets,
        }

    def broken(self, error: ApiError) -> bytes:
        return b"data: " + render_problem(error, Surface.OPENAI) + b"\n\n"


def _shown(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: event[key] for key in SHOWN if key in event}
