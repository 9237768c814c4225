"""What the gateway asks of an engine, in the engine's own words; llama.cpp's are the ones used.

vLLM reads the same bodies but for a few names, takes a limit of tokens literally where llama.cpp
stops at the end of the context, and has other endpoints about tokens. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.errors import EngineError
from edgekit.gateway.job import COUNT_TARGET, DETOKENIZE_TARGET, TOKENIZE_TARGET, Job

Asked = tuple[str, dict[str, Any]]
"""A path and a body."""
_VLLM_NAMES = {"repeat_penalty": "repetition_penalty"}
_VLLM_LACKS = frozenset(("repeat_last_n",))
"""vLLM looks at the whole text where llama.cpp looks at so many tokens."""


def speaks_vllm(job: Job) -> bool:
    """Whether the job's model is served by vLLM, which alone reads safetensors."""
    return job.model.format == "safetensors"


def for_vllm(job: Job, fields: Mapping[str, Any]) -> Asked:
    """The request as vLLM reads it."""
    model = {"model": job.model.name}
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
    if body.get("max_tokens", 0) >= job.model.context:
        del body["max_tokens"]  # "as much as there is room for" is what vLLM does without it
    return job.target, {**model, **body}


def from_vllm(job: Job, answer: dict[str, Any]) -> dict[str, Any]:
    """vLLM's answer as llama.cpp would have given it. Raises EngineError for an unknown shape."""
    try:
        return _in_our_words(job, answer)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("the engine's tokens have an unknown shape") from error


def _in_our_words(job: Job, answer: dict[str, Any]) -> dict[str, Any]:
    if job.target == TOKENIZE_TARGET:
        pairs = zip(answer["tokens"], answer["token_strs"], strict=True)
        return {"tokens": [{"id": token, "piece": piece} for token, piece in pairs]}
    if job.target == DETOKENIZE_TARGET:
        return {"content": answer["prompt"]}
    if job.target == COUNT_TARGET:
        return {"input_tokens": answer["count"]}
    return answer
