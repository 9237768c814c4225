"""Answers of `/v1/rerank`: the best documents first, with their scores."""

from __future__ import annotations

from typing import Any

from edgekit.core.vectors import read_scores
from edgekit.gateway.surfaces.translator import WholeTranslator, encode


class RerankTranslator(WholeTranslator):
    """A ranking, cut to what was asked for."""

    def whole(self, answer: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        documents = self._job.body["documents"]
        scores = read_scores(answer, len(documents))
        # of equal scores the earlier document comes first
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        tokens = self._outcome.tokens_in or 0
        return encode(
            {
                "object": "list",
                "model": self._job.asked_name,
                "results": [
                    self._row(index, scores[index]) for index in order[: self._job.echo["top_n"]]
                ],
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    def _row(self, index: int, score: float) -> dict[str, Any]:
        row: dict[str, Any] = {"index": index, "relevance_score": score}
        if self._job.echo["return_documents"]:
            row["document"] = {"text": self._job.body["documents"][index]}
        return row
