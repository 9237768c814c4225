"""`/v1/messages` request bodies to jobs: Anthropic's blocks as the engine's chat messages."""

from __future__ import annotations

import json
from typing import Any

from edgekit.core.appliance import Appliance
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    CHAT_TARGET,
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_PARTS,
    MAX_TEXT_CHARS,
    Job,
    audit_params,
    digest_input,
    find_able,
    take_text_parts,
)
from edgekit.gateway.problems import ApiError, bad_field
from edgekit.gateway.surfaces.openai_requests import MAX_TOOLS, check_response_format

IGNORED = frozenset(
    {
        "cache_control",
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "metadata",
        "service_tier",
        "speed",
        "user_profile_id",
        "workspace_id",
    }
)
"""About Anthropic's own service: accepted without effect."""

TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def parse_messages(body: Body, appliance: Appliance) -> Job:
    """A `/v1/messages` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    limit = body.integer("max_tokens", 1, 1 << 31)
    if limit is None:
        raise bad_field("max_tokens", "is required")
    thinking = _thinking(body)
    messages = [*_system(body), *_messages(body)]
    tools = _tools(body)
    fields = {
        "max_tokens": min(limit, model.context),
        "temperature": body.number("temperature", 0, 1),
        "top_p": body.number("top_p", 0, 1),
        "top_k": body.integer("top_k", 0, 1000),
        "stop": body.stops("stop_sequences"),
        "tools": tools or None,
        "response_format": _output_format(body),
        **_tool_choice(body, tools),
    }
    fields = {key: value for key, value in fields.items() if value is not None}
    stream = body.flag("stream", default=False)
    body.ignore(IGNORED)
    body.finish()
    return Job(
        endpoint="/v1/messages",
        model=model,
        asked_name=name,
        stream=stream,
        include_usage=True,
        target=CHAT_TARGET,
        body={"messages": messages, **fields},
        params=audit_params(fields),
        prompt=digest_input(messages),
        echo={"thinking": thinking},
    )


def _thinking(body: Body) -> bool:
    """Whether reasoning is shown to the client; its budget is the model's own."""
    thinking = body.table("thinking")
    if thinking is None:
        return False
    kind = thinking.text("type", max_chars=20)
    if kind not in ("enabled", "disabled", "adaptive"):
        raise bad_field("thinking.type", "must be enabled, disabled or adaptive")
    thinking.integer("budget_tokens", 1, 1 << 31)
    thinking.ignore(frozenset({"display"}))
    thinking.finish()
    return kind != "disabled"


def _output_format(body: Body) -> dict[str, Any] | None:
    config = body.table("output_config")
    if config is None:
        return None
    wanted = config.table("format")
    config.ignore(frozenset({"effort", "task_budget"}))
    config.finish()
    if wanted is None:
        return None
    if wanted.text("type", max_chars=40) != "json_schema":
        raise bad_field("output_config.format.type", "must be json_schema")
    schema = wanted.capped("schema", dict)
    wanted.finish()
    return check_response_format(
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    )


def _system(body: Body) -> list[dict[str, Any]]:
    value = body.raw("system")
    if not value:
        return []
    return [{"role": "system", "content": take_text_parts(value, "system")}]


def _messages(body: Body) -> list[dict[str, Any]]:
    values = body.items("messages", max_items=MAX_MESSAGES)
    if not values:
        raise bad_field("messages", f"must be 1 to {MAX_MESSAGES} messages")
    messages: list[dict[str, Any]] = []
    for index, value in enumerate(values):
        messages += _message(Body(value, f"messages[{index}]"))
    return messages


def _message(reader: Body) -> list[dict[str, Any]]:
    """One message; a user's tool results become messages of their own, before its text."""
    role = reader.text("role", max_chars=20)
    if role not in ("user", "assistant"):
        raise bad_field(reader.name("role"), "must be user or assistant")
    content = reader.raw("content")
    reader.finish()
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list) or not 0 < len(content) <= MAX_PARTS:
        raise bad_field(reader.name("content"), f"must be a text or 1 to {MAX_PARTS} blocks")
    blocks = _Blocks()
    for index, value in enumerate(content):
        blocks.add(role, Body(value, f"{reader.name('content')}[{index}]"))
    return blocks.messages(role)


class _Blocks:
    """The blocks of one message, by what they become."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []

    def add(self, role: str, block: Body) -> None:
        """Take one block. Raises ApiError for what this role may not send, and for media."""
        kind = block.text("type", max_chars=40)
        block.ignore(frozenset({"cache_control", "citations"}))
        if kind == "text":
            self._texts.append(block.text("text", max_chars=MAX_TEXT_CHARS))
        elif kind == "tool_use" and role == "assistant":
            self._calls.append(_call(block))
        elif kind == "tool_result" and role == "user":
            self._results.append(_result(block))
        elif kind in ("thinking", "redacted_thinking") and role == "assistant":
            block.ignore(frozenset({"thinking", "signature", "data"}))
        else:
            raise ApiError(
                400, "unsupported_content", f"{block.name('type')}: not supported", param="messages"
            )
        block.finish()

    def messages(self, role: str) -> list[dict[str, Any]]:
        """As chat messages, in the order the engine expects them."""
        text = "\n".join(self._texts)
        if self._calls:
            return [{"role": role, "content": text or None, "tool_calls": self._calls}]
        if self._results and not text:
            return self._results
        return [*self._results, {"role": role, "content": text}]


def _call(block: Body) -> dict[str, Any]:
    arguments = block.capped("input", dict, max_bytes=1 << 20) or {}
    return {
        "id": block.text("id", max_chars=200),
        "type": "function",
        "function": {
            "name": block.text("name", max_chars=200),
            "arguments": json.dumps(arguments, ensure_ascii=False),
        },
    }


def _result(block: Body) -> dict[str, Any]:
    content = block.raw("content")
    block.flag("is_error", default=False)
    return {
        "role": "tool",
        "tool_call_id": block.text("tool_use_id", max_chars=200),
        "content": "" if content is None else take_text_parts(content, block.name("content")),
    }


def _tools(body: Body) -> list[dict[str, Any]]:
    values = body.items("tools", max_items=MAX_TOOLS) or []
    return [_tool(Body(value, f"tools[{index}]")) for index, value in enumerate(values)]


def _tool(reader: Body) -> dict[str, Any]:
    if reader.text("type", max_chars=60, default="custom") != "custom":
        raise bad_field(reader.name("type"), "must be custom: no server tool exists here")
    function = {
        "name": reader.text("name", max_chars=200),
        "description": reader.text("description", max_chars=64 << 10, default=""),
        "parameters": reader.capped("input_schema", dict) or {"type": "object"},
    }
    reader.ignore(frozenset({"cache_control", "strict"}))
    reader.finish()
    return {"type": "function", "function": function}


def _tool_choice(body: Body, tools: list[dict[str, Any]]) -> dict[str, Any]:
    choice = body.table("tool_choice")
    if choice is None:
        return {}
    kind = choice.text("type", max_chars=20)
    name = choice.text("name", max_chars=200, default="")
    parallel = not choice.flag("disable_parallel_tool_use", default=False)
    choice.finish()
    if not tools:
        return {}
    if kind == "tool" and name:
        return {
            "tool_choice": {"type": "function", "function": {"name": name}},
            "parallel_tool_calls": parallel,
        }
    if kind not in TOOL_CHOICES:
        raise bad_field("tool_choice.type", "must be auto, any, none or tool with a name")
    return {"tool_choice": TOOL_CHOICES[kind], "parallel_tool_calls": parallel}
