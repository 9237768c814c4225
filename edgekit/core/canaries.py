"""Known questions of a model or an adapter with their answers, as the manifest has them."""

from __future__ import annotations

from edgekit.core.fields import Fields

MAX_CANARIES = 32

Canaries = tuple[tuple[str, str], ...]
"""Each a prompt and what its answer must hold."""


def canary_tables(canaries: Canaries) -> list[dict[str, str]]:
    """As plain JSON values."""
    return [{"prompt": prompt, "answer": answer} for prompt, answer in canaries]


def parse_canaries(fields: Fields) -> Canaries:
    """The key `canaries` of a manifest's model or adapter. Raises FormatError."""
    canaries = []
    for item in fields.items("canaries", max_items=MAX_CANARIES):
        prompt, answer = item.text("prompt", max_length=1000), item.text("answer", max_length=1000)
        canaries.append((prompt, answer))
        item.finish()
    return tuple(canaries)
