"""The audit socket's datagrams: `{"id":n,"record":{..}}` in, `{"id":n,"seq":m}` or an error out,
the first with `"space":"warn"` or `"alert"` when the log fills up.

There is no verb to read, seek or delete. Pure: bytes to values and back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgekit.core.audit_capacity import Level
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


def encode_ack(number: int, seq: int, level: Level) -> bytes:
    """The answer to a record that is durable as number `seq`, and how full the log is."""
    if level is Level.OK:
        return b'{"id":%d,"seq":%d}' % (number, seq)
    return encode_canonical({"id": number, "seq": seq, "space": level.label})


def encode_refusal(number: int | None, reason: str) -> bytes:
    """The answer to a record that was not written."""
    return json.dumps({"id": number, "error": reason[:200]}).encode()
