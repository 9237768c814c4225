"""`python -m tests.audit.kills_auditd BUG ...`: the audit writer of the kill suite.

The real one, but that it gives up unanswered requests of an earlier writer soon. BUG is `none`, or
one put in on purpose, which the suite must find.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from edgekit.auditd import daemon, server
from edgekit.auditd.writer import Answer, Writer
from edgekit.core.audit_record import AuditEvent

GIVE_UP_S = 2.0


def acknowledge_first() -> None:
    """It says that records are durable, and writes them when it has the time."""
    commit, settle = Writer.commit, Writer.settle
    held: list[AuditEvent] = []

    def hold(_writer: Writer, events: Sequence[AuditEvent], answer: Answer) -> None:
        held.extend(events)
        answer(list(range(1, 1 + len(events))))

    def write(writer: Writer) -> None:
        commit(writer, list(held), lambda _: None)
        held.clear()
        settle(writer)

    Writer.commit, Writer.settle = hold, write  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    if sys.argv[1] == "acknowledges_first":
        acknowledge_first()
    server.GIVE_UP_S = GIVE_UP_S
    sys.exit(daemon.main(sys.argv[2:]))
