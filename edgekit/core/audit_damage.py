"""What happened to an audit log at the first line that does not fit: which record, and what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from edgekit.core.audit_chain import (
    CHAIN_HEX,
    Head,
    LogLine,
    next_chain,
    parse_line,
)
from edgekit.core.audit_keys import MacKey
from edgekit.errors import AuditAlteredError, AuditError, AuditKeyError, AuditMissingError

_CHANGED = "an audit record was changed"


@dataclass(frozen=True, slots=True)
class Damage:
    """`line` does not fit after `previous`, which left the log at `state`; `rest` lies behind it.

    `links` are the chain values before each record of this epoch; `mac` is the epoch's key, where
    the auditor has one, with which every line up to `previous` was checked.
    """

    line: LogLine
    previous: LogLine | None
    state: Head
    rest: Iterator[LogLine]
    head: Head | None
    links: Mapping[bytes, tuple[int, LogLine]]
    mac: MacKey | None


def explain_damage(at: Damage) -> AuditError:
    """The error that names the first bad record and says what was done to it.

    Also raises: AuditFormatError for a line that is no record at all, AuditAlteredError for one
    that is not in canonical form.
    """
    wanted = at.state.seq + 1
    if at.previous is not None and at.mac is None:
        parse_line(at.previous, at.state.seq)  # it was only hashed: two lines in one pass for one
    record = parse_line(at.line, wanted)
    if record["seq"] == wanted:
        if record["prev"] == at.state.chain.hex():
            return _explain_seal(at)
        return AuditAlteredError(_CHANGED, where=_edited_place(record, at))
    if record["prev"] == at.state.chain.hex():
        # it follows its predecessor byte for byte, so its number is what was edited
        return AuditAlteredError(_CHANGED, where=at.line.place(wanted))
    return _explain_order(record["seq"], record["prev"], at)


def _explain_seal(at: Damage) -> AuditError:
    """Number and link are right and the MAC is not: the record was edited, or has another key's.

    It has another key's MAC when what follows agrees with it as it stands.
    """
    wanted = at.state.seq + 1
    place, chain = at.line.place(wanted), next_chain(at.state.chain, at.line.data)
    after = _next_prev(at, wanted)
    if after == chain:
        return AuditKeyError(
            "an audit record was not sealed with the key of its epoch",
            where=place,
            needed="this log's key, and a log that nobody rewrote",
        )
    return AuditAlteredError(_CHANGED, where=place)


def _explain_order(seq: int, prev: str, at: Damage) -> AuditError:
    wanted = at.state.seq + 1
    here = at.line.place(wanted)
    found, needed = f"record {seq}", f"record {wanted}"
    if seq > wanted and not _appears(wanted, at.rest):
        text = f"{seq - wanted} audit records are missing"
        return AuditMissingError(text, where=here, found=found, needed=needed)
    origin = at.links.get(bytes.fromhex(prev)) if _is_hex(prev) else None
    if origin is not None and origin[0] == seq - 1 and at.line.data != origin[1].data:
        # the true record of that number: what stands in its place was put in before it
        return AuditMissingError(
            "an audit record was put in", where=origin[1].place(seq), found=found, needed=needed
        )
    return AuditMissingError(
        "audit records are out of order", where=here, found=found, needed=needed
    )


def _edited_place(record: Mapping[str, object], at: Damage) -> str:
    """Which of two neighbours was edited: this record, or the one its `prev` speaks for.

    This record is intact when its successor (or the kept head) agrees with it as it stands.
    """
    here, wanted = at.line.place(at.state.seq + 1), at.state.seq + 1
    checked = at.mac is not None or (at.head is not None and at.head.seq == at.state.seq)
    if at.previous is None or checked:
        return here  # nothing before it, or key or head vouch for what is before it
    prev = str(record["prev"])
    claimed = bytes.fromhex(prev) if _is_hex(prev) else b""
    after = _next_prev(at, wanted)
    if after is None or after == next_chain(claimed, at.line.data):
        return at.previous.place(at.state.seq)
    return here


def _is_hex(text: str) -> bool:
    return re.fullmatch(rf"[0-9a-f]{{{CHAIN_HEX}}}", text) is not None


def _next_prev(at: Damage, seq: int) -> bytes | None:
    """What the line behind, or else the kept head, says the chain is after record `seq`."""
    line = next(at.rest, None)
    if line is None:
        return at.head.chain if at.head is not None and at.head.seq == seq else None
    try:
        prev = parse_line(line, seq + 1)["prev"]
    except AuditError:
        return None
    return bytes.fromhex(prev) if _is_hex(prev) else None


def _appears(seq: int, rest: Iterable[LogLine]) -> bool:
    """True when a later line is record `seq`."""
    for line in rest:
        try:
            if parse_line(line, seq)["seq"] == seq:
                return True
        except AuditError:
            continue
    return False
