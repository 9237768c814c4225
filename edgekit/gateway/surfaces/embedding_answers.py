"""Answers of the embedding endpoints: the engine's vectors in each protocol's shape."""

from __future__ import annotations

import base64
import struct
from typing import Any

from edgekit.core.vectors import shortened
from edgekit.errors import EngineError
from edgekit.gateway.surfaces.translator import WholeTranslator, encode


class EmbeddingTranslator(WholeTranslator):
    """Vectors, in the form that was asked for."""

    def whole(self, answer: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        vectors = _vectors(answer, len(self._job.body["input"]))
        if (dimensions := self._job.echo["dimensions"]) is not None:
            vectors = [shortened(vector, dimensions) for vector in vectors]
        return encode(self._table(vectors))

    def _table(self, vectors: list[list[float]]) -> dict[str, Any]:
        if self._job.endpoint == "/api/embeddings":
            return {"embedding": vectors[0]}
        if self._job.endpoint == "/api/embed":
            times = self._outcome.durations()
            kept = ("total_duration", "load_duration", "prompt_eval_count")
            return {
                "model": self._job.asked_name,
                "embeddings": vectors,
                **{key: times[key] for key in kept},
            }
        tokens = self._outcome.tokens_in or 0
        return {
            "object": "list",
            "model": self._job.asked_name,
            "data": [
                {"object": "embedding", "index": index, "embedding": self._encoded(vector)}
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _encoded(self, vector: list[float]) -> list[float] | str:
        """As OpenAI's clients like it best: 32-bit floats, little-endian, base64."""
        if not self._job.echo["base64"]:
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _vectors(answer: dict[str, Any], count: int) -> list[list[float]]:
    """One vector for each input, in its order. Raises EngineError."""
    try:
        rows = {row["index"]: row["embedding"] for row in answer["data"]}
        vectors = [[float(value) for value in rows[index]] for index in range(count)]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("the engine's vectors have an unknown shape") from error
    if len({len(vector) for vector in vectors}) != 1 or not vectors[0]:
        raise EngineError("the engine's vectors have different lengths")
    return vectors
