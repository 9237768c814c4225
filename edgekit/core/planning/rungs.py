"""The ladder: in which order ways to serve are tried. Pure.

Quality comes first: the whole context for everybody, then a cache of 8 bits, then fewer people at
once, then less context down to a floor; only then the next smaller variant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgekit.core.planning.values import Wishes

CONTEXT_FLOOR = 4096
"""Below this a chat forgets its own beginning; a smaller variant serves better."""
CONTEXT_STEP = 256
MAX_SLOTS = 16
VLLM_MAX_SLOTS = 256
VLLM_USERS = 4
"""From so many people at once vLLM is preferred where it can run (research: between 2 and 4)."""


@dataclass(frozen=True, slots=True)
class Rung:
    """Type of the cache's elements, people served at once, tokens for each of them."""

    kv_type: str
    slots: int
    context: int


def wanted_context(asked: int, trained: int, wishes: Wishes) -> int:
    """Tokens per person that are aimed at: never more than the weights were trained for."""
    wanted = wishes.context if wishes.context is not None else asked
    return min(wanted, trained) if trained else wanted


def ladder(
    *, context: int, users: int, kv_types: tuple[str, ...], wishes: Wishes, most: int = MAX_SLOTS
) -> Iterator[Rung]:
    """Rungs in order of preference; `kv_types` are the legal ones, best first."""
    if wishes.kv_type is not None:
        kv_types = (wishes.kv_type,)
    slots = wishes.slots if wishes.slots is not None else min(users, most)
    for kv_type in kv_types:
        yield Rung(kv_type, slots, context)
    small = kv_types[-1]
    fewest = slots if wishes.slots is not None else 1
    for count in range(slots - 1, fewest - 1, -1):
        yield Rung(small, count, context)
    if wishes.context is not None:
        return
    while context // 2 >= CONTEXT_FLOOR:
        context = context // 2 // CONTEXT_STEP * CONTEXT_STEP
        yield Rung(small, fewest, context)
