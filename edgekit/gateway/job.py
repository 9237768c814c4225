"""A generation request after policy: what the engine is asked, and what the audit log is told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from edgekit.core.appliance import Appliance, ServedModel
from edgekit.core.ollama_template import Template
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import FormatError
from edgekit.gateway.body import Body
from edgekit.gateway.problems import ApiError, bad_field, model_not_found

MAX_NAME_CHARS = 200
MAX_MESSAGES = 1000
MAX_PARTS = 64
MAX_TEXT_CHARS = 1 << 22
MAX_TOOL_CALLS = 64
MAX_TOOLS = 128
MAX_TOOLS_BYTES = 256 << 10
MAX_ID_CHARS = 200
SEED_LIMIT = 2**53
EMBED_TARGET = "/v1/embeddings"
RERANK_TARGET = "/v1/rerank"
CHAT_TARGET = "/v1/chat/completions"
TEXT_TARGET = "/v1/completions"
COUNT_TARGET = "/v1/chat/completions/input_tokens"
TOKENIZE_TARGET = "/tokenize"
DETOKENIZE_TARGET = "/detokenize"
PROVING = frozenset({CHAT_TARGET, TEXT_TARGET, EMBED_TARGET, RERANK_TARGET})
"""An answer to one of these proves that the engine's model works."""
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One generation. `target` and `body` go to the engine; `prompt` is what gets digested.

    `echo` is what the answer's translator has to know of the request. `count` answers are asked
    for, one after the other in the same slot, each with the seed one higher.
    """

    endpoint: str
    model: ServedModel
    asked_name: str
    stream: bool
    include_usage: bool
    target: str
    body: Mapping[str, Any]
    params: Mapping[str, Any]
    prompt: bytes
    echo: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1
    keep_s: float | None = None
    """How long an engine that is loaded on demand stays afterwards; None: as usual."""
    rendered: bool = False
    """Whether its prompt was made by a TEMPLATE; its conversation is in `body["prompt"]` then."""
    messages: Sequence[Mapping[str, Any]] = ()
    """The conversation that was rendered; else it is in `body`, if there is one."""
    truncate: bool = False
    """Whether texts that are too long to embed are cut instead of refused."""
    pictures: tuple[bytes, ...] = ()
    """Those in its messages, for the audit log's digests."""

    @property
    def last_user_text(self) -> bytes | None:
        """The text of the last user message; None where there is none."""
        for message in reversed(self.messages or self.body.get("messages") or ()):
            if message.get("role") == "user":
                text = text_of(message.get("content"))
                return None if text is None else digest_input(text)
        return None


def find_model(appliance: Appliance, name: str) -> ServedModel:
    """The served model of this name; `:latest` may be left out or added. Raises ApiError 404."""
    wanted = name.removesuffix(":latest")
    for model in appliance.models:
        if model.name.removesuffix(":latest") == wanted:
            return model
    raise model_not_found(name)


def find_able(appliance: Appliance, name: str, capability: str) -> ServedModel:
    """The served model of this name, if it can do this. Raises ApiError 404 or 400."""
    model = find_model(appliance, name)
    if capability not in model.capabilities:
        verb = {"completion": "chat or completion"}.get(capability, capability)
        able = ", ".join(model.capabilities)
        raise ApiError(
            400,
            "unsupported",
            f"{name[:100]!r} does not support {verb}; it supports: {able}",
            param="model",
        )
    return model


def infill_prompt(
    model: ServedModel, name: str, before: str, after: str
) -> tuple[str | list[int | str], bool]:
    """The prompt for the text between two others, and whether a TEMPLATE made it.

    Raises ApiError 400 when the model cannot.
    """
    template = template_of(model)
    if template is not None and template.inserts:
        with rendering():
            return template.between(before, after, today()), True
    if model.infill is None:
        raise ApiError(
            400, "unsupported", f"suffix: {name[:100]!r} does not support insert", param="suffix"
        )
    return model.infill.prompt(before, after), False


def template_of(model: ServedModel) -> Template | None:
    """A derived model's own template."""
    return model.defaults.template if model.defaults else None


@contextmanager
def rendering() -> Iterator[None]:
    """Turns a template's refusal of a conversation into ours: 400."""
    try:
        yield
    except FormatError as error:
        why = f"the model's TEMPLATE cannot be used for this: {error.message}"
        raise ApiError(400, "template_failed", why, param="messages") from error


def today() -> date:
    """The day in UTC, for templates that name it."""
    return datetime.now(UTC).date()


def audit_params(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling fields as the audit log takes them: numbers with a fraction become text."""
    kept: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, float):
            kept[key] = repr(value)
        elif isinstance(value, int | bool):
            kept[key] = value
        elif key in ("stop", "tools"):
            kept[f"{key}_count"] = len(value)
    return kept


def digest_input(value: object) -> bytes:
    """The bytes a prompt digest is over: text as UTF-8, messages as canonical JSON."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="surrogatepass")
    return encode_canonical(_without_pictures(value))


def _without_pictures(value: object) -> object:
    """The same messages with a mark where a picture is: pictures have digests of their own."""
    if isinstance(value, list):
        return [_without_pictures(item) for item in value]
    if isinstance(value, dict) and value.get("type") == "image_url":
        return {"type": "image_url"}
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        return {**value, "content": _without_pictures(value["content"])}
    return value


def text_of(content: object) -> str | None:
    """The text of a message's content, without its pictures; None where there is none."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content if isinstance(content, str) else None


def take_sampling(body: Body, context: int) -> dict[str, Any]:
    """The sampling fields both `/v1` endpoints share, as the engine takes them."""
    fields = {
        "temperature": body.number("temperature", 0, 2),
        "top_p": body.number("top_p", 0, 1),
        "top_k": body.integer("top_k", 0, 1000),
        "min_p": body.number("min_p", 0, 1),
        "repeat_penalty": body.number("repeat_penalty", 0.01, 2),
        "presence_penalty": body.number("presence_penalty", -2, 2),
        "frequency_penalty": body.number("frequency_penalty", -2, 2),
        "seed": body.integer("seed", -SEED_LIMIT, SEED_LIMIT),
        "stop": body.stops("stop"),
        "max_tokens": body.integer("max_tokens", 1, context),
    }
    return {key: value for key, value in fields.items() if value is not None}


def take_text(reader: Body, key: str, kinds: Collection[str] = ("text",)) -> str | None:
    """A text: a string, or parts of these kinds joined by newlines; or None. Media are refused."""
    value = reader.raw(key, {"type": "string"})
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or len(value) > MAX_PARTS:
        raise bad_field(reader.name(key), f"must be a string or at most {MAX_PARTS} text parts")
    return "\n".join(_part(part, kinds) for part in reader.parts(key, value))


def _part(reader: Body, kinds: Collection[str]) -> str:
    if reader.raw("type", {"enum": [*kinds]}, required=True) not in kinds:
        where = reader.name("type").removesuffix(".type")
        raise ApiError(
            400,
            "unsupported_content",
            f"{where}: only text parts are supported",
            param=where.rpartition("[")[0],
        )
    return take_part_text(reader)


def take_part_text(reader: Body) -> str:
    """The text of a part that is one."""
    text = reader.text("text", max_chars=MAX_TEXT_CHARS)
    reader.ignore(frozenset({"annotations", "logprobs", "cache_control", "citations"}))
    reader.finish()
    return text


def take_role(reader: Body) -> str:
    """A message's role, `developer` read as `system`."""
    return ROLES[reader.choice("role", ROLES)]
