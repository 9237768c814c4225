"""The audit log's bytes: one canonical JSON line per record, chained, and sealed under a MAC.

    mac_n   = HMAC-SHA-384(K_epoch, record n without its "~mac")
    leaf_n  = SHA-384(0x00 || line_n)          the whole line without its newline
    chain_n = SHA-384(chain_{n-1} || leaf_n)   chain_0 = SHA-384(schema || newline || log id)

Every record carries `seq` (from 1), `prev` (hex of chain_{seq-1}), `t_utc` (microseconds since
1970), `t_boot_ns` (CLOCK_BOOTTIME), `boot_id`, `type`, and last of all `~mac`. A head (log id, seq,
chain) kept outside the lines makes a cut tail visible: a head may lag behind the lines, it never
leads them. What the log's own records mean: `core.audit_state`. All of it:
docs/spec/audit-log-v1.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgekit.core.audit_keys import LOG_ID_PATTERN, MacKey
from edgekit.core.audit_record import AuditEvent, Times
from edgekit.core.fields import Fields
from edgekit.core.record_json import encode_record
from edgekit.core.strict_json import MAX_INTEGER, parse_strict
from edgekit.errors import AuditAlteredError, AuditFormatError, FormatError

LOG_SCHEMA = "edgekit.audit/1"
HEAD_SCHEMA = "edgekit.audit-head/1"
CHAIN_HEX = 96

MAC_START = b',"~mac":"'
MAC_END = b'"}'
MAC_BYTES = CHAIN_HEX
SEAL_BYTES = len(MAC_START) + MAC_BYTES + len(MAC_END)
"""`~` sorts after every letter, so what seals a record is always this many bytes at its end."""

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)


@dataclass(frozen=True, slots=True)
class Head:
    """The state after record `seq`; `chain` is 48 bytes. The head of an empty log has seq 0."""

    log_id: str
    seq: int
    chain: bytes


class LogLine(NamedTuple):
    """One line without its newline, and where it lies: file name and byte offset in that file."""

    segment: str
    offset: int
    data: bytes

    def place(self, seq: int) -> str:
        """How messages name this record."""
        return f"{self.segment}: record {seq} at byte {self.offset}"


@dataclass(frozen=True, slots=True)
class Pace:
    """When an epoch ends: after this many seconds, or records, whichever comes first."""

    seconds: int = 300
    records: int = 4096


def empty_head(log_id: str) -> Head:
    """The head before the first record: chain_0."""
    return Head(log_id, 0, hashlib.sha384(f"{LOG_SCHEMA}\n{log_id}".encode()).digest())


def next_chain(chain: bytes, line: bytes) -> bytes:
    """chain_n from chain_{n-1} and the line of record n."""
    leaf = hashlib.sha384(b"\x00" + line).digest()
    return hashlib.sha384(chain + leaf).digest()


class Sealed(NamedTuple):
    """Records in their order: lines (no newlines), leaves, and the chain value after the last."""

    lines: list[bytes]
    leaves: list[bytes]
    chain: bytes


def seal_records(
    events: Iterable[AuditEvent], seq: int, chain: bytes, when: Times, key: MacKey
) -> Sealed:
    """The records after record `seq`, whose chain value is `chain`, sealed with the epoch's key.

    This is all that the audit writer's processor does at its busiest: one loop, a third faster than
    a call for each.
    """
    times = {"t_utc": when.t_utc, "t_boot_ns": when.t_boot_ns, "boot_id": when.boot_id}
    encode, mac, sha384 = encode_record, key.mac, hashlib.sha384
    lines, leaves = [], []
    for event in events:
        seq += 1
        body = encode({**event.fields, "seq": seq, "prev": chain.hex(), **times})
        line = b'%b,"~mac":"%b"}' % (body[:-1], mac(body).encode("ascii"))
        leaf = sha384(b"\x00" + line).digest()
        chain = sha384(chain + leaf).digest()
        lines.append(line)
        leaves.append(leaf)
    return Sealed(lines, leaves, chain)


def encode_head(head: Head) -> bytes:
    """Bytes of head.json: canonical JSON, made without an encoder because every batch needs it."""
    chain, log_id = head.chain.hex(), head.log_id
    text = f'{{"chain":"{chain}","log_id":"{log_id}","schema":"{HEAD_SCHEMA}","seq":{head.seq}}}\n'
    return text.encode("ascii")


def parse_head(data: bytes) -> Head:
    """Bytes of head.json to a head. Raises AuditFormatError."""
    try:
        fields = Fields(parse_strict(data, max_bytes=4096, what="head.json"))
        fields.text("schema", choices=(HEAD_SCHEMA,))
        head = Head(
            fields.text("log_id", pattern=LOG_ID_PATTERN),
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
    if _reencode(record) != line.data:
        raise AuditAlteredError("an audit record was changed", where=line.place(seq))
    return record


def _reencode(record: Mapping[str, Any]) -> bytes:
    try:
        return _ENCODER.encode(record).encode()
    except ValueError:  # NaN, which is no JSON
        return b""


def times_of(record: Mapping[str, Any]) -> Times:
    """When a record was written."""
    return Times(record["t_utc"], record["t_boot_ns"], record["boot_id"])


def _has_stamp(record: Mapping[str, Any]) -> bool:
    texts = all(isinstance(record.get(key), str) for key in ("prev", "type", "boot_id", "~mac"))
    numbers = all(type(record.get(key)) is int for key in ("seq", "t_utc", "t_boot_ns"))
    return texts and numbers
