"""Verification of an audit log: is every record as it was written, and in its place?

What a log is held against is the auditor's (`Evidence`): the host's audit key for its checkpoints,
a MAC key for every single record, checkpoints carried away (anchors), the kept head. Lines are
hashed, not parsed, as long as they fit; only the first one that does not is looked at, to say what
happened to it. The numbers are the steps of docs/spec/audit-log-v1.md section 8.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgekit.core.audit_chain import (
    MAC_END,
    MAC_START,
    SEAL_BYTES,
    Head,
    LogLine,
    parse_line,
    times_of,
)
from edgekit.core.audit_checkpoint import (
    SignedCheckpoint,
    record_envelope,
    unsafe_read_checkpoint,
    verify_checkpoint,
)
from edgekit.core.audit_damage import Damage, explain_damage
from edgekit.core.audit_keys import AuditKey, MacKey
from edgekit.core.audit_record import Times
from edgekit.core.audit_requests import record_kind
from edgekit.core.audit_state import (
    MAX_QUIET_EPOCHS,
    QUIET_RECORDS,
    EpochEnd,
    LogState,
    parse_epoch_end,
    parse_segment,
)
from edgekit.core.hybrid_key import HybridKey
from edgekit.errors import (
    AuditAlteredError,
    AuditCheckpointError,
    AuditError,
    AuditFormatError,
    AuditMissingError,
    AuditSealError,
    AuditTruncatedError,
)

MAX_BATCH = 1024
"""A batch is not cut by the end of an epoch, which may be this many records longer for it."""

_MAC_TAIL = SEAL_BYTES - len(MAC_START)
_OWN = frozenset({b"segment", b"epoch", b"checkpoint"})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a log is held against; all of it from elsewhere than the log, where it is to count.

    `first` is the number of the record that the log should begin with: more than 1 when older
    segments were exported and removed.
    """

    signer: HybridKey | None = None
    keys: tuple[AuditKey, ...] = ()
    anchors: tuple[SignedCheckpoint, ...] = ()
    head: Head | None = None
    first: int = 1


class Verified(NamedTuple):
    """A line that stands where it was written; `seq` is its number, `kind` its type."""

    line: LogLine
    seq: int
    kind: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """An intact log, and what vouches for it.

    `signed_to` is the last record under a checkpoint that the audit key signed, `anchored_to` the
    newest anchor's; 0 for none. From `sealed_from` to the end every record's MAC was checked; None
    without a key. `late` epochs ended late although the host did not restart. `newest` is the
    newest checkpoint's envelope, to be carried away.
    """

    log_id: str
    first: int
    last: int
    chain: bytes
    root: bytes
    epoch: int
    checkpoints: int
    signed_to: int
    anchored_to: int
    sealed_from: int | None
    late: int
    newest: bytes | None = field(repr=False)

    @property
    def unvouched(self) -> int:
        """Records at the end for which only the chain itself speaks: no signature and no MAC."""
        return 0 if self.sealed_from is not None else self.last - self.signed_to

    @property
    def after_anchor(self) -> int | None:
        """Records after the newest anchor; None without one."""
        return self.last - self.anchored_to if self.anchored_to else None


@dataclass(slots=True)
class Standing:
    """How a verification stands after a record: the log, and the key that its next record needs."""

    state: LogState
    key: AuditKey | None

    def is_same(self, other: Standing) -> bool:
        """Whether both would go on alike."""
        epoch, its = self.state.epoch, other.state.epoch
        return (
            self.state.continues(other.state)
            and (epoch.began, epoch.quiet) == (its.began, its.quiet)
            and self.key == other.key
        )


@dataclass(slots=True)
class Part:
    """What the verification of some segments on their own came to. It is worth something only when
    it begins as the part before it ended. `sealed_from`, `signed_to` and so on as in `Verdict`."""

    begin: Standing
    end: Standing
    last: LogLine | None
    sealed_from: int | None
    checkpoints: int
    signed_to: int
    anchored_to: int
    late: int
    newest: bytes | None


