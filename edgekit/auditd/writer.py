"""What the audit writer does with a log: it commits, and keeps an eye on the room that is left.

When the log is full (by its plan, or because the disk says so) new requests are refused and the
reserve is given back for the last records; what an operator does to make room is still recorded.

A large batch is sealed while the one before is written. For a small one that would not pay.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from edgekit.core.audit_capacity import Level, capacity_fields
from edgekit.core.audit_checkpoint import Checkpoint
from edgekit.core.audit_record import AuditEvent, own_event
from edgekit.errors import AuditUnavailableError
from edgekit.system.audit_log import AuditLog
from edgekit.system.audit_space import Space

FULL = "the audit log is full"
SERVING = frozenset({"request", "denied", "auth_fail"})
"""Types that begin something: refused first."""

LARGE_BATCH = 8

Result = int | str
"""A record's number, or why there is none."""

Answer = Callable[[Sequence[Result]], object]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(slots=True)
class _Batch:
    """Events of which those of `refused` types are not recorded, and who waits for them."""

    events: Sequence[AuditEvent]
    refused: frozenset[str]
    answer: Answer
    numbers: list[int] = field(default_factory=list)

    @property
    def admitted(self) -> Sequence[AuditEvent]:
        """What is to be recorded."""
        if not self.refused:
            return self.events
        return [event for event in self.events if event.fields["type"] not in self.refused]

    def end(self) -> None:
        """They are durable."""
        if not self.refused:
            self.answer(self.numbers)
            return
        numbers = iter(self.numbers)
        self.answer([
            FULL if event.fields["type"] in self.refused else next(numbers) for event in self.events
        ])  # fmt: skip

    def refuse(self, reason: str) -> None:
        """They are not, or nobody knows."""
        self.answer([reason] * len(self.events))


class Writer:
    """Wraps the log that `reopen` opens; a full disk makes it open the log anew."""

    def __init__(self, reopen: Callable[[], AuditLog], space: Space) -> None:
        self._reopen = reopen
        self._space = space
        self._log = reopen()
        self._level = Level.OK
        self._refused: frozenset[str] = frozenset()
        self._under_way: list[_Batch] = []

    @property
    def is_busy(self) -> bool:
        """Whether a batch was begun and not answered: `finish`, or another `commit`, does that."""
        return bool(self._under_way)

    @property
    def level(self) -> Level:
        """How full the log was when it was last measured."""
        return self._level

    @property
    def signed(self) -> Checkpoint | None:
        """What was signed last since the log was opened."""
        return self._log.signed

    def commit(self, events: Sequence[AuditEvent], answer: Answer) -> None:
        """Record events; `answer` gets a result for each once they are durable, or are refused.

        For a large batch that may be in the next call. Raises AuditUnavailableError when the disk
        fails in another way than by being full, after answering all who waited.
        """
        batch = _Batch(events, self._refused, answer)
        if len(events) < LARGE_BATCH:
            self.finish()
            try:
                batch.numbers = self._log.append_batch(batch.admitted)
            except AuditUnavailableError as error:
                self._fail([batch], error)
            else:
                batch.end()
            return
        before, self._under_way = self._under_way, []
        try:
            batch.numbers = self._log.begin_batch(batch.admitted)
        except AuditUnavailableError as error:
            self._fail([*before, batch], error)
            return
        for earlier in before:
            earlier.end()
        self._under_way = [batch]

    def rekey(self, event: AuditEvent, answer: Answer) -> None:
        """Record the event, and go on with a new MAC key. Raises as `commit`."""
        batch = _Batch([event], self._refused, answer)
        self.finish()
        try:
            batch.numbers = [self._log.rekey(event)]
        except AuditUnavailableError as error:
            self._fail([batch], error)
        else:
            batch.end()

    def finish(self) -> None:
        """Answer the batch that was begun. Raises as `commit`."""
        if not self._under_way:
            return
        before, self._under_way = self._under_way, []
        try:
            self._log.finish()
        except AuditUnavailableError as error:
            self._fail(before, error)
            return
        for batch in before:
            batch.end()

    def note(self, events: Iterable[AuditEvent]) -> None:
        """Record what nobody asked for, durable when this returns. Raises as `commit`."""
        self.commit(list(events), lambda _: None)
        self.finish()

    def settle(self) -> None:
        """What can wait: the log's own settling, and a look at the room. Raises as `commit`."""
        self.finish()
        try:
            self._log.settle()
        except AuditUnavailableError as error:
            self._fail([], error)
        self._measure()

    def due_in_s(self, settle_s: float) -> float:
        """Seconds until `settle` has something to do."""
        if self._refused or self._log.unsettled:
            return settle_s
        return self._log.heartbeat_in_s()

    def close(self) -> None:
        """End the log. Raises AuditUnavailableError."""
        try:
            self.finish()
        finally:
            self._log.close()

    def _measure(self) -> None:
        level = self._space.level()
        if level < Level.FULL and not self._space.take_reserve():
            level = Level.FULL
        if level == self._level:
            return
        self._level = level
        full = level is Level.FULL
        self._refused = SERVING if full else frozenset()
        self.note([own_event("audit_full" if full else "capacity", **self._fields(level))])

    def _fail(self, batches: Sequence[_Batch], error: AuditUnavailableError) -> None:
        """Refuse what waited, and go on from the reserve if the disk is full."""
        no_room = _has_no_room(error)
        for batch in batches:
            batch.refuse(FULL if no_room else error.message)
        if not no_room:
            raise error
        self._run_out()

    def _run_out(self) -> None:
        """The disk is full: from now on records come out of the reserve, and none begins anything.

        The batch that met the end is refused whole: its beginning may be in the log all the same.
        """
        self._log.close()
        self._space.give_reserve()
        self._log = self._reopen()
        self._level = Level.FULL
        self._refused = SERVING
        self._log.append_batch([own_event("audit_full", **self._fields(Level.FULL))])
        self._log.settle()

    def _fields(self, level: Level) -> dict[str, object]:
        used = self._space.used_bytes()
        return {"level": level.label, "used_bytes": used, **capacity_fields(self._space.capacity)}


def _has_no_room(error: AuditUnavailableError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _NO_ROOM
