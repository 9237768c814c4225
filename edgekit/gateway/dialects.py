"""What the gateway asks of an engine, in the engine's own words; llama.cpp's are the ones used.

vLLM reads the same bodies but for a few names, takes a limit of tokens literally where llama.cpp
stops at the end of the context, and has other endpoints about tokens. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgekit.core.adapter import vllm_adapter
from edgekit.errors import EngineError
from edgekit.gateway.job import COUNT_TARGET, DETOKENIZE_TARGET, TOKENIZE_TARGET, Job

TOO_LONG_TYPE = "exceed_context_size_error"
OUT_OF_RANGE = "_M_range_check"
"""In llama.cpp's answer to a token id beyond the vocabulary."""
_TOO_LONG = re.compile(
    r"This model's maximum context length is \d+ tokens\. However, your prompt contains "
    r"(?:(?P<tokens>(?:at least )?\d+) input tokens|\d+ characters)"
    r"|Input length \((?P<length>\d+)\) exceeds model's maximum context length"
)
"""How vLLM refuses a prompt; so many characters that they cannot fit are not even counted."""
_NO_ROOM = "max_tokens must be at least 1, got 0"
"""How it refuses a prompt that leaves no room for an answer: the gateway never asks for none."""
_NO_TOKEN = re.compile(r"Token id \d+ is out of vocabulary")

Asked = tuple[str, dict[str, Any]]
"""A path and a body."""
_VLLM_NAMES = {"repeat_penalty": "repetition_penalty"}
_VLLM_LACKS = frozenset(("repeat_last_n",))
"""vLLM looks at the whole text where llama.cpp looks at so many tokens."""


def speaks_vllm(job: Job) -> bool:
    """Whether the job's model is served by vLLM, which alone reads safetensors."""
    return job.model.format == "safetensors"


def for_vllm(job: Job, fields: Mapping[str, Any]) -> Asked:
    """The request as vLLM reads it, which knows a model by its engine's name alone."""
    model = {"model": job.model.engine}
    if job.target == TOKENIZE_TARGET:
        special = fields["add_special"]
        return job.target, {
            **model, "prompt": fields["content"], "add_special_tokens": special,
            "return_token_strs": True,
        }
    if job.target == DETOKENIZE_TARGET:
        return job.target, {**model, "tokens": fields["tokens"]}
    if job.target == COUNT_TARGET:
        kept = {name: fields[name] for name in ("messages", "tools") if name in fields}
        return TOKENIZE_TARGET, {**model, **kept, "add_generation_prompt": True}
    body = {
        _VLLM_NAMES.get(name, name): value
        for name, value in fields.items()
        if name not in _VLLM_LACKS
    }
    for one in body.pop("lora", ()):  # of a safetensors model there is at most one (core.derived)
        model = {"model": vllm_adapter(one["id"])}
    if body.get("max_tokens", 0) >= job.model.context:
        del body["max_tokens"]  # "as much as there is room for" is what vLLM does without it
    return job.target, {**model, **body}


def from_vllm(job: Job, answer: dict[str, Any]) -> dict[str, Any]:
    """vLLM's answer as llama.cpp would have given it. Raises EngineError for an unknown shape."""
    try:
        return _in_our_words(job, answer)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("the engine's tokens have an unknown shape") from error


def refusal_from_vllm(job: Job, body: bytes) -> bytes:
    """What vLLM answers instead of an answer, as llama.cpp would say it where it matters to ask
    otherwise: a prompt that is too long, a number that is no token's.
    """
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body
    context = job.model.context
    found: str | None = None
    if too_long := _TOO_LONG.match(message):
        found = too_long["tokens"] or too_long["length"] or f"at least {context + 1}"
    elif message.startswith(_NO_ROOM):
        found = str(context)
    if found is not None:
        error = {"type": TOO_LONG_TYPE, "n_prompt_tokens": found, "n_ctx": context}
        return json.dumps({"error": error}).encode()
    if _NO_TOKEN.match(message):
        return json.dumps({"error": {"message": OUT_OF_RANGE}}).encode()
    return body


def _in_our_words(job: Job, answer: dict[str, Any]) -> dict[str, Any]:
    if job.target == TOKENIZE_TARGET:
        pairs = zip(answer["tokens"], answer["token_strs"], strict=True)
        return {"tokens": [{"id": token, "piece": piece} for token, piece in pairs]}
    if job.target == DETOKENIZE_TARGET:
        return {"content": answer["prompt"]}
    if job.target == COUNT_TARGET:
        return {"input_tokens": answer["count"]}
    return answer
