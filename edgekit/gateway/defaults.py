"""What a derived model adds to a request: its Modelfile's words, and settings left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgekit.core.adapter import asked_with
from edgekit.core.modelfile import Modelfile
from edgekit.gateway.job import CHAT_TARGET, COUNT_TARGET, TEXT_TARGET, Job


def with_defaults(job: Job) -> Job:
    """The same job as the derived model is asked; any other as it is.

    As in Ollama, what a request says goes before what the Modelfile says, and its messages come
    before the request's own. What is digested for the audit log is what the client sent: the
    Modelfile is in the log by its own digest, since it was made.
    """
    made = job.model.defaults
    if made is None:
        return job
    body = dict(job.body)
    if job.target in (CHAT_TARGET, COUNT_TARGET) and "messages" in body:
        body["messages"] = _messages(made, body["messages"])
    if job.target in (CHAT_TARGET, TEXT_TARGET):
        body |= _parameters(made, body, job.model.context)
        if made.adapters:
            numbers = [adapter.name for adapter in job.model.adapters]
            body["lora"] = asked_with(map(numbers.index, made.adapters))
    return replace(job, body=body)


def _messages(made: Modelfile, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    told = 0
    while told < len(messages) and messages[told]["role"] == "system":
        told += 1
    system = messages[:told]
    if made.system and not system:
        system = [{"role": "system", "content": made.system}]
    earlier = [{"role": role, "content": text} for role, text in made.messages]
    return [*system, *earlier, *messages[told:]]


def _parameters(made: Modelfile, body: Mapping[str, Any], context: int) -> dict[str, Any]:
    """Those that the request leaves open, by the engine's names."""
    found: dict[str, Any] = {}
    for name, value in made.parameters:
        if name == "num_predict":
            assert isinstance(value, int)
            # surfaces fill in the whole context where nothing is asked for
            if 0 < value < body.get("max_tokens", context) == context:
                found["max_tokens"] = value
        elif name not in body:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found
