"""`/v1` request bodies to jobs: the field allow list of OpenAI's surface."""

from __future__ import annotations

from typing import Any

from edgekit.core.appliance import Appliance
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    CHAT_TARGET,
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_TOOL_CALLS,
    TEXT_TARGET,
    Job,
    audit_params,
    digest_input,
    find_able,
    take_role,
    take_sampling,
    take_text_parts,
)
from edgekit.gateway.problems import bad_field

IGNORED = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "reasoning_effort",
        "verbosity",
        "keep_alive",
        "prediction",
    }
)
"""Fields clients send that change nothing here and are accepted without effect."""

MAX_TOOLS = 128
MAX_ARGUMENTS_CHARS = 1 << 20


def parse_chat(body: Body, appliance: Appliance) -> Job:
    """A `/v1/chat/completions` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    messages = _messages(body)
    completion_tokens = body.integer("max_completion_tokens", 1, model.context)
    fields = {
        "max_tokens": completion_tokens or model.context,
        **take_sampling(body, model.context),
        **_chat_extras(body),
    }
    stream, include_usage = _streaming(body)
    body.ignore(IGNORED)
    body.finish()
    return Job(
        "/v1/chat/completions",
        model,
        name,
        stream,
        include_usage,
        CHAT_TARGET,
        {"messages": messages, **fields},
        audit_params(fields),
        digest_input(messages),
    )


def parse_completion(body: Body, appliance: Appliance) -> Job:
    """A `/v1/completions` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    prompt = _prompt(body)
    fields = {"max_tokens": model.context, **take_sampling(body, model.context)}
    logprobs = body.integer("logprobs", 0, 5)
    if logprobs is not None:
        fields["logprobs"] = logprobs
    body.only("n", 1, why="only 1 is supported")
    body.only("best_of", 1, why="only 1 is supported")
    body.only("echo", False, why="only false is supported")
    body.only("suffix", "", why="is not supported")
    stream, include_usage = _streaming(body)
    body.ignore(IGNORED)
    body.finish()
    return Job(
        "/v1/completions",
        model,
        name,
        stream,
        include_usage,
        TEXT_TARGET,
        {"prompt": prompt, **fields},
        audit_params(fields),
        digest_input(prompt),
    )


def _streaming(body: Body) -> tuple[bool, bool]:
    stream = body.flag("stream", default=False)
    options = body.table("stream_options")
    include_usage = False
    if options is not None:
        include_usage = options.flag("include_usage", default=False)
        options.ignore(frozenset({"include_obfuscation"}))
        options.finish()
    return stream, include_usage


def _prompt(body: Body) -> str:
    value = body.raw("prompt")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise bad_field("prompt", "must be one string")
    return value


def _messages(body: Body) -> list[dict[str, Any]]:
    values = body.items("messages", max_items=MAX_MESSAGES)
    if not values:
        raise bad_field("messages", f"must be 1 to {MAX_MESSAGES} messages")
    return [_message(Body(value, f"messages[{i}]")) for i, value in enumerate(values)]


def _message(reader: Body) -> dict[str, Any]:
    message: dict[str, Any] = {"role": take_role(reader)}
    calls = reader.items("tool_calls", max_items=MAX_TOOL_CALLS)
    content = reader.raw("content")
    if content is None and not (calls and message["role"] == "assistant"):
        raise bad_field(reader.name("content"), "is required")
    message["content"] = (
        None if content is None else take_text_parts(content, reader.name("content"))
    )
    if calls:
        path = reader.name("tool_calls")
        message["tool_calls"] = [_tool_call(Body(c, f"{path}[{i}]")) for i, c in enumerate(calls)]
    call_id = reader.text("tool_call_id", max_chars=200, default="")
    if call_id:
        message["tool_call_id"] = call_id
    reader.ignore(
        frozenset({"name", "refusal", "annotations", "audio", "reasoning_content", "reasoning"})
    )
    reader.finish()
    return message


def _tool_call(reader: Body) -> dict[str, Any]:
    function = reader.table("function")
    if function is None:
        raise bad_field(reader.name("function"), "is required")
    call = {
        "id": reader.text("id", max_chars=200, default=""),
        "type": "function",
        "function": {
            "name": function.text("name", max_chars=200),
            "arguments": function.text("arguments", max_chars=MAX_ARGUMENTS_CHARS),
        },
    }
    reader.only("type", "function", why="must be function")
    reader.ignore(frozenset({"index"}))
    function.finish()
    reader.finish()
    return call


def _chat_extras(body: Body) -> dict[str, Any]:
    """Fields only chat has: tools, structured output, token probabilities."""
    body.only("n", 1, why="only 1 is supported")
    fields = {
        "logprobs": body.flag("logprobs", default=False) or None,
        "top_logprobs": body.integer("top_logprobs", 0, 20),
        "logit_bias": _logit_bias(body),
        "tools": _tools(body),
        "tool_choice": check_tool_choice(body.raw("tool_choice")),
        "parallel_tool_calls": body.raw("parallel_tool_calls"),
        "response_format": check_response_format(body.capped("response_format", dict)),
    }
    if not isinstance(fields["parallel_tool_calls"], bool | None):
        raise bad_field("parallel_tool_calls", "must be a boolean")
    return {key: value for key, value in fields.items() if value is not None}


def _logit_bias(body: Body) -> dict[str, Any] | None:
    table = body.capped("logit_bias", dict)
    for token, bias in (table or {}).items():
        if not token.isdigit() or isinstance(bias, bool) or not isinstance(bias, int | float):
            raise bad_field("logit_bias", "must map token ids to numbers")
        if not -100 <= bias <= 100:
            raise bad_field("logit_bias", "must be from -100 to 100")
    return table or None


def _tools(body: Body) -> list[Any] | None:
    tools: list[Any] | None = body.capped("tools", list, max_bytes=256 << 10)
    for index, tool in enumerate(tools or []):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise bad_field(f"tools[{index}]", "must be a function")
        if not isinstance(tool.get("function"), dict):
            raise bad_field(f"tools[{index}].function", "must be an object")
    if tools and len(tools) > MAX_TOOLS:
        raise bad_field("tools", f"must be at most {MAX_TOOLS}")
    return tools or None


def check_tool_choice(choice: Any) -> Any:
    """Chat's `tool_choice` as it is, or None for none. Raises ApiError."""
    if choice is None or choice in ("none", "auto", "required"):
        return choice
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        name = choice["function"].get("name")
        if isinstance(name, str) and len(name) <= 200:
            return {"type": "function", "function": {"name": name}}
    raise bad_field("tool_choice", "must be none, auto, required or a function")


def check_response_format(table: dict[str, Any] | None) -> dict[str, Any] | None:
    """Chat's `response_format` as it is; None for plain text. Raises ApiError."""
    if table is None or table.get("type") == "text":
        return None
    if table.get("type") == "json_object" and set(table) <= {"type", "schema"}:
        return dict(table)
    schema = table.get("json_schema")
    if (
        table.get("type") == "json_schema"
        and set(table) == {"type", "json_schema"}
        and isinstance(schema, dict)
        and isinstance(schema.get("schema"), dict)
    ):
        return dict(table)
    raise bad_field("response_format", "must be text, json_object or json_schema with a schema")
