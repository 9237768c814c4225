"""Whether and how hard a model thinks before it answers, as the clients of each protocol ask it.

Templates of thinking models read `enable_thinking` (Qwen and those after it) or `reasoning_effort`
(gpt-oss); both engines hand these to the template as `chat_template_kwargs`. Nothing else a client
sends ever reaches a template's variables.
"""

from __future__ import annotations

from typing import Any

from edgekit.core.appliance import ServedModel
from edgekit.gateway.problems import ApiError, bad_field

EFFORTS = ("low", "medium", "high")
"""What templates know; OpenAI's `minimal` and `xhigh` become the nearest."""

_OPENAI_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high",
                   "xhigh": "high", "max": "high"}  # fmt: skip


def thinking_fields(think: bool | str | None) -> dict[str, Any]:
    """The engine's fields for off, on or an effort; none for the model's own way (None)."""
    if think is None:
        return {}
    if isinstance(think, bool):
        return {"chat_template_kwargs": {"enable_thinking": think}}
    return {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": think}}


def read_think(value: Any, model: ServedModel, name: str) -> bool | str | None:
    """Ollama's `think`: a boolean or an effort. Raises ApiError 400, as Ollama does, for a model
    that cannot; asking such a model not to think is no request at all.
    """
    if value is None or value is False:
        return value if "thinking" in model.capabilities else None
    if value is not True and value not in EFFORTS:
        raise bad_field("think", f"must be a boolean or one of {', '.join(EFFORTS)}")
    if "thinking" not in model.capabilities:
        raise ApiError(
            400, "unsupported", f"{name[:100]!r} does not support thinking", param="think"
        )
    return True if value is True else str(value)


def read_effort(value: Any, model: ServedModel, param: str) -> bool | str | None:
    """OpenAI's `reasoning_effort`; models that do not think ignore it, as OpenAI's do."""
    if value is None:
        return None
    if value != "none" and value not in _OPENAI_EFFORTS:
        raise bad_field(param, f"must be none or one of {', '.join(_OPENAI_EFFORTS)}")
    if "thinking" not in model.capabilities:
        return None
    return False if value == "none" else _OPENAI_EFFORTS[value]
