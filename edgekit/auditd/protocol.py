"""The audit socket's datagrams: `{"id":n,"record":{..}}` in, `{"id":n,"seq":m}` or an error out,
the first with `"space":"warn"` or `"alert"` when the log fills up, and with
`"signed":{"seq":s,"t_utc":t}` when it was signed anew.

There is no verb to read, seek or delete. Pure: bytes to values and back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgekit.core.audit_capacity import Level
from edgekit.core.audit_checkpoint import Checkpoint
from edgekit.core.audit_record import AuditEvent, check_event
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_strict
from edgekit.errors import AuditFormatError, FormatError

MAX_DATAGRAM_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """A client's wish: its own number for it, and the event, or why there is none."""

    number: int | None
    event: AuditEvent | None
    refusal: str = ""


def parse_datagram(data: bytes, *, peer_uid: int) -> Wanted:
    """Read one datagram; never raises. `peer_uid` is what the kernel says and always recorded."""
    try:
        table: Any = parse_strict(data, max_bytes=MAX_DATAGRAM_BYTES, what="audit datagram")
    except FormatError as error:
        return Wanted(None, None, str(error))
    number = table.get("id") if isinstance(table, dict) else None
    if type(number) is not int or not 0 <= number <= MAX_INTEGER:
        return Wanted(None, None, "audit datagram has no id")
    record = table.get("record")
    if set(table) != {"id", "record"} or not isinstance(record, dict):
        return Wanted(number, None, "audit datagram is not an id and a record")
    try:
        return Wanted(number, check_event({**record, "peer_uid": peer_uid}, len(data) + 32))
    except AuditFormatError as error:
        return Wanted(number, None, error.message)


def encode_ack(number: int, seq: int, level: Level, signed: Checkpoint | None = None) -> bytes:
    """The answer to a record that is durable as number `seq`, and what has changed of the log:
    how full it is, and up to which record it was signed, and when.
    """
    if level is Level.OK and signed is None:
        return b'{"id":%d,"seq":%d}' % (number, seq)
    table: dict[str, Any] = {"id": number, "seq": seq}
    if level is not Level.OK:
        table["space"] = level.label
    if signed is not None:
        table["signed"] = {"seq": signed.seq, "t_utc": signed.t_utc}
    return encode_canonical(table)


def encode_refusal(number: int | None, reason: str) -> bytes:
    """The answer to a record that was not written."""
    return json.dumps({"id": number, "error": reason[:200]}).encode()
