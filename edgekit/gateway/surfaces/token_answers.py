"""Answers about tokens: their ids, their text, and how many there are."""

from __future__ import annotations

from typing import Any

from edgekit.errors import EngineError
from edgekit.gateway.job import DETOKENIZE_TARGET, TOKENIZE_TARGET
from edgekit.gateway.surfaces.translator import WholeTranslator, encode


class TokenTranslator(WholeTranslator):
    """Ids, texts, counts."""

    def whole(self, answer: dict[str, Any], text: str) -> bytes:  # noqa: ARG002
        try:
            return encode(self._table(answer))
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError("the engine's tokens have an unknown shape") from error

    def _table(self, answer: dict[str, Any]) -> dict[str, Any]:
        if self._job.target == DETOKENIZE_TARGET:
            return {"prompt": str(answer["content"])}
        if self._job.target == TOKENIZE_TARGET:
            tokens = answer["tokens"]
            return {
                "count": len(tokens),
                "max_model_len": self._job.model.context,
                "tokens": [int(token["id"]) for token in tokens],
                "token_strs": [_piece(token["piece"]) for token in tokens]
                if self._job.echo["pieces"]
                else None,
            }
        count = int(answer["input_tokens"])
        if self._job.endpoint == "/v1/responses/input_tokens":
            return {"object": "response.input_tokens", "input_tokens": count}
        return {"input_tokens": count}


def _piece(piece: str | list[int]) -> str:
    """A token's text; bytes that are no text by themselves as replacement characters."""
    return piece if isinstance(piece, str) else bytes(piece).decode("utf-8", errors="replace")
