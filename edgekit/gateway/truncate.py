"""Cutting texts that are too long to embed, where the client says so (Ollama's `truncate`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from edgekit.errors import EngineError
from edgekit.gateway.engine_client import EngineClient
from edgekit.gateway.job import TOKENIZE_TARGET


async def cut_texts(client: EngineClient, texts: Sequence[str], limit: int) -> list[list[int]]:
    """The texts as tokens, at most `limit` each: those that begin and end a text are kept.

    Raises EngineError.
    """
    empty = await _tokens(client, "")
    last = empty[1:]  # a model marks the beginning, or both ends, or neither
    rows = await asyncio.gather(*(_tokens(client, text) for text in texts))
    return [row if len(row) <= limit else [*row[: limit - len(last)], *last] for row in rows]


async def _tokens(client: EngineClient, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": True}).encode()
    response = await client.request("POST", TOKENIZE_TARGET, body)
    try:
        answer = json.loads(await response.read())
        tokens = answer["tokens"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError("the engine's tokens have an unknown shape") from error
    finally:
        response.close()
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise EngineError("the engine's tokens have an unknown shape")
    return tokens
