"""Whether a model answers its known questions rightly. Pure; who asks is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.appliance import CanaryCheck
from edgekit.core.vectors import Vector, cosine, nearest
from edgekit.errors import WrongAnswerError

_HINT = "edgekit verify SET, then install again"


def check_text(canary: CanaryCheck, answer: str) -> None:
    """Raises WrongAnswerError unless the answer contains what it must."""
    if canary.answer not in answer:
        raise WrongAnswerError(
            f"{canary.model} answers, but not what the set says it must",
            where=canary.prompt[:100],
            needed=canary.answer[:200],
            found=answer[:200],
            hint=_HINT,
        )


def ranking_questions(canaries: Sequence[CanaryCheck]) -> list[tuple[str, list[str]]]:
    """What a model that ranks is asked: each query, with the documents of all."""
    documents = [canary.answer for canary in canaries]
    return [(canary.prompt, documents) for canary in canaries]


def check_ranks(canaries: Sequence[CanaryCheck], scores: Sequence[Sequence[float]]) -> None:
    """`scores` has those of all documents for each query, in order.

    Raises WrongAnswerError for the first query whose best document is not its own.
    """
    for index, canary in enumerate(canaries):
        found = max(range(len(canaries)), key=scores[index].__getitem__)
        if found != index:
            raise WrongAnswerError(
                f"{canary.model} ranks, but not as the set says it must",
                where=canary.prompt[:100],
                needed=f"{canary.answer[:100]!r} first",
                found=f"{canaries[found].answer[:100]!r}",
                hint=_HINT,
            )


def check_neighbours(canaries: Sequence[CanaryCheck], vectors: Sequence[Vector]) -> None:
    """`vectors` are those of all prompts, then of all answers, in order.

    Raises WrongAnswerError for the first prompt whose nearest answer is not its own.
    """
    prompts, answers = vectors[: len(canaries)], vectors[len(canaries) :]
    for index, canary in enumerate(canaries):
        found = nearest(prompts[index], answers)
        near = cosine(prompts[index], answers[index])
        if found != index or near <= 0:
            raise WrongAnswerError(
                f"{canary.model} embeds, but not as the set says it must",
                where=canary.prompt[:100],
                needed=f"nearest to {canary.answer[:100]!r} (cosine {near:.3f})",
                found=f"nearest to {canaries[found].answer[:100]!r}",
                hint=_HINT,
            )
