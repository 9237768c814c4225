"""Audit logs for tests: written by the real writer, under a clock that the test sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import LogLine, Pace
from edgekit.core.audit_keys import AuditKey
from edgekit.core.audit_record import Times, check_event
from edgekit.core.audit_verify import Evidence, Verdict, Verifier
from edgekit.errors import AuditError
from edgekit.system.audit_files import (
    load_audit_signer,
    log_segments,
    public_half_path,
    read_head,
    read_lines,
)
from edgekit.system.audit_log import AuditLog, LogSettings, open_audit_log
from edgekit.system.audit_secrets import load_mac_key

BOOT = "0" * 31 + "1"


@dataclass
class Clock:
    """Stands still until told; both clocks move together unless the wall clock is set."""

    t_utc: int = 1_700_000_000_000_000
    t_boot_ns: int = 1_000_000_000
    boot_id: str = BOOT

    def __call__(self) -> Times:
        return Times(self.t_utc, self.t_boot_ns, self.boot_id)

    def tick(self, seconds: float) -> None:
        self.t_utc += int(seconds * 1_000_000)
        self.t_boot_ns += int(seconds * 1_000_000_000)


@dataclass
class Written:
    """A log on disk, and what an auditor would hold: its first MAC key."""

    directory: Path
    first_key: AuditKey
    clock: Clock
    settings: LogSettings = field(default_factory=LogSettings)

    def open(self, sync: Callable[[int], None] = lambda _: None) -> AuditLog:
        return open_audit_log(self.directory, settings=self.settings, now=self.clock, sync=sync)

    def lines(self) -> list[LogLine]:
        return list(read_lines(self.directory))

    def segments(self) -> list[Path]:
        return log_segments(self.directory)

    def evidence(self, **changes: Any) -> Evidence:
        """Everything an auditor could have, unless a test takes it away."""
        head = read_head(self.directory)
        known: dict[str, Any] = {
            "signer": load_audit_signer(public_half_path(self.directory, head.log_id)),
            "keys": (self.first_key,),
            "head": head,
        }
        return Evidence(**{**known, **changes})

    def verify(self, lines: Iterable[LogLine] | None = None, **changes: Any) -> Verdict:
        return verify_lines(self.lines() if lines is None else lines, self.evidence(**changes))


def start_log(
    directory: Path, *, segment_bytes: int = 64 << 20, pace: Pace | None = None
) -> Written:
    """A new log, closed, of its first record only."""
    settings, clock = LogSettings(segment_bytes, pace or Pace()), Clock()
    log = open_audit_log(directory, settings=settings, now=clock, sync=lambda _: None)
    key = load_mac_key(directory, log.head.log_id)
    assert key is not None
    assert key.epoch == 0
    log.close()
    return Written(directory, key, clock, settings)


def write_requests(written: Written, count: int, *, batch: int = 1) -> None:
    """Open the log, write requests, close it."""
    log = written.open()
    for first in range(0, count, batch):
        written.clock.tick(0.01)
        events = [
            check_event({"type": "request", "request_id": f"r{number}", "n": number})
            for number in range(first, min(first + batch, count))
        ]
        log.append_batch(events)
    log.close()


def verify_lines(lines: Iterable[LogLine], evidence: Evidence) -> Verdict:
    verifier = Verifier(evidence)
    for _ in verifier.check(lines):
        pass
    return verifier.verdict()


def placed(lines: Iterable[bytes], segment: str = "audit-0000000000000001.jsonl") -> list[LogLine]:
    """Lines as they would lie in one segment."""
    result, offset = [], 0
    for line in lines:
        result.append(LogLine(segment, offset, line))
        offset += len(line) + 1
    return result


def located(error: AuditError) -> tuple[int, int]:
    """Record number and byte offset that an error names."""
    found = re.search(r"record (\d+) at byte (\d+)", error.where or "")
    assert found, error.where
    return int(found[1]), int(found[2])
