"""The audit log's bytes: one canonical JSON line per record, chained with SHA-384.

    leaf_n  = SHA-384(0x00 || line_n)          line without its newline
    chain_n = SHA-384(chain_{n-1} || leaf_n)   chain_0 = SHA-384(schema || newline || log id)

Record 1 has type `log` and carries the log id. Every record carries `seq` (from 1), `prev` (hex of
chain_{seq-1}), `t_utc` (microseconds since 1970), `t_boot_ns` (CLOCK_BOOTTIME), `boot_id`, `type`.
A head (log id, seq, chain) kept outside the lines makes a cut tail visible: a head may lag behind
the lines, it never leads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.fields import Fields
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_strict
from edgekit.errors import (
    AuditAlteredError,
    AuditError,
    AuditFormatError,
    AuditMissingError,
    AuditTruncatedError,
    FormatError,
)

LOG_SCHEMA = "edgekit.audit/1"
HEAD_SCHEMA = "edgekit.audit-head/1"
MAX_LINE_BYTES = 16 << 10
MAX_FIELDS = 64
MAX_TABLE_FIELDS = 32
CHAIN_HEX = 96
STAMPED = frozenset({"seq", "prev", "t_utc", "t_boot_ns", "boot_id", "capped"})
"""Fields only the log itself writes."""

_STAMP_ROOM = 512
_TEXT_CAPS = (1024, 256, 64, 16)
_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)



@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Legal fields of a record to be. Only `check_event` makes one."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a record was written: UTC in microseconds, boot clock in nanoseconds, and which boot."""

    t_utc: int
    t_boot_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Head:
    """The state after record `seq`; `chain` is 48 bytes. The head of an empty log has seq 0."""

    log_id: str
    seq: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line without its newline, and where it lies: file name and byte offset in that file."""

    segment: str
    offset: int
    data: bytes

    def place(self, seq: int) -> str:
        """How messages name this record."""
        return f"{self.segment}: record {seq} at byte {self.offset}"


@dataclass(frozen=True, slots=True)
class Verified:
    """A record that stands where it was written, its line, and the head after it."""

    record: Mapping[str, Any]
    line: LogLine
    head: Head


def empty_head(log_id: str) -> Head:
    """The head before the first record: chain_0."""
    return Head(log_id, 0, hashlib.sha384(f"{LOG_SCHEMA}\n{log_id}".encode()).digest())


def next_chain(chain: bytes, line: bytes) -> bytes:
    """chain_n from chain_{n-1} and the line of record n."""
    leaf = hashlib.sha384(b"\x00" + line).digest()
    return hashlib.sha384(chain + leaf).digest()


def check_event(record: object) -> AuditEvent:
    """A legal event from untrusted fields, texts capped so that its line fits.

    Values are text, integers within 64 bits, booleans, null, or one level of a table of these.
    Texts over 1,024 characters (fewer when the line would not fit) are cut, and `capped` then maps
    the field to its full length in characters. Raises AuditFormatError for anything else.
    """
    if not isinstance(record, dict) or len(record) > MAX_FIELDS:
        raise AuditFormatError(f"audit record is not a table of at most {MAX_FIELDS} fields")
    kind = record.get("type")
    if not isinstance(kind, str) or _KEY.fullmatch(kind) is None:
        raise AuditFormatError("audit record has no legal type", needed=_KEY.pattern)
    for key, value in record.items():
        _check_key(key)
        if key in STAMPED:
            raise AuditFormatError(f"audit field {key!r} is written by the log alone")
        _check_value(key, value, nested=True)
    for cap in _TEXT_CAPS:
        fields = _cap_texts(record, cap)
        if len(_ENCODER.encode(fields)) <= MAX_LINE_BYTES - _STAMP_ROOM:
            return AuditEvent(fields)
    raise AuditFormatError("audit record is too large", needed=f"at most {MAX_LINE_BYTES} bytes")


def _check_key(key: object) -> None:
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        raise AuditFormatError("malformed audit field name", found=repr(key)[:80])


def _check_value(key: str, value: object, *, nested: bool) -> None:
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return
    if nested and isinstance(value, dict) and len(value) <= MAX_TABLE_FIELDS:
        for inner, item in value.items():
            _check_key(inner)
            _check_value(f"{key}.{inner}", item, nested=False)
        return
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


def encode_record(event: AuditEvent, head: Head, stamp: Stamp) -> tuple[bytes, Head]:
    """The line (no newline) of the record after `head`, and the head after it."""
    fields = {
        **event.fields,
        "seq": head.seq + 1,
        "prev": head.chain.hex(),
        "t_utc": stamp.t_utc,
        "t_boot_ns": stamp.t_boot_ns,
        "boot_id": stamp.boot_id,
    }
    line = encode_canonical(fields)
    return line, Head(head.log_id, head.seq + 1, next_chain(head.chain, line))


def log_event(log_id: str) -> AuditEvent:
    """The event of record 1."""
    return check_event({"type": "log", "schema": LOG_SCHEMA, "log_id": log_id})


def encode_head(head: Head) -> bytes:
    """Bytes of head.json."""
    table = {
        "schema": HEAD_SCHEMA,
        "log_id": head.log_id,
        "seq": head.seq,
        "chain": head.chain.hex(),
    }
    return encode_canonical(table) + b"\n"


def parse_head(data: bytes) -> Head:
    """Bytes of head.json to a head. Raises AuditFormatError."""
    try:
        fields = Fields(parse_strict(data, max_bytes=4096, what="head.json"))
        fields.text("schema", choices=(HEAD_SCHEMA,))
        head = Head(
            fields.text("log_id", pattern=r"[0-9a-f]{32}"),
            fields.integer("seq", low=0, high=MAX_INTEGER),
            bytes.fromhex(fields.text("chain", pattern=rf"[0-9a-f]{{{CHAIN_HEX}}}")),
        )
        fields.finish()
    except FormatError as error:
        raise AuditFormatError("the audit log's head is malformed", found=str(error)) from error
    return head


def parse_line(line: LogLine, seq: int) -> dict[str, Any]:
    """Fields of a line that should be record `seq`.

    Raises AuditFormatError for bytes that are no record, AuditAlteredError for a record that is
    not in canonical form, which the writer never leaves.
    """
    try:
        record = json.loads(line.data)
    except (ValueError, RecursionError) as error:
        raise AuditFormatError("not an audit record", where=line.place(seq)) from error
    if not isinstance(record, dict) or not _has_stamp(record):
        raise AuditFormatError("not an audit record", where=line.place(seq))
    if _ENCODER.encode(record).encode() != line.data:
        raise AuditAlteredError("an audit record was changed", where=line.place(seq))
    return record


def _has_stamp(record: Mapping[str, Any]) -> bool:
    texts = all(isinstance(record.get(key), str) for key in ("prev", "type", "boot_id"))
    numbers = all(type(record.get(key)) is int for key in ("seq", "t_utc", "t_boot_ns"))
    return texts and numbers


def verify_lines(
    lines: Iterable[LogLine], head: Head, base: Head | None = None
) -> Iterator[Verified]:
    """Yield each record in its place; raise at the first that is not as written.

    `head` is the kept head; `base` is the state before the first line, None for a whole log.
    Raises AuditAlteredError (edited), AuditMissingError (removed or out of order),
    AuditTruncatedError (the end is missing), AuditFormatError (no record at all); `where` names
    file, record number and byte offset. Lines after the kept head are held to the chain only.
    """
    rest = iter(lines)
    state, previous = base, None
    for line in rest:
        record = parse_line(line, state.seq + 1 if state else 1)
        state = state or _begin(record, line, head)
        if record["seq"] != state.seq + 1 or record["prev"] != state.chain.hex():
            raise _explain(record, _Break(line, previous, state, rest, head))
        state = Head(state.log_id, state.seq + 1, next_chain(state.chain, line.data))
        if state.seq == head.seq and state.chain != head.chain:
            raise AuditAlteredError(
                "an audit record was changed",
                where=line.place(state.seq),
                needed="the chain value kept in head.json",
            )
        yield Verified(record, line, state)
        previous = line
    last = state.seq if state else 0
    if last < head.seq:
        raise _truncated(last, previous, head)


def _begin(record: Mapping[str, Any], line: LogLine, head: Head) -> Head:
    """The state before record 1, from the log id that record 1 names."""
    if record["seq"] != 1 and record["type"] != "log":
        raise AuditMissingError(
            "audit records are missing at the start of the log",
            where=line.place(1),
            found=f"record {record['seq']}",
            needed="record 1",
        )
    if record.get("log_id") != head.log_id:
        raise AuditAlteredError("the log's first record was changed", where=line.place(1))
    return empty_head(head.log_id)


def _truncated(last: int, previous: LogLine | None, head: Head) -> AuditError:
    end = 0 if previous is None else previous.offset + len(previous.data) + 1
    name = "audit log" if previous is None else previous.segment
    return AuditTruncatedError(
        "the audit log was cut off at its end",
        where=f"{name}: record {last + 1} at byte {end}",
        found=f"{last} records",
        needed=f"{head.seq} records",
    )


@dataclass(frozen=True, slots=True)
class _Break:
    """Where the chain does not hold: this line does not follow `previous`, after which it stood
    at `state`; `rest` are the lines behind it."""

    line: LogLine
    previous: LogLine | None
    state: Head
    rest: Iterator[LogLine]
    head: Head


def _explain(record: Mapping[str, Any], at: _Break) -> AuditError:
    """Say what happened at a record that does not follow the one before it."""
    wanted = at.state.seq + 1
    where = at.line.place(wanted)
    if record["seq"] == wanted:
        return AuditAlteredError("an audit record was changed", where=_edited_place(record, at))
    if record["prev"] == at.state.chain.hex():
        # it follows its predecessor byte for byte, so its number is what was edited
        return AuditAlteredError("an audit record was changed", where=where)
    found, needed = f"record {record['seq']}", f"record {wanted}"
    if record["seq"] < wanted or _appears(wanted, at.rest):
        return AuditMissingError(
            "audit records are out of order", where=where, found=found, needed=needed
        )
    return AuditMissingError(
        f"{record['seq'] - wanted} audit records are missing",
        where=where,
        found=found,
        needed=needed,
    )


def _edited_place(record: Mapping[str, Any], at: _Break) -> str:
    """Which of two neighbours was edited: this record, or the one its `prev` speaks for.

    This record is intact when its successor (or the kept head) agrees with it as it stands.
    """
    here, wanted = at.line.place(at.state.seq + 1), at.state.seq + 1
    if at.previous is None or at.head.seq == at.state.seq:
        return here  # nothing before it, or the head vouches for what is before it
    claimed = bytes.fromhex(record["prev"]) if _is_hex(record["prev"]) else b""
    after = at.head.chain if at.head.seq == wanted else _next_prev(at.rest, wanted + 1)
    if after is None or after == next_chain(claimed, at.line.data):
        return at.previous.place(at.state.seq)
    return here


def _is_hex(text: str) -> bool:
    return re.fullmatch(rf"[0-9a-f]{{{CHAIN_HEX}}}", text) is not None


def _next_prev(rest: Iterator[LogLine], seq: int) -> bytes | None:
    line = next(rest, None)
    if line is None:
        return None
    try:
        prev = parse_line(line, seq)["prev"]
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
