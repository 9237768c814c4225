"""What clients may call, as OpenAPI 3.1: served at `/openapi.json`, shown by the console.

The bodies are what the endpoints' own parsers ask for (`gateway/describe.py`);
tests/gateway/test_openapi.py asks the gateway at both sides of each range, and for every path.
"""

from __future__ import annotations

from typing import Any

from edgekit import __version__
from edgekit.core.appliance import Appliance
from edgekit.gateway.body import MAX_BODY_BYTES
from edgekit.gateway.describe import Describer, body_schema, describe
from edgekit.gateway.problems import Surface, surface_of
from edgekit.gateway.surfaces.endpoints import ENDPOINTS
from edgekit.gateway.surfaces.ollama_requests import shown_name

Schema = dict[str, Any]
Media = dict[str, Any]

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
SHOW = "/api/show"
ANY = "chat, embed or admin"
STREAMS = {Surface.OLLAMA: "application/x-ndjson"}
"""How streamed answers come; server-sent events where nothing is said."""

_ERRORS = {
    "400": "a field is unknown, of another type or out of range",
    "401": "no API key, or one that is not valid",
    "403": "the key lacks the scope, or the Host is not this appliance's",
    "404": "no such model or path",
    "413": "the body is too large",
    "415": "the body is compressed",
    "429": "the key's quota is used up; Retry-After says how long",
    "500": "the gateway failed; its log has the details",
    "502": "the engine broke off its answer",
    "503": "the queue is full or a part is down; see Retry-After",
    "504": "the generation took too long",
}


def openapi_document(appliance: Appliance) -> dict[str, Any]:
    """The description for this appliance: its models are the allowed values of `model`.

    A call that none of them can serve is left out.
    """
    names = [model.name for model in appliance.models]
    paths: dict[str, Any] = {}
    for path, text in PUBLIC_PATHS.items():
        paths[path] = {"get": {**_operation(path, text, _public_media(path)), "security": []}}
    for path, (scope, text) in READING_PATHS.items():
        media = _json() if path != "/metrics" else {"text/plain": {}}
        paths[path] = {"get": {**_operation(path, text, media), "x-edgekit-scope": scope}}
    paths["/v1/models/{model}"]["get"]["parameters"] = [
        {"name": "model", "in": "path", "required": True, "schema": {"enum": names}}
    ]
    for path, endpoint in ENDPOINTS.items():
        able = [m.name for m in appliance.models if endpoint.serves(m)]
        if not able:
            continue
        found, readings = describe(path, appliance)
        media = _json(body_schema(found, able))
        media["application/json"]["examples"] = {
            f"example{number}": {"value": {"model": able[0], **reading.example}}
            for number, reading in enumerate(readings, 1)
        }
        streams = "stream" in found.below
        paths[path] = _asking(path, endpoint.title, endpoint.scope, media, streams=streams)
    shown = Describer({"model": names[0]})
    shown_name(shown)
    media = _json({**body_schema(shown.found, names), "required": ["model"]})
    paths[SHOW] = _asking(SHOW, "One model (Ollama)", ANY, media, streams=False)
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


def _asking(path: str, title: str, scope: str, media: Media, *, streams: bool) -> Schema:
    answers = _json()
    if streams:
        answers[STREAMS.get(surface_of(path), "text/event-stream")] = {}
    return {
        "post": {
            **_operation(path, title, answers),
            "x-edgekit-scope": scope,
            "requestBody": {"required": True, "content": media},
        }
    }


def _operation(path: str, text: str, media: Media) -> Schema:
    good = {"description": "the answer", "content": media}
    if path == "/docs":
        good = {"description": "the answer"}
    refused = {
        status: {"description": text, "content": _json()} for status, text in _ERRORS.items()
    }
    return {
        "summary": text,
        "responses": {"307" if path == "/docs" else "200": good, **refused},
    }


def _public_media(path: str) -> Media:
    text = {"/": "text/plain", "/console": "text/html"}.get(path)
    return {text: {}} if text else _json()


def _json(schema: Schema | None = None) -> Media:
    return {"application/json": {"schema": schema or {"type": "object"}}}
