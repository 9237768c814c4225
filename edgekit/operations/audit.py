"""Verify an audit log from its first record to its head, and show its newest records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import Head, parse_line, verify_lines
from edgekit.system.audit_log import read_head, read_lines, tail_lines


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """What an intact log holds. Times in microseconds since 1970 as the host's clock had them.

    `orphans` are requests without a response: in flight now, or cut off by a crash.
    `unacknowledged` are records after the kept head, which a crash may leave.
    """

    log_id: str
    records: int
    first_t_utc: int | None
    last_t_utc: int | None
    head_seq: int
    head_chain: str
    unacknowledged: int
    boots: int
    requests: int
    responses: int
    orphans: int
    denied: int


def verify_audit(log_dir: Path) -> AuditSummary:
    """Check every record of the log. Raises the AuditError that says what is wrong and where."""
    # the head first: a writer may append while this reads, and may only make the log longer
    head = read_head(log_dir)
    tally = _Tally()
    for verified in verify_lines(read_lines(log_dir), head):
        tally.add(verified.record, verified.head)
    return tally.summary(head)


def tail_audit(log_dir: Path, count: int) -> list[dict[str, Any]]:
    """The newest `count` records, oldest first, read without verifying the chain."""
    return [parse_line(line, 0) for line in tail_lines(log_dir, count)]


@dataclass(slots=True)
class _Tally:
    records: int = 0
    first: int | None = None
    last: int | None = None
    seq: int = 0
    boots: set[str] = field(default_factory=set)
    requests: int = 0
    responses: int = 0
    denied: int = 0
    open_requests: set[str] = field(default_factory=set)

    def add(self, record: Mapping[str, Any], head: Head) -> None:
        self.records += 1
        self.first = self.first if self.first is not None else record["t_utc"]
        self.last, self.seq = record["t_utc"], head.seq
        self.boots.add(record["boot_id"])
        request_id = str(record.get("request_id", ""))
        match record["type"]:
            case "request":
                self.requests += 1
                self.open_requests.add(request_id)
            case "response":
                self.responses += 1
                self.open_requests.discard(request_id)
            case "denied" | "auth_fail":
                self.denied += 1

    def summary(self, head: Head) -> AuditSummary:
        return AuditSummary(
            log_id=head.log_id,
            records=self.records,
            first_t_utc=self.first,
            last_t_utc=self.last,
            head_seq=head.seq,
            head_chain=head.chain.hex(),
            unacknowledged=self.seq - head.seq,
            boots=len(self.boots),
            requests=self.requests,
            responses=self.responses,
            orphans=len(self.open_requests),
            denied=self.denied,
        )
