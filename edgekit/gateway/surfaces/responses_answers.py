"""Answers of `/v1/responses`: output items, streamed as OpenAI's named and numbered events."""

from __future__ import annotations

import secrets
import time
from typing import Any

from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError
from edgekit.gateway.surfaces.parts import Change, Kind, Part, Parts, Step
from edgekit.gateway.surfaces.translator import encode

_PREFIXES = {Kind.REASONING: "rs_", Kind.TEXT: "msg_", Kind.CALL: "fc_"}
_DELTAS = {
    Kind.REASONING: "response.reasoning_text.delta",
    Kind.TEXT: "response.output_text.delta",
    Kind.CALL: "response.function_call_arguments.delta",
}


class ResponsesTranslator:
    """One response. An answer cut by its token limit is `incomplete`, as OpenAI says it."""

    def __init__(self, job: Job, outcome: Outcome) -> None:
        self.content_type = "text/event-stream" if job.stream else "application/json"
        self._job = job
        self._outcome = outcome
        self._parts = Parts()
        self._token = secrets.token_hex(16)
        self._created = int(time.time())
        self._number = 0

    def event(self, event: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        data = b"" if self._number else self._begin()
        return data + b"".join(self._step(step) for step in self._parts.feed(event))

    def last(self) -> bytes:
        data = b"" if self._number else self._begin()
        data += b"".join(self._step(step) for step in self._parts.end())
        response = self._response(self._status())
        return data + self._send(f"response.{response['status']}", response=response)

    def whole(self, answer: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        for _ in self._parts.feed(answer):
            pass
        return encode(self._response(self._status()))

    def broken(self, error: ApiError) -> bytes:
        response = self._response("failed")
        response["error"] = {"code": "server_error", "message": error.message}
        problem = {"code": error.code, "message": error.message, "param": error.param}
        return self._send("error", **problem) + self._send("response.failed", response=response)

    def _begin(self) -> bytes:
        response = self._response("in_progress")
        return self._send("response.created", response=response) + self._send(
            "response.in_progress", response=response
        )

    def _step(self, step: Step) -> bytes:
        change, part, text = step
        if change is Change.OPENED:
            return self._opened(part)
        if change is Change.CLOSED:
            return self._closed(part)
        more: dict[str, Any] = {"logprobs": []} if part.kind is Kind.TEXT else {}
        return self._send(_DELTAS[part.kind], **self._place(part), delta=text, **more)

    def _opened(self, part: Part) -> bytes:
        item = self._item(part, "in_progress")
        if part.kind is Kind.TEXT:
            item["content"] = []
        data = self._send("response.output_item.added", output_index=part.index, item=item)
        if part.kind is Kind.TEXT:
            data += self._send(
                "response.content_part.added", **self._place(part), part=_content(part)
            )
        return data

    def _closed(self, part: Part) -> bytes:
        place = self._place(part)
        if part.kind is Kind.TEXT:
            data = self._send(
                "response.output_text.done", **place, text=part.value, logprobs=[]
            ) + self._send("response.content_part.done", **place, part=_content(part))
        elif part.kind is Kind.REASONING:
            data = self._send("response.reasoning_text.done", **place, text=part.value)
        else:
            data = self._send(
                "response.function_call_arguments.done",
                **place,
                name=part.name,
                arguments=part.value,
            )
        item = self._item(part, "completed")
        return data + self._send("response.output_item.done", output_index=part.index, item=item)

    def _place(self, part: Part) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": self._item_id(part), "output_index": part.index}
        return place if part.kind is Kind.CALL else {**place, "content_index": 0}

    def _send(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: ".encode() + encode(event) + b"\n\n"

    def _item_id(self, part: Part) -> str:
        return f"{_PREFIXES[part.kind]}{self._token[:24]}{part.index}"

    def _item(self, part: Part, status: str) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._item_id(part), "status": status}
        if part.kind is Kind.CALL:
            return {
                **item,
                "type": "function_call",
                "call_id": part.call_id,
                "name": part.name,
                "arguments": part.value,
            }
        if part.kind is Kind.REASONING:
            content = [{"type": "reasoning_text", "text": part.value}]
            return {**item, "type": "reasoning", "summary": [], "content": content}
        return {**item, "type": "message", "role": "assistant", "content": [_content(part)]}

    def _status(self) -> str:
        return "incomplete" if self._outcome.finish_reason == "length" else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        done = status != "in_progress"
        last = len(self._parts.parts) - 1
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{self._token}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "model": self._job.asked_name,
            "output": [
                self._item(part, "incomplete" if cut and part.index == last else "completed")
                for part in self._parts.parts
            ],
            **self._job.echo,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "truncation": "disabled",
            "metadata": {},
            "usage": self._usage() if done else None,
        }

    def _usage(self) -> dict[str, Any]:
        usage = self._outcome.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }


def _content(part: Part) -> dict[str, Any]:
    return {"type": "output_text", "text": part.value, "annotations": [], "logprobs": []}
