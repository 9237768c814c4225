"""Vectors of embedding models, and scores of those that rank. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgekit.errors import EngineError

Vector = Sequence[float]


def cosine(first: Vector, second: Vector) -> float:
    """The cosine of the angle between two vectors of one length; 0 when either is zero."""
    product = math.sqrt(math.fsum(x * x for x in first) * math.fsum(y * y for y in second))
    if not product or len(first) != len(second):
        return 0.0
    return math.fsum(x * y for x, y in zip(first, second, strict=True)) / product


def nearest(vector: Vector, candidates: Sequence[Vector]) -> int:
    """The index of the candidate with the greatest cosine; the first one of equals."""
    return max(range(len(candidates)), key=lambda index: cosine(vector, candidates[index]))


def shortened(vector: Vector, dimensions: int) -> list[float]:
    """The first `dimensions` values, scaled to length 1, as Matryoshka-trained models allow."""
    cut = list(vector[:dimensions])
    length = math.sqrt(math.fsum(value * value for value in cut))
    return [value / length for value in cut] if length else cut


def read_scores(answer: Any, count: int) -> list[float]:
    """The scores of an engine's `/v1/rerank`, in the documents' order. Raises EngineError."""
    try:
        found = {row["index"]: float(row["relevance_score"]) for row in answer["results"]}
        scores = [found[index] for index in range(count)]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("the engine's ranking has an unknown shape") from error
    if not all(map(math.isfinite, scores)):
        raise EngineError("the engine's ranking has a score that is no number")
    return scores
