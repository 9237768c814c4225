"""What clients may call, as OpenAPI 3.1: served at `/openapi.json`, shown by the console.

The ranges are those that policy enforces; tests/gateway/test_openapi.py asks the gateway at both
sides of each of them, and for every path.
"""

from __future__ import annotations

from typing import Any

from edgekit import __version__
from edgekit.core.appliance import Appliance
from edgekit.gateway.body import MAX_BODY_BYTES, MAX_STOP_CHARS, MAX_STOPS
from edgekit.gateway.job import MAX_MESSAGES, MAX_NAME_CHARS, SEED_LIMIT

Schema = dict[str, Any]

PUBLIC_PATHS = {
    "/": "Says what Ollama says, for clients that look for it",
    "/healthz": "Whether the gateway lives",
    "/readyz": "Whether requests can be served: engines give tokens, audit and disk are good",
    "/api/version": "The version of Ollama's API that is followed",
    "/console": "The operator's page",
    "/docs": "This description, for people",
}
READING_PATHS = {
    "/v1/models": ("chat, embed or admin", "Models (OpenAI)"),
    "/v1/models/{model}": ("chat, embed or admin", "One model (OpenAI)"),
    "/api/tags": ("chat, embed or admin", "Models (Ollama)"),
    "/api/ps": ("chat, embed or admin", "Models whose engines run (Ollama)"),
    "/openapi.json": ("chat, embed or admin", "This description"),
    "/metrics": ("metrics or admin", "Prometheus text: edgekit's names and the engines' own"),
    "/edgekit/state": ("admin", "What the console shows"),
}
ASKING_PATHS = {
    "/v1/chat/completions": ("chat", "Chat (OpenAI)"),
    "/v1/completions": ("chat", "Continue a text (OpenAI)"),
    "/v1/responses": ("chat", "Responses, stateless (OpenAI)"),
    "/v1/messages": ("chat", "Messages (Anthropic)"),
    "/v1/embeddings": ("embed", "Embeddings (OpenAI)"),
    "/api/chat": ("chat", "Chat (Ollama)"),
    "/api/generate": ("chat", "Continue a text (Ollama)"),
    "/api/embed": ("embed", "Embeddings (Ollama)"),
    "/api/embeddings": ("embed", "One embedding (Ollama's older call)"),
    "/api/show": ("chat, embed or admin", "One model (Ollama)"),
}


def openapi_document(appliance: Appliance) -> dict[str, Any]:
    """The description for this appliance: its models are the allowed values of `model`."""
    names = [model.name for model in appliance.models]
    paths: dict[str, Any] = {}
    for path, text in PUBLIC_PATHS.items():
        paths[path] = {"get": {**_operation(text), "security": []}}
    for path, (scope, text) in READING_PATHS.items():
        paths[path] = {"get": {**_operation(text), "x-edgekit-scope": scope}}
    paths["/v1/models/{model}"]["get"]["parameters"] = [
        {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    schemas = _schemas(names)
    for path, (scope, text) in ASKING_PATHS.items():
        schema = schemas.get(path, {"type": "object", "required": ["model"]})
        content = {"application/json": {"schema": schema}}
        paths[path] = {
            "post": {
                **_operation(text),
                "x-edgekit-scope": scope,
                "requestBody": {"required": True, "content": content},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{appliance.name} {appliance.version}",
            "version": __version__,
            "description": f"Request bodies have at most {MAX_BODY_BYTES} bytes. "
            "Fields that are not listed are refused.",
        },
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


def _operation(text: str) -> dict[str, Any]:
    return {
        "summary": text,
        "responses": {
            "200": {"description": "the answer"},
            "400": {"description": "a field is unknown, of another type or out of range"},
            "401": {"description": "no API key, or one that is not valid"},
            "403": {"description": "the key lacks the scope, or the Host is not this appliance's"},
            "404": {"description": "no such model or path"},
            "429": {"description": "the key's quota is used up; Retry-After says how long"},
            "503": {"description": "the queue is full or a part is down; see Retry-After"},
        },
    }


def _schemas(models: list[str]) -> dict[str, Schema]:
    """Bodies of the four endpoints whose fields all clients share."""
    model = {"type": "string", "maxLength": MAX_NAME_CHARS, "examples": models}
    messages = {"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES}
    chat = {
        "model": model,
        "messages": messages,
        **_sampling(),
        "max_completion_tokens": _integer(1, None),
        "n": {"type": "integer", "enum": [1]},
        "logprobs": {"type": "boolean"},
        "top_logprobs": _integer(0, 20),
        "logit_bias": {"type": "object", "description": "token ids to -100..100"},
        "tools": {"type": "array", "maxItems": 128},
        "tool_choice": {"description": "none, auto, required or a function"},
        "parallel_tool_calls": {"type": "boolean"},
        "response_format": {"type": "object", "description": "text, json_object, json_schema"},
        **_streaming(),
    }
    completion = {
        "model": model,
        "prompt": {"type": "string"},
        **_sampling(),
        "logprobs": _integer(0, 5),
        **_streaming(),
    }
    return {
        "/v1/chat/completions": _object(chat, "model", "messages"),
        "/v1/completions": _object(completion, "model", "prompt"),
    }


def _sampling() -> Schema:
    return {
        "temperature": _number(0, 2),
        "top_p": _number(0, 1),
        "top_k": _integer(0, 1000),
        "min_p": _number(0, 1),
        "repeat_penalty": _number(0, 2),
        "presence_penalty": _number(-2, 2),
        "frequency_penalty": _number(-2, 2),
        "seed": _integer(-SEED_LIMIT, SEED_LIMIT),
        "stop": {
            "description": f"a text or at most {MAX_STOPS}, each of 1 to {MAX_STOP_CHARS} chars"
        },
        "max_tokens": _integer(1, None),
    }


def _streaming() -> Schema:
    return {"stream": {"type": "boolean"}, "stream_options": {"type": "object"}}


def _object(properties: Schema, *required: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _integer(low: int, high: int | None) -> Schema:
    """A range; without an upper end the model's context is it."""
    schema: Schema = {"type": "integer", "minimum": low}
    return schema if high is None else {**schema, "maximum": high}
