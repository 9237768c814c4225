"""`/api` request bodies to jobs: the field allow list of Ollama's surface."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgekit.core.appliance import Appliance, ServedModel
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    CHAT_TARGET,
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    MAX_TOOL_CALLS,
    SEED_LIMIT,
    TEXT_TARGET,
    Job,
    audit_params,
    digest_input,
    find_able,
    take_role,
)
from edgekit.gateway.problems import ApiError, bad_field

IGNORED = frozenset({"keep_alive", "context", "shift", "truncate", "logprobs", "top_logprobs"})
"""Fields accepted without effect; `context` is Ollama's own deprecated token list."""

IGNORED_OPTIONS = frozenset(
    {
        "num_ctx",
        "num_keep",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "use_mmap",
        "use_mlock",
        "numa",
        "low_vram",
        "vocab_only",
        "f16_kv",
        "logits_all",
        "penalize_newline",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "tfs_z",
        "typical_p",
        "draft_num_predict",
    }
)
"""Options about loading, which the plan fixed at install time, or that engines have dropped."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """An empty prompt: Ollama's way to ask for a model to be loaded (or unloaded)."""

    model: ServedModel
    asked_name: str
    unload: bool
    chat: bool


def parse_chat(body: Body, appliance: Appliance) -> Job | LoadRequest:
    """An `/api/chat` body. Raises ApiError."""
    name, model, stream, unload = _start(body, appliance)
    values = body.items("messages", max_items=MAX_MESSAGES)
    if not values:
        return LoadRequest(model, name, unload, chat=True)
    messages = [_message(Body(value, f"messages[{i}]")) for i, value in enumerate(values)]
    fields = _options(body, model.context)
    tools = body.capped("tools", list, max_bytes=256 << 10)
    if tools:
        fields["tools"] = tools
    response_format = _format(body)
    if response_format is not None:
        fields["response_format"] = response_format
    _finish(body, name)
    return Job(
        "/api/chat",
        model,
        name,
        stream,
        False,
        CHAT_TARGET,
        {"messages": messages, **fields},
        audit_params(fields),
        digest_input(messages),
    )


def parse_generate(body: Body, appliance: Appliance) -> Job | LoadRequest:
    """An `/api/generate` body. Raises ApiError."""
    name, model, stream, unload = _start(body, appliance)
    prompt = body.text("prompt", max_chars=MAX_TEXT_CHARS, default="")
    if not prompt:
        return LoadRequest(model, name, unload, chat=False)
    system = body.text("system", max_chars=MAX_TEXT_CHARS, default="")
    raw = body.flag("raw", default=False)
    fields = _options(body, model.context)
    response_format = _format(body)
    body.only("suffix", "", why="is not supported")
    body.only("template", "", why="is not supported: the template is part of the weights")
    _no_images(body)
    _finish(body, name)
    if raw:
        if response_format is not None:
            fields["json_schema"] = _schema_of(response_format)
        target, request = TEXT_TARGET, {"prompt": prompt, **fields}
    else:
        if response_format is not None:
            fields["response_format"] = response_format
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        target, request = CHAT_TARGET, {"messages": messages, **fields}
    digested = digest_input({"system": system, "prompt": prompt} if system else prompt)
    return Job(
        "/api/generate",
        model,
        name,
        stream,
        False,
        target,
        request,
        audit_params({**fields, "raw": raw}),
        digested,
    )


def _start(body: Body, appliance: Appliance) -> tuple[str, ServedModel, bool, bool]:
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    stream = body.flag("stream", default=True)
    keep_alive = body.raw("keep_alive")
    return name, model, stream, keep_alive in (0, "0", "0s")


def _finish(body: Body, name: str) -> None:
    think = body.raw("think")
    if think not in (None, False):
        raise ApiError(400, "unsupported", f"{name!r} does not support thinking", param="think")
    body.ignore(IGNORED)
    body.finish()


def _no_images(body: Body) -> None:
    if body.raw("images"):
        raise ApiError(400, "unsupported_content", "images are not supported", param="images")


def _message(reader: Body) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": take_role(reader),
        "content": reader.text("content", max_chars=MAX_TEXT_CHARS, default=""),
    }
    _no_images(reader)
    calls = reader.items("tool_calls", max_items=MAX_TOOL_CALLS)
    if calls:
        path = reader.name("tool_calls")
        message["tool_calls"] = [
            _tool_call(Body(call, f"{path}[{i}]"), i) for i, call in enumerate(calls)
        ]
    call_id = reader.text("tool_call_id", max_chars=200, default="")
    if call_id:
        message["tool_call_id"] = call_id
    reader.ignore(frozenset({"thinking", "tool_name", "name"}))
    reader.finish()
    return message


def _tool_call(reader: Body, index: int) -> dict[str, Any]:
    """Ollama's arguments are an object, OpenAI's (and the engine's) a string of JSON."""
    function = reader.table("function")
    if function is None:
        raise bad_field(reader.name("function"), "is required")
    arguments = function.capped("arguments", dict) or {}
    name = function.text("name", max_chars=200)
    return {
        "id": reader.text("id", max_chars=200, default=f"call_{index}"),
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    }


def _options(body: Body, context: int) -> dict[str, Any]:
    options = body.table("options")
    if options is None:
        return {"max_tokens": context}
    wanted = options.integer("num_predict", -2, 1 << 31)
    # -1 (no end) and -2 (fill the context) must both end, and 0 cannot be asked of the engine
    tokens = context if wanted is None or wanted <= 0 else min(wanted, context)
    fields = {
        "temperature": options.number("temperature", 0, 2),
        "top_k": options.integer("top_k", 0, 1000),
        "top_p": options.number("top_p", 0, 1),
        "min_p": options.number("min_p", 0, 1),
        "repeat_penalty": options.number("repeat_penalty", 0, 2),
        "repeat_last_n": options.integer("repeat_last_n", -1, context),
        "presence_penalty": options.number("presence_penalty", -2, 2),
        "frequency_penalty": options.number("frequency_penalty", -2, 2),
        "seed": options.integer("seed", -SEED_LIMIT, SEED_LIMIT),
        "stop": options.stops("stop"),
        "max_tokens": tokens,
    }
    options.ignore(IGNORED_OPTIONS)
    options.finish()
    return {key: value for key, value in fields.items() if value is not None}


def _format(body: Body) -> dict[str, Any] | None:
    value = body.raw("format")
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if not isinstance(value, dict) or len(json.dumps(value)) > 64 << 10:
        raise bad_field("format", 'must be "json" or a JSON schema of at most 64 KiB')
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}


def _schema_of(response_format: dict[str, Any]) -> Any:
    if response_format["type"] == "json_object":
        return {"type": "object"}
    return response_format["json_schema"]["schema"]
