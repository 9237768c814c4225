"""Ask an engine what it must know: readiness is a right answer, not an open socket.

An embedding model is right when every prompt's vector is nearest to the vector of its own answer.
One that ranks is right when every query's first document is its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edgekit.core.adapter import asked_with, vllm_adapter
from edgekit.core.appliance import CanaryCheck
from edgekit.core.known_answers import (
    check_neighbours,
    check_ranks,
    check_text,
    ranking_questions,
)
from edgekit.core.vectors import read_scores
from edgekit.errors import EngineError, EngineNotReadyError
from edgekit.system import unix_http

POLL_S = 0.1
HEALTH_TIMEOUT_S = 10.0
ANSWER_TOKENS_PER_CHAR = 1
MIN_ANSWER_TOKENS = 32


def wait_healthy(socket_path: str, *, deadline: float, still_running: Callable[[], None]) -> None:
    """Wait until `/health` answers 200.

    `deadline` is on the monotonic clock; `still_running` raises when waiting has become pointless.
    Raises EngineNotReadyError.
    """
    while not is_healthy(socket_path):
        still_running()
        if time.monotonic() >= deadline:
            raise EngineNotReadyError("the engine did not become ready in time", where=socket_path)
        time.sleep(POLL_S)


def is_healthy(socket_path: str) -> bool:
    """True when the engine says so itself."""
    try:
        return unix_http.get(socket_path, "/health", timeout_s=HEALTH_TIMEOUT_S).status == 200
    except EngineError:
        return False


def check_vectors(socket_path: str, canaries: Sequence[CanaryCheck], *, timeout_s: float) -> None:
    """Embed all prompts and answers at once and look which are neighbours.

    Raises WrongAnswerError for the first prompt that is nearer to another's answer, EngineError
    when there are no vectors.
    """
    texts = [canary.prompt for canary in canaries] + [canary.answer for canary in canaries]
    request = {"model": canaries[0].model, "input": texts}
    reply = unix_http.post_json(socket_path, "/v1/embeddings", request, timeout_s=timeout_s)
    if reply.status != 200:
        raise EngineError(
            "the engine refuses the canary texts",
            where=canaries[0].model,
            found=f"HTTP status {reply.status}",
        )
    check_neighbours(canaries, _vectors_of(reply.json(), len(texts)))


def check_ranking(socket_path: str, canaries: Sequence[CanaryCheck], *, timeout_s: float) -> None:
    """Rank the documents of all checks for each query.

    Raises WrongAnswerError for the first query with another document first, EngineError when there
    is no ranking.
    """
    scores = []
    for query, documents in ranking_questions(canaries):
        request = {"model": canaries[0].model, "query": query, "documents": documents}
        reply = unix_http.post_json(socket_path, "/v1/rerank", request, timeout_s=timeout_s)
        if reply.status != 200:
            raise EngineError(
                "the engine refuses the canary query",
                where=canaries[0].model,
                found=f"HTTP status {reply.status}",
            )
        scores.append(read_scores(reply.json(), len(documents)))
    check_ranks(canaries, scores)


def _vectors_of(reply: object, count: int) -> list[list[float]]:
    try:
        rows = sorted(reply["data"], key=lambda row: row["index"])  # type: ignore[index]
        vectors = [[float(value) for value in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("the engine's answer has an unknown shape") from error
    if len(vectors) != count:
        raise EngineError("the engine embeds another number of texts than it was given")
    return vectors


def check_answer(
    socket_path: str, canary: CanaryCheck, *, timeout_s: float, kind: str = "llama.cpp"
) -> None:
    """Ask an engine of this kind greedily and look for the expected text in the answer.

    Raises WrongAnswerError when it is not there, EngineError when there is no answer.
    """
    request = {
        "model": canary.model,
        "messages": [{"role": "user", "content": canary.prompt}],
        "temperature": 0,
        "seed": 0,
        "stream": False,
        "max_tokens": max(MIN_ANSWER_TOKENS, len(canary.answer) * ANSWER_TOKENS_PER_CHAR),
        **_asked_with(canary.adapter, kind),
    }
    answer = unix_http.post_json(socket_path, "/v1/chat/completions", request, timeout_s=timeout_s)
    if answer.status != 200:
        raise EngineError(
            "the engine refuses the canary prompt",
            where=canary.model,
            found=f"HTTP status {answer.status}",
        )
    check_text(canary, _text_of(answer.json()))


def _asked_with(adapter: int | None, kind: str) -> dict[str, object]:
    if adapter is None:
        return {}
    return {"model": vllm_adapter(adapter)} if kind == "vllm" else {"lora": asked_with([adapter])}


def _text_of(answer: object) -> str:
    try:
        content = answer["choices"][0]["message"]["content"]  # type: ignore[index]
    except (KeyError, IndexError, TypeError) as error:
        raise EngineError("the engine's answer has an unknown shape") from error
    return str(content)
