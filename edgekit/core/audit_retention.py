"""Which of a log's oldest records may go, and what a log must say of records that are gone. Pure.

A record of type `export` says that records were carried away, one of type `retention` that records
were removed. Both are written before the fact counts, so a log without its beginning is intact only
when it says itself, further down, that this beginning was removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.errors import AuditMissingError

EXPORT = "export"
RETENTION = "retention"


@dataclass(frozen=True, slots=True)
class Removal:
    """Records up to `last` were removed, after which the chain had this value (hex); `forced` says
    that not all of them had been exported. `seq` is the record that says so."""

    seq: int
    last: int
    chain: str
    forced: bool


def parse_removal(record: Mapping[str, Any]) -> Removal:
    """What a record of type `retention` says."""
    return Removal(
        record["seq"],
        int(record.get("last", 0)),
        str(record.get("chain", "")),
        bool(record.get("forced")),
    )


def exported_to(exports: Iterable[Mapping[str, Any]], first: int) -> int:
    """The last record up to which everything from record `first` on was exported; `first` - 1 for
    nothing. `exports` are the log's records of that type."""
    reached = first - 1
    ranges = sorted((int(r.get("first", 0)), int(r.get("last", 0))) for r in exports)
    for begins, ends in ranges:
        if 0 < begins <= reached + 1:
            reached = max(reached, ends)
    return reached


def find_removal(first: int, chain: str, removals: Iterable[Removal]) -> Removal:
    """The removal after which a log begins with record `first`, which follows this chain value.

    A removal that was cut off leaves records of the part that may go. Raises AuditMissingError when
    no record says that what comes before was removed.
    """
    known = [
        one
        for one in removals
        if one.last >= first or (one.last == first - 1 and one.chain == chain)
    ]
    if not known:
        raise AuditMissingError(
            "audit records are missing at the start of the log",
            found=f"record {first}",
            needed="record 1, or a record that says what was removed",
            hint="give the exports of the time before; --from N verifies the rest alone",
        )
    return max(known, key=lambda one: one.seq)
