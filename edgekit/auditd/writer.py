"""What the audit writer does with a log: it commits, and keeps an eye on the room that is left.

When the log is full (by its plan, or because the disk says so) new requests are refused and the
reserve is given back for the last records; what an operator does to make room is still recorded.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence

from edgekit.core.audit_capacity import Level, capacity_fields
from edgekit.core.audit_checkpoint import Checkpoint
from edgekit.core.audit_record import AuditEvent, own_event
from edgekit.errors import AuditUnavailableError
from edgekit.system.audit_log import AuditLog
from edgekit.system.audit_space import Space

FULL = "the audit log is full"
SERVING = frozenset({"request", "denied", "auth_fail"})
"""Types that begin something: refused first."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class Writer:
    """Wraps the log that `reopen` opens; a full disk makes it open the log anew."""

    def __init__(self, reopen: Callable[[], AuditLog], space: Space) -> None:
        self._reopen = reopen
        self._space = space
        self._log = reopen()
        self._level = Level.OK
        self._refused: frozenset[str] = frozenset()

    @property
    def level(self) -> Level:
        """How full the log was when it was last measured."""
        return self._level

    @property
    def signed(self) -> Checkpoint | None:
        """What was signed last since the log was opened."""
        return self._log.signed

    def commit(self, events: Sequence[AuditEvent]) -> list[int | str]:
        """Each event's number once it is durable, or why it was refused.

        Raises AuditUnavailableError when the disk fails in another way than by being full.
        """
        admitted = [event for event in events if event.fields["type"] not in self._refused]
        try:
            numbers = iter(self._log.append_batch(admitted))
        except AuditUnavailableError as error:
            if not _has_no_room(error):
                raise
            self._run_out()
            return [FULL] * len(events)
        refused = self._refused
        return [FULL if event.fields["type"] in refused else next(numbers) for event in events]

    def note(self, events: Iterable[AuditEvent]) -> None:
        """Record what nobody asked for. Raises as `commit`."""
        self.commit(list(events))

    def settle(self) -> None:
        """What can wait: the log's own settling, and a look at the room. Raises as `commit`."""
        try:
            self._log.settle()
        except AuditUnavailableError as error:
            if not _has_no_room(error):
                raise
            self._run_out()
        self._measure()

    def due_in_s(self, settle_s: float) -> float:
        """Seconds until `settle` has something to do."""
        if self._refused or self._log.unsettled:
            return settle_s
        return self._log.heartbeat_in_s()

    def close(self) -> None:
        """End the log. Raises AuditUnavailableError."""
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
