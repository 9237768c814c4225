"""A model with a TEMPLATE of its own: its conversations as prompts, and answers as chat again.

The engine is asked to continue a text, as it does not know the template. So everything that it
does by the template of the weights is refused: tools, and reasoning apart from the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgekit.core.ollama_template import Message, Template
from edgekit.errors import EngineError, EngineNotReadyError
from edgekit.gateway.dialects import Asked
from edgekit.gateway.engine_client import EngineClient, EngineConnection
from edgekit.gateway.job import (
    CHAT_TARGET,
    COUNT_TARGET,
    TEXT_TARGET,
    TOKENIZE_TARGET,
    Job,
    rendering,
    template_of,
    today,
)
from edgekit.gateway.problems import ApiError
from edgekit.gateway.surfaces.tool_fields import schema_of

_CHAT_ONLY = frozenset(
    {"messages", "chat_template_kwargs", "tools", "tool_choice", "parallel_tool_calls"}
)
_ROLES = ("system", "user", "assistant")
_IDLE = (None, "none", "auto")
"""Choices between no tools."""


async def with_template(job: Job) -> Job:
    """The same job with its conversation as one prompt, where its model has a TEMPLATE.

    Raises ApiError 400 for what goes with the template of the weights alone. The work is done in a
    thread: a template may take some milliseconds for a long conversation.
    """
    template = template_of(job.model)
    if template is None or job.target not in (CHAT_TARGET, COUNT_TARGET):
        return job
    messages = _texts(job)
    prompt = await asyncio.to_thread(_render, template, messages, job.body)
    body = {**_text_fields(job.body), "prompt": prompt}
    return replace(job, body=body, rendered=True, messages=job.body["messages"])


def _render(template: Template, messages: list[Message], body: Mapping[str, Any]) -> str:
    says_think = "enable_thinking" in body.get("chat_template_kwargs", {})
    with rendering():
        return template.prompt(messages, today(), think_is_set=says_think)


def _texts(job: Job) -> list[Message]:
    """Role and text of each message. Raises ApiError 400."""
    body, messages = job.body, job.body["messages"]
    calls = any(message.get("tool_calls") for message in messages)
    others = any(message["role"] not in _ROLES for message in messages)
    if calls or others or body.get("tools") or body.get("tool_choice") not in _IDLE:
        raise ApiError(
            400,
            "unsupported",
            f"{job.asked_name[:100]!r} does not support tools: it has a TEMPLATE of its own",
            param="tools",
        )
    return [(message["role"], message["content"] or "") for message in messages]


def _text_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat's fields as those of a text."""
    fields = {name: value for name, value in body.items() if name not in _CHAT_ONLY}
    if (wanted := fields.pop("response_format", None)) is not None:
        fields["json_schema"] = schema_of(wanted)
    top = fields.pop("top_logprobs", 0)
    if fields.pop("logprobs", False):
        fields["logprobs"] = max(1, top)
    return fields


async def as_text(
    job: Job, fields: dict[str, Any], client: EngineClient, connection: EngineConnection | None
) -> Asked:
    """What the engine is asked for a job whose prompt is rendered.

    Raises EngineError, EngineNotReadyError.
    """
    prompt = fields["prompt"].removeprefix(await _beginning(client, connection))
    if job.target == COUNT_TARGET:
        return TOKENIZE_TARGET, {"content": prompt, "add_special": True, "parse_special": True}
    return TEXT_TARGET, {**fields, "prompt": prompt}


async def _beginning(client: EngineClient, connection: EngineConnection | None) -> str:
    """The text of the token that the engine puts before every prompt; it must not be there twice.

    Only the engine knows: its file may say so, or leave it to the kind of vocabulary.
    """
    body = json.dumps({"content": "", "add_special": True, "with_pieces": True}).encode()
    response = await client.request("POST", TOKENIZE_TARGET, body, connection)
    try:
        data = await response.read()
        if response.status == 503:
            raise EngineNotReadyError("the engine still loads its model")
        tokens = json.loads(data)["tokens"]
        piece = tokens[0]["piece"] if tokens else ""
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError("the engine's tokens have an unknown shape") from error
    finally:
        response.close()
    return piece if isinstance(piece, str) else ""


def as_chat(job: Job, answer: dict[str, Any]) -> dict[str, Any]:
    """The engine's whole answer as the chat that was asked for. Raises EngineError."""
    if job.target == TEXT_TARGET:
        return answer
    try:
        if job.target == COUNT_TARGET:
            return {"input_tokens": len(answer["tokens"])}
        choices = [
            {**_kept(choice), "message": {"role": "assistant", "content": choice["text"]}}
            for choice in answer["choices"]
        ]
    except (KeyError, TypeError) as error:
        raise EngineError("the engine's answer has an unknown shape") from error
    return {**answer, "object": "chat.completion", "choices": choices}


class ChatStream:
    """The events of one streamed answer as those of a chat."""

    def __init__(self, job: Job) -> None:
        self._chat = job.target == CHAT_TARGET
        self._begun = False

    def events(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """What this event is in a chat; before the first, the one that names the role."""
        if not self._chat or "error" in event:
            return [event]
        choices = event.get("choices") or []
        told: dict[str, Any] = {**event, "object": "chat.completion.chunk", "choices": [
            {**_kept(choice), "delta": {"content": choice["text"]} if choice.get("text") else {}}
            for choice in choices
            if choice.get("text") or choice.get("finish_reason")
        ]}
        if self._begun or not choices:
            return [told]
        self._begun = True
        role = {"role": "assistant", "content": None}
        first = {"index": choices[0].get("index", 0), "finish_reason": None, "delta": role}
        return [{**told, "choices": [first]}, told]


def _kept(choice: Mapping[str, Any]) -> dict[str, Any]:
    """What a choice of a text has in common with one of a chat."""
    kept = {"index": choice.get("index", 0), "finish_reason": choice.get("finish_reason")}
    if choice.get("logprobs"):
        kept["logprobs"] = choice["logprobs"]
    return kept
