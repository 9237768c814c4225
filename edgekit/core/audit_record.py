"""What an audit record may hold: named, typed, bounded fields, whoever sends them.

A record says what happened, when, where, for whom, from where and how it ended (NIST SP 800-53,
AU-3). Which field answers which question, and what it is called in OpenTelemetry's GenAI
conventions, is in docs/spec/audit-log-v1.md section 7.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.strict_json import MAX_INTEGER
from edgekit.errors import AuditFormatError

MAX_LINE_BYTES = 16 << 10
MAX_FIELDS = 64
MAX_TABLE_FIELDS = 32
STAMPED = frozenset({"seq", "prev", "t_utc", "t_boot_ns", "boot_id", "capped"})
"""Fields only the log itself writes."""

OWN_TYPES = frozenset(
    {
        "segment",
        "epoch",
        "checkpoint",
        "recovered",
        "clock_jump",
        "capacity",
        "audit_full",
        "orphaned",
    }
)
"""Types of records that only the log itself writes."""

REKEY = "key_rekey"
"""The record with which root asks for a new MAC key: its epoch ends with it, and says `rekeyed`."""

_STAMP_ROOM = 640
_GROWTH = 6  # a byte of UTF-8 becomes at most six of ASCII JSON
_TEXT_CAPS = (1024, 256, 64, 16)
_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Legal fields of a record to be. Only `check_event` and `own_event` make one."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Times:
    """When a record was written: UTC in microseconds, boot clock in nanoseconds, and which boot."""

    t_utc: int
    t_boot_ns: int
    boot_id: str


def own_event(kind: str, **fields: Any) -> AuditEvent:
    """A record of the log about itself."""
    return AuditEvent({"type": kind, **fields})


def check_event(record: object, wire_bytes: int = MAX_LINE_BYTES) -> AuditEvent:
    """A legal event from untrusted fields, texts capped so that its line fits.

    `wire_bytes` is the size of the UTF-8 JSON that it came as: of a small one nobody has to ask.

    Values are text, integers within 64 bits, booleans, null, or one level of a table of these.
    Texts over 1,024 characters (fewer when the line would not fit) are cut, and `capped` then maps
    the field to its full length in characters. Raises AuditFormatError for anything else.
    """
    if not isinstance(record, dict) or len(record) > MAX_FIELDS:
        raise AuditFormatError(f"audit record is not a table of at most {MAX_FIELDS} fields")
    kind = record.get("type")
    if not isinstance(kind, str) or _KEY.fullmatch(kind) is None:
        raise AuditFormatError("audit record has no legal type", needed=_KEY.pattern)
    if kind in OWN_TYPES:
        raise AuditFormatError(f"audit records of type {kind!r} are written by the log alone")
    longest = 0
    for key, value in record.items():
        _check_key(key)
        if key in STAMPED:
            raise AuditFormatError(f"audit field {key!r} is written by the log alone")
        longest = max(longest, _check_value(key, value, nested=True))
    if longest <= _TEXT_CAPS[0] and wire_bytes * _GROWTH <= MAX_LINE_BYTES - _STAMP_ROOM:
        return AuditEvent(dict(record))
    for cap in _TEXT_CAPS:
        fields = _cap_texts(record, cap)
        if len(_ENCODER.encode(fields)) <= MAX_LINE_BYTES - _STAMP_ROOM:
            return AuditEvent(fields)
    raise AuditFormatError("audit record is too large", needed=f"at most {MAX_LINE_BYTES} bytes")


@functools.lru_cache(maxsize=512)
def _is_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not _is_key(key):
        raise AuditFormatError("malformed audit field name", found=repr(key)[:80])


def _check_value(key: str, value: object, *, nested: bool) -> int:
    """The length of the longest text in it. Raises AuditFormatError."""
    if isinstance(value, str):
        return len(value)
    if value is None or (isinstance(value, int) and abs(value) <= MAX_INTEGER):
        return 0  # booleans are integers
    if nested and isinstance(value, dict) and len(value) <= MAX_TABLE_FIELDS:
        longest = 0
        for inner, item in value.items():
            _check_key(inner)
            longest = max(longest, _check_value(f"{key}.{inner}", item, nested=False))
        return longest
    raise AuditFormatError(
        f"audit field {key!r} has a refused value",
        found=type(value).__name__,
        needed="text, 64-bit integer, boolean, null or a small table",
    )


def _cap_texts(record: Mapping[str, Any], cap: int) -> dict[str, Any]:
    cut: dict[str, Any] = {}
    fields = {key: _cap_value(key, value, cap, cut) for key, value in record.items()}
    if cut:
        fields["capped"] = cut
    return fields


def _cap_value(key: str, value: Any, cap: int, cut: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {k: _cap_value(f"{key}.{k}", v, cap, cut) for k, v in value.items()}
    if isinstance(value, str) and len(value) > cap:
        cut[key] = len(value)
        return value[:cap]
    return value
