"""`/v1/rerank` request bodies to jobs, as Jina, vLLM and llama.cpp take them."""

from __future__ import annotations

from typing import Any

from edgekit.core.appliance import Appliance
from edgekit.gateway.body import Body
from edgekit.gateway.job import (
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    RERANK_TARGET,
    Job,
    audit_params,
    digest_input,
    find_able,
)
from edgekit.gateway.problems import bad_field

MAX_DOCUMENTS = 1000
_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS}
_TABLE = {
    "type": "object",
    "properties": {"text": _TEXT},
    "required": ["text"],
    "additionalProperties": False,
}
_DOCUMENTS = {
    "type": "array",
    "items": {"anyOf": [_TEXT, _TABLE]},
    "minItems": 1,
    "maxItems": MAX_DOCUMENTS,
}


def parse_rerank(body: Body, appliance: Appliance) -> Job:
    """A `/v1/rerank` body. Raises ApiError."""
    name = body.text("model", max_chars=MAX_NAME_CHARS)
    model = find_able(appliance, name, "rerank")
    query = body.text("query", max_chars=MAX_TEXT_CHARS)
    if not query:
        raise bad_field("query", "must have at least one character")
    documents = _documents(body.raw("documents", _DOCUMENTS, required=True))
    best = body.integer("top_n", 1, MAX_DOCUMENTS)
    returned = body.flag("return_documents", default=True)
    body.ignore(frozenset({"user", "max_tokens_per_doc", "truncate_prompt_tokens"}))
    body.finish()
    return Job(
        endpoint="/v1/rerank",
        model=model,
        asked_name=name,
        stream=False,
        include_usage=True,
        target=RERANK_TARGET,
        body={"model": model.name, "query": query, "documents": documents},
        params=audit_params({"documents": len(documents), "top_n": best}),
        prompt=digest_input({"query": query, "documents": documents}),
        echo={"top_n": best or len(documents), "return_documents": returned},
    )


def _documents(value: Any) -> list[str]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_DOCUMENTS:
        raise bad_field("documents", f"must be 1 to {MAX_DOCUMENTS} texts")
    texts = [
        item["text"] if isinstance(item, dict) and item.keys() == {"text"} else item
        for item in value
    ]
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_TEXT_CHARS for text in texts):
        raise bad_field("documents", 'each must be a text, or {"text": ...}, and not empty')
    return texts