class Verifier:
    """Checks one log, once: run `check` to its end, then ask for the `verdict`.

    With `begin` it checks segments that do not begin the log (`check_part`).
    """

    def __init__(self, evidence: Evidence, begin: Standing | None = None) -> None:
        self._evidence = evidence
        self._anchors = {anchor.value.seq: anchor.value for anchor in evidence.anchors}
        self._state: LogState | None = None
        self._last: LogLine | None = None
        self._links: dict[bytes, tuple[int, LogLine]] = {}
        self._key: AuditKey | None = None
        self._mac: MacKey | None = None
        self._sealed_from: int | None = None
        self._checkpoints = self._signed_to = self._anchored_to = self._late = 0
        self._newest: bytes | None = None
        self._begun: Standing | None = None
        if begin is not None:
            self._start(begin.state, begin.key)

    def check(self, lines: Iterable[LogLine]) -> Iterator[Verified]:
        """Yield each line in its place; raise at the first that is not as written.

        Raises AuditAlteredError (edited), AuditMissingError (removed, put in, out of order),
        AuditTruncatedError (the end is missing), AuditFormatError (no record), AuditKeyError,
        AuditSealError, AuditCheckpointError; `where` names file, record number and byte offset.
        What is yielded counts only when `check` came to its end.
        """
        yield from self.check_part(lines)
        self.finish()  # A8

    def check_part(self, lines: Iterable[LogLine]) -> Iterator[Verified]:
        """As `check`, of lines that need not be the log's last: A1 to A7."""
        rest = iter(lines)
        for line in rest:
            state = self._state or self._begin(line)
            if not _fits(state, line.data, self._mac):  # A2, A3
                raise explain_damage(self._damage(state, line, rest))
            kind = record_kind(line.data)
            if kind in _OWN or not line.offset:
                self._follow_own(state, line)  # A5, A7
            else:
                self._advance(state, line)  # A4
            if self._evidence.head is not None or self._anchors:
                self._compare(state, line)  # A6
            self._last = line
            yield Verified(line, state.seq, kind)

    @property
    def key(self) -> AuditKey | None:
        """The MAC key that the next record needs, if it is known."""
        return self._key

    def part(self) -> Part:
        """What was checked. Raises AuditTruncatedError for nothing."""
        state = self.state()
        assert self._begun is not None
        return Part(
            self._begun,
            Standing(state, self._key),
            self._last,
            self._sealed_from,
            self._checkpoints,
            self._signed_to,
            self._anchored_to,
            self._late,
            self._newest,
        )

    def join(self, part: Part) -> bool:
        """Take over what was checked elsewhere, if it goes on where this ends; False if not."""
        if self._state is not None and not part.begin.is_same(Standing(self._state, self._key)):
            return False
        is_sealed_on = part.begin.key and part.sealed_from == part.begin.state.seq + 1
        if self._state is None or not is_sealed_on:
            self._sealed_from = part.sealed_from
        self._state, self._key = part.end.state, part.end.key
        self._last = part.last or self._last
        self._checkpoints += part.checkpoints
        self._late += part.late
        self._signed_to = part.signed_to or self._signed_to
        self._anchored_to = part.anchored_to or self._anchored_to
        self._newest = part.newest or self._newest
        return True

    def state(self) -> LogState:
        """Where the log stands after the last good line. Raises AuditTruncatedError without any."""
        if self._state is None:
            raise AuditTruncatedError("the audit log holds no records")
        return self._state

    def verdict(self) -> Verdict:
        """What was found. Raises AuditTruncatedError for a log without records."""
        state = self.state()
        return Verdict(
            log_id=state.log_id,
            first=self._evidence.first,
            last=state.seq,
            chain=state.chain,
            root=state.tree.root(),
            epoch=state.epoch.number,
            checkpoints=self._checkpoints,
            signed_to=self._signed_to,
            anchored_to=self._anchored_to,
            sealed_from=self._sealed_from,
            late=self._late,
            newest=self._newest,
        )

    def _begin(self, line: LogLine) -> LogState:
        """A1: the log's first line says which log it is, and how it stood before."""
        first = self._evidence.first
        record = parse_line(line, first)
        if record["seq"] != first:
            raise AuditMissingError(
                "audit records are missing at the start of the log",
                where=line.place(first),
                found=f"record {record['seq']}",
                needed=f"record {first}",
            )
        state = parse_segment(record, line)
        self._check_identity(state.log_id, line)
        self._start(state, key_at(self._evidence, state.epoch.number))
        return state

    def _start(self, state: LogState, key: AuditKey | None) -> None:
        self._begun = Standing(copy.deepcopy(state), key)
        if key is not None:
            self._use_key(key, state.seq + 1)
        self._state = state

    def _check_identity(self, log_id: str, line: LogLine) -> None:
        head = self._evidence.head
        named = {key.log_id for key in self._evidence.keys}
        named |= {anchor.value.log_id for anchor in self._evidence.anchors}
        named |= {head.log_id} if head is not None else set()
        if named - {log_id}:
            raise AuditAlteredError(
                "this is another log than the one it should be",
                where=line.place(self._evidence.first),
                found=log_id,
                needed=", ".join(sorted(named - {log_id})),
            )

    def _damage(self, state: LogState, line: LogLine, rest: Iterator[LogLine]) -> Damage:
        head, links = self._evidence.head, self._links
        return Damage(line, self._last, state.head(), rest, head, links, self._mac)

    def _advance(self, state: LogState, line: LogLine) -> None:
        self._links[state.chain] = (state.seq, line)
        state.advance(line.data)
        if state.epoch.records > state.epoch.pace.records + MAX_BATCH:
            raise _endless(state, line)

    def _follow_own(self, state: LogState, line: LogLine) -> None:
        """A5: a record of the log about itself, or one that has a table with such a `type`."""
        seq = state.seq + 1
        record = parse_line(line, seq)
        kind = record["type"]
        if (line.offset == 0) != (kind == "segment"):
            raise AuditMissingError(
                "a segment does not begin with its own record", where=line.place(seq)
            )
        if kind == "segment":
            if not parse_segment(record, line).continues(state):
                raise AuditAlteredError(
                    "a segment does not continue the one before it", where=line.place(seq)
                )
        elif kind == "checkpoint":
            self._check_signature(state, record, line)
        self._advance(state, line)
        if kind == "epoch":
            self._end_epoch(state, record, line)

    def _check_signature(self, state: LogState, record: Mapping[str, Any], line: LogLine) -> None:
        """What a checkpoint signs is what the log was at the end of its epoch."""
        where, owed, signer = line.place(state.seq + 1), state.owed, self._evidence.signer
        envelope = record_envelope(record)
        if owed is None:
            raise AuditSealError("a checkpoint belongs to no epoch", where=where)
        try:
            if signer is not None:
                value = verify_checkpoint(envelope, signer).value
            else:
                value = unsafe_read_checkpoint(envelope)
        except (AuditCheckpointError, AuditFormatError) as error:
            error.where = where
            raise
        when = Times(owed.t_utc, owed.t_boot_ns, owed.boot_id)
        if value != owed or times_of(record) != when:
            raise AuditCheckpointError(
                "the log is not what its checkpoint says",
                where=where,
                found=f"records {self._signed_to + 1} to {owed.seq} do not give the signed root",
                needed=f"root {value.root.hex()[:24]}... at record {value.seq}",
            )
        state.owed = None
        if signer is not None:
            self._checkpoints += 1
            self._signed_to, self._newest = owed.seq, envelope

    def _compare(self, state: LogState, line: LogLine) -> None:
        """A6: the kept head and the anchors."""
        head, anchor = self._evidence.head, self._anchors.get(state.seq)
        if head is not None and head.seq == state.seq and head.chain != state.chain:
            raise AuditAlteredError(
                "an audit record was changed",
                where=line.place(state.seq),
                needed="the chain value kept in head.json",
            )
        if anchor is None:
            return
        if (anchor.chain, anchor.root) != (state.chain, state.tree.root()):
            raise AuditCheckpointError(
                "the log is not the one that this anchor was taken from",
                where=line.place(state.seq),
                found=f"root {state.tree.root().hex()[:24]}...",
                needed=f"root {anchor.root.hex()[:24]}... (epoch {anchor.epoch})",
            )
        self._anchored_to = state.seq

    def _end_epoch(self, state: LogState, record: Mapping[str, Any], line: LogLine) -> None:
        """A7: epochs follow each other without a gap, and have their checkpoints."""
        end, when = parse_epoch_end(record, line), times_of(record)
        _check_end(state, end, line)
        self._late += state.epoch.is_late(when)
        state.end_epoch(end, when)
        self._links.clear()
        given = [key for key in self._evidence.keys if key.epoch == state.epoch.number]
        if self._key is not None and not end.rekeyed:
            self._use_key(self._key.next(), state.seq + 1)
        elif given:
            self._use_key(given[0], state.seq + 1)
        else:
            self._key = self._mac = self._sealed_from = None

    def _use_key(self, key: AuditKey, seq: int) -> None:
        self._key, self._mac = key, MacKey(key.key)
        if self._sealed_from is None:
            self._sealed_from = seq

    def finish(self) -> None:
        """A8, after the last line: the log ends where it must, not long after a heartbeat."""
        state, line, head = self._state, self._last, self._evidence.head
        last = state.seq if state else 0
        needed = max(head.seq if head else 0, *self._anchors, 1)
        if state is None or line is None or last < needed:
            raise _truncated(last, line, needed)
        record = parse_line(line, last)
        if record["type"] != "epoch" and state.epoch.is_late(times_of(record)):
            raise _endless(state, line)


