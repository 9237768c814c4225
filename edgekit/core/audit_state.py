"""How an audit log stands after a record: what its writer continues and its verifier holds it to.

The log's own records move it on: `segment` opens a file and repeats the state, `epoch` ends an
epoch, `checkpoint` is the signature that an ended epoch asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.audit_chain import (
    LOG_SCHEMA,
    Head,
    LogLine,
    Pace,
    empty_head,
    seal_records,
    times_of,
)
from edgekit.core.audit_checkpoint import Checkpoint
from edgekit.core.audit_keys import LOG_ID_PATTERN, MacKey
from edgekit.core.audit_record import STAMPED, AuditEvent, Times, own_event
from edgekit.core.fields import Fields
from edgekit.core.merkle import DIGEST_BYTES, Tree
from edgekit.core.strict_json import MAX_INTEGER
from edgekit.errors import AuditFormatError, EdgekitError

MAX_QUIET_EPOCHS = 12
"""So many epochs in a row in which nothing happened need no checkpoint."""

QUIET_RECORDS = 2
"""Records of an epoch in which nothing happened: its end, and the checkpoint of the one before."""

SLACK_S = 60
MAX_PACE_S = 86_400
MAX_PACE_RECORDS = 1_000_000


@dataclass(slots=True)
class Epoch:
    """The epoch that runs: its number, its pace, when it began, and its records so far.

    `quiet` counts the epochs right before it that had no checkpoint.
    """

    number: int
    pace: Pace
    began: Times
    records: int = 0
    quiet: int = 0

    def age_s(self, now: Times) -> int | None:
        """Whole seconds since it began; None when the host restarted since."""
        if now.boot_id != self.began.boot_id:
            return None
        return (now.t_boot_ns - self.began.t_boot_ns) // 1_000_000_000

    def is_late(self, now: Times) -> bool:
        """Whether it should have ended long ago."""
        age = self.age_s(now)
        return age is not None and age > 2 * self.pace.seconds + SLACK_S


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """What a record of type `epoch` says; `pace` is the next epoch's.

    With `signs` a checkpoint follows before the next epoch ends. With `rekeyed` the next epoch's
    key is a new one.
    """

    number: int
    records: int
    signs: bool
    pace: Pace
    rekeyed: bool = False

    def event(self) -> AuditEvent:
        """The record to be."""
        return own_event(
            "epoch",
            epoch=self.number,
            records=self.records,
            signs=self.signs,
            rekeyed=self.rekeyed,
            epoch_s=self.pace.seconds,
            epoch_records=self.pace.records,
        )


@dataclass(slots=True)
class LogState:
    """A log after record `seq`. `owed` is what the checkpoint that must come next has to say."""

    log_id: str
    seq: int
    chain: bytes
    tree: Tree
    epoch: Epoch
    owed: Checkpoint | None = None

    def head(self) -> Head:
        """For head.json."""
        return Head(self.log_id, self.seq, self.chain)

    def continues(self, other: LogState) -> bool:
        """Whether this state, as a segment tells it, is the one that its log has come to."""
        return (
            (self.log_id, self.seq, self.chain) == (other.log_id, other.seq, other.chain)
            and self.tree.peaks() == other.tree.peaks()
            and (self.epoch.number, self.epoch.records) == (other.epoch.number, other.epoch.records)
            and self.epoch.pace == other.epoch.pace
            and other.owed is None
        )

    def advance(self, line: bytes) -> None:
        """A line (no newline) was added."""
        leaf = hashlib.sha384(b"\x00" + line).digest()
        self.chain = hashlib.sha384(self.chain + leaf).digest()
        self.tree.add(leaf)
        self.seq += 1
        self.epoch.records += 1

    def write(self, events: Iterable[AuditEvent], when: Times, key: MacKey) -> list[bytes]:
        """The lines (no newlines) of the next records, which are then part of this state."""
        lines, leaves, self.chain = seal_records(events, self.seq, self.chain, when, key)
        self.tree.extend(leaves)
        self.seq += len(lines)
        self.epoch.records += len(lines)
        return lines

    def next_end(self, pace: Pace, *, signs: bool, rekeyed: bool = False) -> EpochEnd:
        """What the record that ends the epoch now has to say."""
        records = self.epoch.records + 1
        needed = records > QUIET_RECORDS or self.epoch.quiet >= MAX_QUIET_EPOCHS
        return EpochEnd(self.epoch.number, records, signs or needed, pace, rekeyed)

    def end_epoch(self, end: EpochEnd, when: Times) -> None:
        """The line added last ended the epoch."""
        if end.signs:
            self.owed = Checkpoint(
                self.log_id,
                end.number,
                self.seq,
                self.chain,
                self.tree.root(),
                when.t_utc,
                when.t_boot_ns,
                when.boot_id,
            )
        quiet = 0 if end.signs else self.epoch.quiet + 1
        self.epoch = Epoch(end.number + 1, end.pace, when, quiet=quiet)

    def segment_event(self) -> AuditEvent:
        """The first record of a segment: from it the log can be read without what came before."""
        return own_event(
            "segment",
            schema=LOG_SCHEMA,
            log_id=self.log_id,
            epoch=self.epoch.number,
            epoch_before=self.epoch.records,
            peaks=[peak.hex() for peak in self.tree.peaks()],
            epoch_s=self.epoch.pace.seconds,
            epoch_records=self.epoch.pace.records,
        )


def new_log(log_id: str, pace: Pace, now: Times) -> LogState:
    """A log before its first record."""
    head = empty_head(log_id)
    return LogState(log_id, 0, head.chain, Tree(), Epoch(0, pace, now))


def parse_segment(record: Mapping[str, Any], line: LogLine) -> LogState:
    """The state before a segment's first record, as that record tells it. Raises AuditFormatError.

    The first segment's chain is not taken from it but made from the log id.
    """
    seq, fields = record["seq"], _own_fields(record, line, "segment")
    fields.text("schema", choices=(LOG_SCHEMA,))
    log_id = fields.text("log_id", pattern=LOG_ID_PATTERN)
    number = fields.integer("epoch", low=0, high=MAX_INTEGER)
    before = fields.integer("epoch_before", low=0, high=MAX_INTEGER)
    peaks = fields.texts("peaks", max_items=63, pattern=r"[0-9a-f]{96}")
    pace = _take_pace(fields)
    fields.finish()
    if len(record["prev"]) != 2 * DIGEST_BYTES or len(peaks) != (seq - 1).bit_count():
        raise fields.fail("peaks", "do not fit the record's number")
    chain = empty_head(log_id).chain if seq == 1 else bytes.fromhex(record["prev"])
    tree = Tree(seq - 1, [bytes.fromhex(peak) for peak in peaks])
    epoch = Epoch(number, pace, times_of(record), records=before)
    return LogState(log_id, seq - 1, chain, tree, epoch)


def parse_epoch_end(record: Mapping[str, Any], line: LogLine) -> EpochEnd:
    """What a record of type `epoch` says. Raises AuditFormatError."""
    fields = _own_fields(record, line, "epoch")
    end = EpochEnd(
        number=fields.integer("epoch", low=0, high=MAX_INTEGER),
        records=fields.integer("records", low=1, high=MAX_INTEGER),
        signs=fields.boolean("signs"),
        rekeyed=fields.boolean("rekeyed"),
        pace=_take_pace(fields),
    )
    fields.finish()
    return end


def _own_fields(record: Mapping[str, Any], line: LogLine, kind: str) -> Fields:
    def fail(message: str, path: str) -> EdgekitError:
        return AuditFormatError(
            "a record of the log about itself is malformed",
            where=line.place(record["seq"]),
            found=f"{path}: {message}",
        )

    fields = Fields({key: record[key] for key in record.keys() - STAMPED - {"~mac"}}, error=fail)
    fields.text("type", choices=(kind,))
    return fields


def _take_pace(fields: Fields) -> Pace:
    return Pace(
        fields.integer("epoch_s", low=1, high=MAX_PACE_S),
        fields.integer("epoch_records", low=1, high=MAX_PACE_RECORDS),
    )
