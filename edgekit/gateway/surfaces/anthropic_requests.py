"""`/v1/messages` request bodies to jobs: Anthropic's blocks as the engine's chat messages."""

from __future__ import annotations

import json
from typing import Any

from edgekit.core.appliance import Appliance
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    CHAT_TARGET,
    COUNT_TARGET,
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_PARTS,
    MAX_TEXT_CHARS,
    MAX_TOOLS,
    Job,
    audit_params,
    digest_input,
    find_able,
    take_text,
)
from edgekit.gateway.problems import ApiError, bad_field
from edgekit.gateway.schema_limits import check_schema
from edgekit.gateway.surfaces.content import BASE64, base64_part, joined
from edgekit.gateway.surfaces.tool_fields import check_response_format

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

BLOCKS = ("text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking")
TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def parse_messages(body: Body, appliance: Appliance) -> Job:
    """A `/v1/messages` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    limit = body.count("max_tokens", 1, 1 << 31)
    messages, fields, thinking = _conversation(body)
    fields |= {
        "max_tokens": min(limit, model.context),
        "temperature": body.number("temperature", 0, 1),
        "top_p": body.number("top_p", 0, 1),
        "top_k": body.integer("top_k", 0, 1000),
        "stop": body.stops("stop_sequences"),
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


def parse_count(body: Body, appliance: Appliance) -> Job:
    """A `/v1/messages/count_tokens` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    messages, fields, _ = _conversation(body)
    body.ignore(IGNORED)
    body.finish()
    tools = fields["tools"]
    return Job(
        endpoint="/v1/messages/count_tokens",
        model=model,
        asked_name=name,
        stream=False,
        include_usage=False,
        target=COUNT_TARGET,
        body={"messages": messages, **({"tools": tools} if tools else {})},
        params={},
        prompt=digest_input(messages),
    )


def _conversation(body: Body) -> tuple[list[dict[str, Any]], dict[str, Any], bool]:
    """What both calls share: messages, the engine's fields, and whether reasoning is shown."""
    thinking = _thinking(body)
    messages = [*_system(body), *_messages(body)]
    tools = _tools(body)
    fields = {
        "tools": tools or None,
        "response_format": _output_format(body),
        **_tool_choice(body, tools),
    }
    return messages, fields, thinking


def _thinking(body: Body) -> bool:
    """Whether reasoning is shown to the client; its budget is the model's own."""
    thinking = body.table("thinking")
    if thinking is None:
        return False
    kind = thinking.choice("type", ("enabled", "disabled", "adaptive"))
    thinking.ignore(frozenset({"budget_tokens", "display"}))
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
    wanted.choice("type", ("json_schema",))
    schema = wanted.capped("schema", dict)
    wanted.finish()
    return check_response_format(
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    )


def _system(body: Body) -> list[dict[str, Any]]:
    text = take_text(body, "system")
    return [{"role": "system", "content": text}] if text else []


def _messages(body: Body) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for reader in body.tables("messages", max_items=MAX_MESSAGES, required=True):
        messages += _message(reader)
    return messages


def _message(reader: Body) -> list[dict[str, Any]]:
    """One message; a user's tool results become messages of their own, before its text."""
    role = reader.choice("role", ("user", "assistant"))
    content = reader.raw("content", {"type": "string"}, required=True)
    reader.finish()
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list) or not 0 < len(content) <= MAX_PARTS:
        raise bad_field(reader.name("content"), f"must be a text or 1 to {MAX_PARTS} blocks")
    blocks = _Blocks()
    for block in reader.parts("content", content):
        blocks.add(role, block)
    return blocks.messages(role)


class _Blocks:
    """The blocks of one message, by what they become."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []

    def add(self, role: str, block: Body) -> None:
        """Take one block. Raises ApiError for what this role may not send, and for media."""
        kind = block.raw("type", {"enum": [*BLOCKS]}, required=True)
        block.ignore(frozenset({"cache_control", "citations"}))
        if kind == "text":
            text = block.text("text", max_chars=MAX_TEXT_CHARS)
            self._parts.append({"type": "text", "text": text})
        elif kind == "image" and role == "user":
            self._parts.append(_picture(block))
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
        content = joined(self._parts)
        if self._calls:
            return [{"role": role, "content": content or None, "tool_calls": self._calls}]
        if self._results and not content:
            return self._results
        return [*self._results, {"role": role, "content": content}]


def _picture(block: Body) -> dict[str, Any]:
    """An image with its bytes in it; what would have to be fetched is refused."""
    source = block.whole_table("source")
    if source.raw("type", {"const": "base64"}, required=True) != "base64":
        raise bad_field(source.name("type"), "must be base64; this appliance fetches nothing")
    source.text("media_type", max_chars=60)
    part = base64_part(source.raw("data", BASE64, required=True), source.name("data"))
    source.finish()
    return part


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
    block.ignore(frozenset({"is_error"}))
    return {
        "role": "tool",
        "tool_call_id": block.text("tool_use_id", max_chars=200),
        "content": take_text(block, "content") or "",
    }


def _tools(body: Body) -> list[dict[str, Any]]:
    return [_tool(reader) for reader in body.tables("tools", max_items=MAX_TOOLS)]


def _tool(reader: Body) -> dict[str, Any]:
    reader.only("type", "custom", why="must be custom: no server tool exists here")
    schema = reader.capped("input_schema", dict) or {"type": "object"}
    check_schema(schema, reader.name("input_schema"))
    function = {
        "name": reader.text("name", max_chars=200),
        "description": reader.text("description", max_chars=64 << 10, default=""),
        "parameters": schema,
    }
    reader.ignore(frozenset({"cache_control", "strict"}))
    reader.finish()
    return {"type": "function", "function": function}


def _tool_choice(body: Body, tools: list[dict[str, Any]]) -> dict[str, Any]:
    choice = body.table("tool_choice")
    if choice is None:
        return {}
    kind = choice.choice("type", (*TOOL_CHOICES, "tool"))
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
    if kind == "tool":
        raise bad_field("tool_choice.name", "is required")
    return {"tool_choice": TOOL_CHOICES[kind], "parallel_tool_calls": parallel}
