"""`/api` request bodies to jobs: the field allow list of Ollama's surface."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.core.appliance import Appliance, ServedModel
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    CHAT_TARGET,
    MAX_ID_CHARS,
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
    infill_prompt,
    take_role,
)
from edgekit.gateway.problems import ApiError, bad_field
from edgekit.gateway.schema_limits import check_schema
from edgekit.gateway.surfaces.content import take_pictures, with_text
from edgekit.gateway.surfaces.keep_alive import take_keep_alive
from edgekit.gateway.surfaces.ollama_context import Message, take_context
from edgekit.gateway.surfaces.tool_fields import schema_of, take_tools

IGNORED = frozenset({"shift", "truncate"})
"""Fields accepted without effect: nothing is cut from a prompt unasked."""

FORMAT = {"anyOf": [{"enum": ["", "json"]}, {"type": "object"}]}
THINKING_LEVELS = ("low", "medium", "high")
THINK = {"enum": [True, False, *THINKING_LEVELS]}
MAX_TOP_LOGPROBS = 20

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
        "embedding_only",
    }
)
"""Options about loading, which the plan fixed at install time, or that engines have dropped."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """An empty prompt: Ollama's way to ask for a model to be loaded (or unloaded)."""

    model: ServedModel
    asked_name: str
    keep_s: float | None
    chat: bool

    @property
    def unload(self) -> bool:
        """Whether it is asked to leave memory."""
        return self.keep_s == 0


def parse_chat(body: Body, appliance: Appliance) -> Job | LoadRequest:
    """An `/api/chat` body. Raises ApiError."""
    name, model, stream, keep_s = _start(body, appliance)
    readers = body.tables("messages", max_items=MAX_MESSAGES)
    messages = [_message(reader) for reader in readers]
    fields = {**_options(body, model.context), **_logprobs(body)}
    tools = take_tools(body)
    if tools:
        fields["tools"] = tools
    response_format = _format(body)
    if response_format is not None:
        fields["response_format"] = response_format
    thinking = _think(body, model, name)
    _finish(body)
    if not messages:
        return LoadRequest(model, name, keep_s, chat=True)
    return _job(
        "/api/chat",
        model,
        name,
        CHAT_TARGET,
        {"messages": messages, **fields, **thinking},
        stream=stream,
        keep_s=keep_s,
        params=audit_params(fields),
        prompt=digest_input(messages),
    )


def parse_generate(body: Body, appliance: Appliance) -> Job | LoadRequest:
    """An `/api/generate` body. Raises ApiError."""
    name, model, stream, keep_s = _start(body, appliance)
    prompt = body.text("prompt", max_chars=MAX_TEXT_CHARS, default="")
    system = body.text("system", max_chars=MAX_TEXT_CHARS, default="")
    raw = body.flag("raw", default=False)
    suffix = body.text("suffix", max_chars=MAX_TEXT_CHARS, default="")
    earlier = take_context(body)
    if earlier and (raw or suffix):
        raise bad_field("context", "is a conversation: it goes with neither raw nor suffix")
    fields = {**_options(body, model.context), **_logprobs(body)}
    response_format = _format(body)
    thinking = _think(body, model, name)
    body.only("template", "", why="is not supported: the template is part of the model")
    pictures = take_pictures(body)
    _finish(body)
    if pictures and (raw or suffix):
        raise bad_field("images", "go with neither raw nor suffix")
    if not prompt and not suffix and not pictures:
        return LoadRequest(model, name, keep_s, chat=False)
    messages: list[Message] = []
    rendered = False
    if raw or suffix:
        if response_format is not None:
            fields["json_schema"] = schema_of(response_format)
        if fields.pop("logprobs", False):
            fields["logprobs"] = max(1, fields.pop("top_logprobs", 0))
        asked, rendered = (
            infill_prompt(model, name, prompt, suffix) if suffix else (prompt, False)
        )
        target, request = TEXT_TARGET, {"prompt": asked, **fields}
    else:
        if response_format is not None:
            fields["response_format"] = response_format
        told = [{"role": "system", "content": system}] if system else []
        if told:  # it takes the place of an earlier one
            earlier = [message for message in earlier if message["role"] != "system"]
        messages = [*told, *earlier, {"role": "user", "content": prompt}]
        seen = [*messages[:-1], {"role": "user", "content": with_text(pictures, prompt)}]
        target, request = CHAT_TARGET, {"messages": seen, **fields, **thinking}
    return _job(
        "/api/generate",
        model,
        name,
        target,
        request,
        stream=stream,
        keep_s=keep_s,
        params=audit_params({**fields, "raw": raw}),
        prompt=digest_input(_digested(system, prompt, suffix, earlier)),
        conversation=messages,
        rendered=rendered,
    )


