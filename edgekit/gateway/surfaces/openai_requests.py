"""`/v1` request bodies to jobs: the field allow list of OpenAI's surface."""

from __future__ import annotations

from typing import Any

from edgekit.core.appliance import Appliance
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    CHAT_TARGET,
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    MAX_TOOL_CALLS,
    TEXT_TARGET,
    Job,
    audit_params,
    digest_input,
    find_able,
    infill_prompt,
    take_role,
    take_sampling,
    take_text,
)
from edgekit.gateway.problems import bad_field
from edgekit.gateway.surfaces.content import take_content
from edgekit.gateway.surfaces.tool_fields import (
    RESPONSE_FORMAT,
    TOOL_CHOICE,
    check_response_format,
    check_tool_choice,
    take_logit_bias,
    take_tools,
)

IGNORED = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "verbosity",
        "keep_alive",
        "prediction",
    }
)
"""Fields clients send that change nothing here and are accepted without effect."""

MAX_ARGUMENTS_CHARS = 1 << 20
MAX_CHOICES = 8


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
    count = body.integer("n", 1, MAX_CHOICES) or 1
    body.only("modalities", ["text"], why="only text is supported")
    stream, include_usage = _streaming(body)
    body.ignore(IGNORED)
    body.finish()
    if stream and "tools" in fields and "logprobs" in fields:
        raise bad_field("logprobs", "cannot be streamed together with tools")
    return Job(
        "/v1/chat/completions",
        model,
        name,
        stream,
        include_usage,
        CHAT_TARGET,
        {"messages": messages, **fields},
        audit_params({**fields, **({"n": count} if count > 1 else {})}),
        digest_input(messages),
        count=count,
    )


def parse_completion(body: Body, appliance: Appliance) -> Job:
    """A `/v1/completions` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    prompt = _prompt(body)
    fields = {"max_tokens": model.context, **take_sampling(body, model.context)}
    logprobs = body.integer("logprobs", 0, 5)
    bias = take_logit_bias(body)
    if logprobs is not None:
        fields["logprobs"] = logprobs
    if bias:
        fields["logit_bias"] = bias
    count = body.integer("n", 1, MAX_CHOICES) or 1
    body.only("best_of", 1, why="only 1 is supported")
    body.only("echo", False, why="only false is supported")
    suffix = body.text("suffix", max_chars=MAX_TEXT_CHARS, default="")
    asked, rendered = (
        infill_prompt(model, name, prompt, suffix) if suffix else (prompt, False)
    )
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
        {"prompt": asked, **fields},
        audit_params({**fields, **({"n": count} if count > 1 else {})}),
        digest_input({"prompt": prompt, "suffix": suffix} if suffix else prompt),
        echo={"logprobs": logprobs},
        count=count,
        rendered=rendered,
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
    one = {"type": "string", "maxLength": MAX_TEXT_CHARS}
    alone = {"type": "array", "items": one, "minItems": 1, "maxItems": 1}
    value = body.raw("prompt", {"anyOf": [one, alone]}, required=True)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise bad_field("prompt", "must be one string")
    return value


def _messages(body: Body) -> list[dict[str, Any]]:
    readers = body.tables("messages", max_items=MAX_MESSAGES, required=True)
    return [_message(reader) for reader in readers]


def _message(reader: Body) -> dict[str, Any]:
    message: dict[str, Any] = {"role": take_role(reader)}
    calls = reader.tables("tool_calls", max_items=MAX_TOOL_CALLS)
    take = take_content if message["role"] == "user" else take_text
    message["content"] = take(reader, "content")
    if message["content"] is None and not (calls and message["role"] == "assistant"):
        raise bad_field(reader.name("content"), "is required")
    if calls:
        message["tool_calls"] = [_tool_call(call) for call in calls]
    call_id = reader.text("tool_call_id", max_chars=200, default="")
    if call_id:
        message["tool_call_id"] = call_id
    reader.ignore(
        frozenset({"name", "refusal", "annotations", "audio", "reasoning_content", "reasoning"})
    )
    reader.finish()
    return message


def _tool_call(reader: Body) -> dict[str, Any]:
    function = reader.whole_table("function")
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
    fields = {
        "logprobs": body.flag("logprobs", default=False) or None,
        "top_logprobs": body.integer("top_logprobs", 0, 20),
        "logit_bias": take_logit_bias(body),
        "tools": take_tools(body),
        "tool_choice": check_tool_choice(body.raw("tool_choice", TOOL_CHOICE)),
        "parallel_tool_calls": body.switch("parallel_tool_calls"),
        "response_format": check_response_format(
            body.capped("response_format", dict, RESPONSE_FORMAT)
        ),
    }
    return {key: value for key, value in fields.items() if value is not None}
