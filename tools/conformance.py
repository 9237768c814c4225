"""The conformance table: what becomes of every field of every call, from the parsers themselves.

The fields are those that the endpoints' parsers ask for (`gateway/describe.py`) and those that the
vendors' own Python clients know. A client's field that no parser asks for is refused, and
tests/gateway/test_conformance_table.py sees that it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from anthropic.types import message_count_tokens_params, message_create_params
from ollama._types import ChatRequest, EmbeddingsRequest, EmbedRequest, GenerateRequest, Options
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import input_token_count_params, response_create_params

from edgekit.core.appliance import Appliance, EngineSettings, ServedModel
from edgekit.gateway.describe import Effect, Field, Reading, describe, fields_of
from edgekit.gateway.surfaces.endpoints import ENDPOINTS

CONTEXT = 4096
"""The context of the model that the page is written for."""

_HEAD = """\
# Conformance

What becomes of every field of every call. The table is made from the parsers that enforce it, and
from the fields that OpenAI's, Ollama's and Anthropic's own Python clients know, so neither can be
forgotten. It is checked in every test run, as is what it says.

| word | meaning |
| --- | --- |
| supported | reaches the engine as it is |
| translated | the gateway acts on it, or gives it to the engine in another form |
| no effect | accepted: it is about the vendor's own service, or about what the plan has fixed |
| only ... | this value is accepted, every other refused with 400 |
| refused | 400, with the field's name; a field that is in no table is refused, too |

"own" marks fields that the vendor's client does not know. Ranges that end with the model's context
are shown for one of {context} tokens. Beyond fields: images are refused where they can be sent (400
`unsupported_content`); calls that would change the models (`/api/pull`,
`push`, `create`, `copy`, `delete`, `blobs`) answer 403. Null means absent everywhere.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One field: what becomes of it, what is allowed, and whether the vendor's client knows it."""

    name: str
    verdict: str
    allowed: str
    known: bool


def render_conformance() -> str:
    """The page."""
    parts = [_HEAD.replace("{context}", str(CONTEXT))]
    for path, endpoint in ENDPOINTS.items():
        parts.append(f"\n## `{path}`\n\n{endpoint.title}. Scope: `{endpoint.scope}`.\n\n")
        parts.append("| field | | allowed | |\n| --- | --- | --- | --- |\n")
        parts += [
            f"| `{row.name}` | {row.verdict} | {row.allowed} | {'' if row.known else 'own'} |\n"
            for row in rows(path)
        ]
    return "".join(parts)


def rows(path: str) -> list[Row]:
    """Every field of an endpoint, sorted by name."""
    found, readings = describe(path, an_appliance())
    known = client_fields(path)
    table = [
        Row(name, _verdict(name, field, readings), _allowed(field), _is_known(name, known))
        for name, field in fields_of(found)
    ]
    read = {row.name for row in table}
    table += [Row(name, "refused", "", known=True) for name in known - read]
    return sorted(table, key=lambda row: row.name)


def client_fields(path: str) -> frozenset[str]:
    """The fields that the vendor's own client knows; empty for vLLM's calls, which have none."""
    options = {f"options.{name}" for name in Options.model_fields}
    return frozenset(
        {
            "/v1/chat/completions": _hints(
                chat_create_params.CompletionCreateParamsNonStreaming, "stream"
            ),
            "/v1/completions": _hints(
                completion_create_params.CompletionCreateParamsNonStreaming, "stream"
            ),
            "/v1/responses": _hints(response_create_params.ResponseCreateParamsNonStreaming),
            "/v1/responses/input_tokens": _hints(input_token_count_params.InputTokenCountParams),
            "/v1/embeddings": _hints(embedding_create_params.EmbeddingCreateParams),
            "/v1/messages": _hints(message_create_params.MessageCreateParamsNonStreaming),
            "/v1/messages/count_tokens": _hints(
                message_count_tokens_params.MessageCountTokensParams
            ),
            "/api/chat": {*ChatRequest.model_fields, *options},
            "/api/generate": {*GenerateRequest.model_fields, *options},
            "/api/embed": {*EmbedRequest.model_fields},
            "/api/embeddings": {*EmbeddingsRequest.model_fields},
        }.get(path, set())
    )


def an_appliance() -> Appliance:
    """One model, for parsers that want to know its context."""
    model = ServedModel(
        name="model", engine="main", digest="sha384:" + "0" * 96, size=1, format="gguf",
        family="llama", parameter_size="1B", quantization="Q8_0", context=CONTEXT, license="none",
        created=0,
    )  # fmt: skip
    engine = EngineSettings(
        name="main", kind="llama.cpp", argv=("none",), environment=(), socket="none", slots=1,
        context=CONTEXT, start_timeout_s=60, weights=(), canaries=(),
    )  # fmt: skip
    return Appliance(
        name="any", version="1", generation="g1", listen="127.0.0.1:1", audit_socket="none",
        models=(model,), engines=(engine,),
    )  # fmt: skip


def _hints(kind: Any, *more: str) -> set[str]:
    return {*get_type_hints(kind), *more}


def _is_known(name: str, known: frozenset[str]) -> bool:
    """Clients' types say nothing about what lies in lists and tables, but for Ollama's options."""
    return not known or name in known or ("." in name and not name.startswith("options."))


def _verdict(name: str, field: Field, readings: list[Reading]) -> str:
    if field.effect is Effect.IGNORED or (field.below and not _matters(field)):
        return "no effect"
    if field.effect is Effect.FIXED or field.schema.get("type") == "null":
        return "only " + (_values(field.schema) or "null")
    if field.schema.get("maxItems") == 0 and "items" not in field.schema:
        return "only `[]`"
    key = name.rpartition(".")[2]
    for reading in readings:
        value = _lookup(reading.example, name)
        if value is not None and "[]" not in name and reading.engine.get(key) == value:
            return "supported"
    return "translated"


def _matters(field: Field) -> bool:
    return any(below.effect is not Effect.IGNORED for below in field.below.values())


def _lookup(table: Mapping[str, Any], name: str) -> Any:
    value: Any = table
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _allowed(field: Field) -> str:
    """What a value must be, in a few words."""
    if field.effect is not Effect.READ:
        return ""
    forms = [_form(form) for form in field.schema.get("anyOf", [field.schema]) if form]
    if field.below:
        forms.append(_list(field.listed) + "tables" if field.listed is not None else "a table")
    return " or ".join(form for form in forms if form).replace("|", "\\|")


def _form(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return _values(schema)
    kind = str(schema.get("type", ""))
    if "minimum" in schema:
        return f"{kind} {schema['minimum']:g} to {schema['maximum']:g}" if kind == "number" else (
            f"{kind} {schema['minimum']} to {schema['maximum']}"
        )
    if kind == "array":
        return _list(schema) + "items"
    if "maxLength" in schema:
        return f"string of at most {schema['maxLength']} characters"
    return f"{kind}, {schema['description']}" if "description" in schema else kind


def _list(limits: Mapping[str, Any]) -> str:
    low, high = limits.get("minItems", 0), limits.get("maxItems")
    if high is None:
        return ""
    return f"{low} to {high} "


def _values(schema: Mapping[str, Any]) -> str:
    return ", ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", ()))
