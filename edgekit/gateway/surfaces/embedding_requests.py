"""`/v1/embeddings`, `/api/embed` and `/api/embeddings` request bodies to jobs."""

from __future__ import annotations

from typing import Any

from edgekit.core.appliance import Appliance
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    EMBED_TARGET,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    Job,
    audit_params,
    digest_input,
    find_able,
)
from edgekit.gateway.problems import ApiError, bad_field
from edgekit.gateway.surfaces.keep_alive import take_keep_alive

MAX_INPUTS = 2048
MAX_DIMENSIONS = 1 << 16


def parse_openai(body: Body, appliance: Appliance) -> Job:
    """A `/v1/embeddings` body. Raises ApiError."""
    texts, dimensions = _input(body), body.integer("dimensions", 1, MAX_DIMENSIONS)
    form = body.choice("encoding_format", ("float", "base64"), default="float")
    body.ignore(frozenset({"user", "input_type"}))
    return _job("/v1/embeddings", body, appliance, texts, dimensions, base64=form == "base64")


def parse_ollama(body: Body, appliance: Appliance) -> Job:
    """An `/api/embed` body. Raises ApiError."""
    texts, dimensions = _input(body), body.integer("dimensions", 1, MAX_DIMENSIONS)
    keep_s = take_keep_alive(body)
    truncate = body.flag("truncate", default=True)  # as Ollama does when nothing is said
    body.ignore(frozenset({"options"}))
    return _job(
        "/api/embed", body, appliance, texts, dimensions, keep_s=keep_s, truncate=truncate
    )


def parse_ollama_legacy(body: Body, appliance: Appliance) -> Job:
    """An `/api/embeddings` body: one prompt. Raises ApiError."""
    text = body.text("prompt", max_chars=MAX_TEXT_CHARS)
    keep_s = take_keep_alive(body)
    body.ignore(frozenset({"options"}))
    return _job("/api/embeddings", body, appliance, [text], None, keep_s=keep_s)


def _job(
    endpoint: str,
    body: Body,
    appliance: Appliance,
    texts: list[str],
    dimensions: int | None,
    *,
    base64: bool = False,
    keep_s: float | None = None,
    truncate: bool = False,
) -> Job:
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "embedding")
    body.finish()
    return Job(
        endpoint=endpoint,
        model=model,
        asked_name=name,
        stream=False,
        include_usage=True,
        target=EMBED_TARGET,
        body={"model": model.name, "input": texts, "encoding_format": "float"},
        params=audit_params({"inputs": len(texts), "dimensions": dimensions}),
        prompt=digest_input(texts),
        echo={"dimensions": dimensions, "base64": base64},
        keep_s=keep_s,
        truncate=truncate,
    )


def _input(body: Body) -> list[str]:
    one = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_INPUTS}
    value: Any = body.raw("input", {"anyOf": [one, many]}, required=True)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not 0 < len(values) <= MAX_INPUTS:
        raise bad_field("input", f"must be a text or 1 to {MAX_INPUTS} texts")
    if all(isinstance(item, int | list) for item in values):
        raise ApiError(
            400,
            "unsupported_content",
            "input: token ids of another model mean nothing to this one; send text "
            "(langchain: check_embedding_ctx_length=False)",
            param="input",
        )
    if not all(isinstance(item, str) and 0 < len(item) <= MAX_TEXT_CHARS for item in values):
        raise bad_field("input", "every text must have at least one character")
    return values
