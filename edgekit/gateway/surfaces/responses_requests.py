"""`/v1/responses` request bodies to jobs: stateless, translated to the engine's chat."""

from __future__ import annotations

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
    MAX_TOOLS_BYTES,
    Job,
    audit_params,
    digest_input,
    find_able,
    take_role,
    take_text,
)
from edgekit.gateway.problems import ApiError, bad_field
from edgekit.gateway.surfaces.content import Content, take_content
from edgekit.gateway.surfaces.openai_requests import MAX_ARGUMENTS_CHARS
from edgekit.gateway.surfaces.tool_fields import (
    FUNCTION,
    TOOL_CHOICES,
    check_response_format,
    check_tool_choice,
    take_function,
)

IGNORED = frozenset(
    {
        "include",
        "max_tool_calls",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "truncation",
        "user",
    }
)
"""Accepted without effect: nothing is stored, and nothing is cut from a prompt unasked."""

ITEMS = ("message", "function_call", "function_call_output", "reasoning")
TEXT_PARTS = ("input_text", "output_text", "text")
FUNCTIONS = {
    "items": {
        "type": "object",
        "required": ["type", "name"],
        "properties": {"type": {"const": "function"}, **FUNCTION["properties"]},
    },
    "maxItems": MAX_TOOLS,
}
TOOL_CHOICE = {
    "anyOf": [
        {"enum": list(TOOL_CHOICES)},
        {
            "type": "object",
            "required": ["type", "name"],
            "properties": {
                "type": {"const": "function"},
                "name": {"type": "string", "maxLength": 200},
            },
            "additionalProperties": False,
        },
    ]
}
FORMAT = {
    "oneOf": [
        {"required": ["type"], "properties": {"type": {"enum": ["text"]}}},
        {
            "required": ["type"],
            "properties": {"type": {"const": "json_object"}, "schema": {}},
            "additionalProperties": False,
        },
        {
            "required": ["type", "schema"],
            "properties": {"type": {"const": "json_schema"}, "schema": {"type": "object"}},
        },
    ]
}


def parse_responses(body: Body, appliance: Appliance) -> Job:
    """A `/v1/responses` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    messages, conversation = _conversation(body)
    asked = {
        **conversation,
        "max_output_tokens": body.integer("max_output_tokens", 1, model.context),
        "temperature": body.number("temperature", 0, 2),
        "top_p": body.number("top_p", 0, 1),
    }
    fields = _engine_fields(asked, model.context)
    stream = body.flag("stream", default=False)
    body.only("top_logprobs", 0, why="is not supported here; use /v1/chat/completions")
    body.ignore(IGNORED)
    body.finish()
    return Job(
        endpoint="/v1/responses",
        model=model,
        asked_name=name,
        stream=stream,
        include_usage=True,
        target=CHAT_TARGET,
        body={"messages": messages, **fields},
        params=audit_params(fields),
        prompt=digest_input(messages),
        echo=asked,
    )


def parse_count(body: Body, appliance: Appliance) -> Job:
    """A `/v1/responses/input_tokens` body: a conversation to be counted. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    messages, asked = _conversation(body)
    body.ignore(frozenset({"personality", "truncation"}))
    body.finish()
    tools = _chat_tools(asked["tools"])
    return Job(
        endpoint="/v1/responses/input_tokens",
        model=model,
        asked_name=name,
        stream=False,
        include_usage=False,
        target=COUNT_TARGET,
        body={"messages": messages, **({"tools": tools} if tools else {})},
        params={},
        prompt=digest_input(messages),
    )


