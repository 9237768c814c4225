"""A selection as plain values, for `plan --json`, the plan on disk and the receipt. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgekit.core.planning.values import Candidate, MemoryNeed, Selection


def selection_table(selection: Selection) -> dict[str, Any]:
    """A selection as plain JSON values."""
    return {
        "model": selection.model.name,
        "shared_room": selection.shared_room,
        "chosen": candidate_table(selection.chosen),
        "candidates": [candidate_table(candidate) for candidate in selection.candidates],
    }


def candidate_table(candidate: Candidate) -> dict[str, Any]:
    """A candidate as plain JSON values; its numbers stand beside its name, not below `serving`."""
    table = asdict(candidate)
    table |= table.pop("serving")
    table["need"] = need_table(candidate.need)
    return table


def need_table(need: MemoryNeed | None) -> dict[str, Any] | None:
    """A memory sum in bytes."""
    if need is None:
        return None
    terms = [{"name": t.name, "host": t.host, "device": t.device} for t in need.terms]
    return {"terms": terms, "host": need.host, "device": need.device, "total": need.total,
            "cached": need.cached}