def key_at(evidence: Evidence, epoch: int) -> AuditKey | None:
    """The MAC key of an epoch, from the newest key that reaches it; None without one."""
    known = [key for key in evidence.keys if key.epoch <= epoch]
    return max(known, key=lambda key: key.epoch).at(epoch) if known else None


def _fits(state: LogState, line: bytes, mac: MacKey | None) -> bool:
    """Whether a line says that it follows, and is sealed with the epoch's key if that is known."""
    return (
        b'"prev":"%b"' % state.chain.hex().encode() in line
        and b'"seq":%d,' % (state.seq + 1) in line
        and line[-SEAL_BYTES:-_MAC_TAIL] == MAC_START
        and line[-len(MAC_END) :] == MAC_END
        and (
            mac is None
            or mac.mac(line[:-SEAL_BYTES] + b"}").encode() == line[-_MAC_TAIL : -len(MAC_END)]
        )
    )


def _check_end(state: LogState, end: EpochEnd, line: LogLine) -> None:
    where, epoch = line.place(state.seq), state.epoch
    if end.number != epoch.number:
        raise AuditSealError(
            "an epoch is missing",
            where=where,
            found=f"the end of epoch {end.number}",
            needed=f"the end of epoch {epoch.number}",
        )
    if end.records != epoch.records:
        raise AuditSealError(
            "an epoch has another number of records",
            where=where,
            found=str(epoch.records),
            needed=str(end.records),
        )
    if state.owed is not None:
        raise AuditSealError(
            "a checkpoint is missing", where=where, needed=f"of epoch {state.owed.epoch}"
        )
    quiet = 0 if end.signs else epoch.quiet + 1
    if quiet > MAX_QUIET_EPOCHS or (quiet and end.records > QUIET_RECORDS):
        raise AuditSealError("an epoch was not signed", where=where)


def _endless(state: LogState, line: LogLine) -> AuditError:
    epoch = state.epoch
    return AuditSealError(
        "the end of an epoch is missing",
        where=line.place(state.seq),
        found=f"{epoch.records} records since epoch {epoch.number} began",
        needed=f"an end after {epoch.pace.seconds} s or {epoch.pace.records} records",
    )


def _truncated(last: int, previous: LogLine | None, needed: int) -> AuditError:
    end = 0 if previous is None else previous.offset + len(previous.data) + 1
    name = "audit log" if previous is None else previous.segment
    return AuditTruncatedError(
        "the audit log was cut off at its end",
        where=f"{name}: record {last + 1} at byte {end}",
        found=f"{last} records",
        needed=f"{needed} records",
    )