def _conversation(body: Body) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What both calls share: messages, and the fields that answers repeat."""
    _only_stateless(body)
    instructions = body.text("instructions", max_chars=MAX_TEXT_CHARS, default="")
    messages = _input(body)
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    _ignore_reasoning(body)
    return messages, {
        "instructions": instructions or None,
        "tools": _tools(body),
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": body.flag("parallel_tool_calls", default=True),
        "text": _text_format(body),
    }


def _only_stateless(body: Body) -> None:
    why = "needs stored responses; this appliance keeps none: send the whole conversation as input"
    for key in ("previous_response_id", "conversation", "prompt"):
        if body.raw(key, {"type": "null"}) is not None:
            raise ApiError(400, "unsupported", f"{key}: {why}", param=key)
    body.only("background", False, why="only false is supported")


def _input(body: Body) -> list[dict[str, Any]]:
    value = body.raw("input", {"type": "string", "minLength": 1}, required=True)
    if isinstance(value, str) and value:
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise bad_field("input", f"must be a text or 1 to {MAX_MESSAGES} items")
    messages: list[dict[str, Any]] = []
    for item in body.parts("input", value):
        _add_item(messages, item)
    return messages


def _add_item(messages: list[dict[str, Any]], reader: Body) -> None:
    kind = reader.raw("type", {"enum": [*ITEMS]}) or "message"
    reader.ignore(frozenset({"id", "status"}))
    if kind == "message":
        role = take_role(reader)
        messages.append({"role": role, "content": _content(reader, role)})
    elif kind == "function_call":
        _add_call(messages, reader)
    elif kind == "function_call_output":
        call_id = reader.text("call_id", max_chars=200)
        output = _text(reader, "output")
        messages.append({"role": "tool", "tool_call_id": call_id, "content": output})
    elif kind == "reasoning":
        reader.ignore(frozenset({"summary", "content", "encrypted_content"}))
    else:
        raise ApiError(
            400, "unsupported_content", f"{reader.name('type')}: not supported", param="input"
        )
    reader.finish()


def _content(reader: Body, role: str) -> Content:
    if role != "user":
        return _text(reader, "content")
    content = take_content(reader, "content", TEXT_PARTS, "input_image")
    if content is None:
        raise bad_field(reader.name("content"), f"must be a string or at most {MAX_PARTS} parts")
    return content


def _text(reader: Body, key: str) -> str:
    text = take_text(reader, key, TEXT_PARTS)
    if text is None:
        raise bad_field(reader.name(key), f"must be a string or at most {MAX_PARTS} text parts")
    return text


def _add_call(messages: list[dict[str, Any]], reader: Body) -> None:
    """Calls that follow each other belong to one assistant message."""
    call = {
        "id": reader.text("call_id", max_chars=200),
        "type": "function",
        "function": {
            "name": reader.text("name", max_chars=200),
            "arguments": reader.text("arguments", max_chars=MAX_ARGUMENTS_CHARS),
        },
    }
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and "tool_calls" in last:
        last["tool_calls"].append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _tools(body: Body) -> list[Any]:
    """Functions, as this API writes them: flat. Tools that OpenAI runs itself are refused."""
    tools: list[Any] = body.capped("tools", list, FUNCTIONS, max_bytes=MAX_TOOLS_BYTES) or []
    if len(tools) > MAX_TOOLS:
        raise bad_field("tools", f"must be at most {MAX_TOOLS}")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise bad_field(f"tools[{index}]", "must be a function: no other tool exists here")
        take_function(tool, f"tools[{index}]")
    return tools


def _tool_choice(body: Body) -> Any:
    choice = body.raw("tool_choice", TOOL_CHOICE)
    if isinstance(choice, dict) and set(choice) == {"type", "name"}:
        if choice["type"] != "function":
            raise bad_field("tool_choice.type", "must be function")
        checked = check_tool_choice({"type": "function", "function": {"name": choice["name"]}})
        return {"type": "function", "name": checked["function"]["name"]}
    return check_tool_choice(choice) or "auto"


def _text_format(body: Body) -> dict[str, Any]:
    text = body.table("text")
    if text is None:
        return {"format": {"type": "text"}}
    wanted = text.capped("format", dict, FORMAT)
    wanted = {"type": "text"} if wanted is None else wanted
    text.ignore(frozenset({"verbosity"}))
    text.finish()
    check_response_format(_chat_format(wanted))
    return {"format": wanted}


def _chat_format(wanted: dict[str, Any]) -> dict[str, Any]:
    """This API's flat schema format as chat's nested one."""
    if wanted.get("type") != "json_schema":
        return wanted
    return {"type": "json_schema", "json_schema": {k: v for k, v in wanted.items() if k != "type"}}


def _chat_tools(tools: list[Any]) -> list[Any]:
    """This API's flat functions as chat's nested ones."""
    return [{"type": "function", "function": take_function(tool, "tools")} for tool in tools]


def _engine_fields(asked: dict[str, Any], context: int) -> dict[str, Any]:
    choice = asked["tool_choice"]
    if isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice["name"]}}
    tools = _chat_tools(asked["tools"])
    fields = {
        "max_tokens": asked["max_output_tokens"] or context,
        "temperature": asked["temperature"],
        "top_p": asked["top_p"],
        "tools": tools or None,
        "tool_choice": choice if tools else None,
        "parallel_tool_calls": asked["parallel_tool_calls"] if tools else None,
        "response_format": check_response_format(_chat_format(asked["text"]["format"])),
    }
    return {key: value for key, value in fields.items() if value is not None}


def _ignore_reasoning(body: Body) -> None:
    reasoning = body.table("reasoning")
    if reasoning is not None:
        reasoning.ignore(frozenset({"effort", "summary", "generate_summary"}))
        reasoning.finish()