def _digested(system: str, prompt: str, suffix: str, earlier: list[Message]) -> object:
    """What the audit log's digest is over: the text alone, or all that came with it by name."""
    beside = {"system": system, "suffix": suffix, "context": earlier}
    given = {name: value for name, value in beside.items() if value}
    return {**given, "prompt": prompt} if given else prompt


def shown_name(body: Body) -> str:
    """The model that an `/api/show` body asks about. Raises ApiError."""
    name = body.text("name", max_chars=MAX_NAME_CHARS, default="")
    name = body.text("model", max_chars=MAX_NAME_CHARS, default=name)
    body.ignore(frozenset({"verbose", "system", "template", "options"}))
    body.finish()
    return name


def _job(
    endpoint: str,
    model: ServedModel,
    name: str,
    target: str,
    request: dict[str, Any],
    *,
    stream: bool,
    keep_s: float | None,
    params: Mapping[str, Any],
    prompt: bytes,
    conversation: Sequence[Message] = (),
    rendered: bool = False,
) -> Job:
    kwargs = request.get("chat_template_kwargs", {})
    return Job(
        endpoint=endpoint,
        model=model,
        asked_name=name,
        stream=stream,
        keep_s=keep_s,
        include_usage=False,
        target=target,
        body=request,
        params=params,
        prompt=prompt,
        rendered=rendered,
        echo={"thinking": kwargs.get("enable_thinking", True), "conversation": conversation},
    )


def _start(body: Body, appliance: Appliance) -> tuple[str, ServedModel, bool, float | None]:
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "completion")
    stream = body.flag("stream", default=True)
    return name, model, stream, take_keep_alive(body)


def _think(body: Body, model: ServedModel, name: str) -> dict[str, Any]:
    """What the chat template is told about thinking; nothing unless the client says something."""
    think = body.raw("think", THINK)
    if not isinstance(think, bool | None) and think not in THINKING_LEVELS:
        raise bad_field("think", "must be a boolean, low, medium or high")
    if think is None:
        return {}
    if think and "thinking" not in model.capabilities:
        raise ApiError(400, "unsupported", f"{name!r} does not support thinking", param="think")
    kwargs: dict[str, Any] = {"enable_thinking": bool(think)}
    if isinstance(think, str):
        kwargs["reasoning_effort"] = think
    return {"chat_template_kwargs": kwargs}


def _logprobs(body: Body) -> dict[str, Any]:
    top = body.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if not body.flag("logprobs", default=False):
        return {}
    return {"logprobs": True, "top_logprobs": top or 0}


def _finish(body: Body) -> None:
    body.ignore(IGNORED)
    body.finish()


def _message(reader: Body) -> dict[str, Any]:
    message: dict[str, Any] = {"role": take_role(reader)}
    text = reader.text("content", max_chars=MAX_TEXT_CHARS, default="")
    pictures = take_pictures(reader)
    if pictures and message["role"] != "user":
        raise bad_field(reader.name("images"), "only a user sends images")
    message["content"] = with_text(pictures, text)
    calls = reader.tables("tool_calls", max_items=MAX_TOOL_CALLS)
    if calls:
        message["tool_calls"] = [_tool_call(call, index) for index, call in enumerate(calls)]
    call_id = reader.text("tool_call_id", max_chars=200, default="")
    if call_id:
        message["tool_call_id"] = call_id
    reader.ignore(frozenset({"thinking", "tool_name", "name"}))
    reader.finish()
    return message


def _tool_call(reader: Body, index: int) -> dict[str, Any]:
    """Ollama's arguments are an object, OpenAI's (and the engine's) a string of JSON."""
    function = reader.whole_table("function")
    arguments = function.capped("arguments", dict) or {}
    name = function.text("name", max_chars=200)
    call_id = reader.text("id", max_chars=MAX_ID_CHARS, default=f"call_{index}")
    function.ignore(frozenset({"index"}))
    reader.ignore(frozenset({"type"}))
    function.finish()
    reader.finish()
    return {
        "id": call_id,
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
        "repeat_penalty": options.number("repeat_penalty", 0.01, 2),
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
    value = body.raw("format", FORMAT)
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if not isinstance(value, dict) or len(json.dumps(value)) > 64 << 10:
        raise bad_field("format", 'must be "json" or a JSON schema of at most 64 KiB')
    check_schema(value, "format")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}
