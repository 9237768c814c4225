"""`context` of Ollama's generate: the conversation so far, handed to the client and back.

To clients it is a list of numbers that they keep and return. Ollama's numbers are tokens; these are
the UTF-8 bytes of the messages as JSON, so that nothing has to be kept here between requests. What
comes back is believed no more than the messages of `/api/chat` are.
"""

from __future__ import annotations

import json
from typing import Any

from edgekit.core.strict_json import parse_strict
from edgekit.errors import FormatError
from edgekit.gateway.body import MAX_BODY_BYTES, Body
from edgekit.gateway.job import MAX_MESSAGES, MAX_TEXT_CHARS
from edgekit.gateway.problems import ApiError

MAX_NUMBERS = MAX_BODY_BYTES // 2
"""A number takes two characters at least."""
_SCHEMA = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 255},
    "maxItems": MAX_NUMBERS,
}
_ROLES = ("system", "user", "assistant")

Message = dict[str, str]
"""`role` and `content`."""


def take_context(body: Body) -> list[Message]:
    """The messages of an earlier answer's `context`; none without one. Raises ApiError 400."""
    numbers = body.raw("context", _SCHEMA)
    if numbers is None or numbers == []:
        return []
    try:
        return _messages(bytes(numbers))
    except (TypeError, ValueError, FormatError) as error:
        raise ApiError(
            400,
            "invalid_value",
            "context: not one that this appliance gave; send the conversation to /api/chat",
            param="context",
        ) from error


def make_context(messages: list[Message]) -> list[int]:
    """These messages as numbers from 0 to 255."""
    pairs = [[message["role"], message["content"]] for message in messages]
    return list(json.dumps(pairs, ensure_ascii=False).encode("utf-8", errors="replace"))


def _messages(data: bytes) -> list[Message]:
    pairs: Any = parse_strict(data, max_bytes=MAX_BODY_BYTES, what="context", max_depth=3)
    if not isinstance(pairs, list) or len(pairs) > MAX_MESSAGES:
        raise ValueError
    messages: list[Message] = []
    for role, text in pairs:
        if role not in _ROLES or not isinstance(text, str) or len(text) > MAX_TEXT_CHARS:
            raise ValueError
        messages.append({"role": role, "content": text})
    return messages
