"""What the verification of an audit log found, for a person and for a program."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.core.audit_chain import LogLine, parse_line
from edgekit.core.audit_requests import OpenRequests
from edgekit.core.audit_retention import Removal
from edgekit.core.audit_verify import Evidence, Verdict, Verified


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """What an intact log holds. Times in microseconds since 1970 as the host's clock had them.

    `orphans` are requests without a response: in flight now, or given up after a crash.
    `unacknowledged` are records after the kept head: the newest ones while a writer runs, and what
    a crash left. `signer` is the audit key's fingerprint, None when no checkpoint could be checked;
    `borrowed` says that it came with what it signed. `removed` is what the log says of the records
    before its first.
    """

    verdict: Verdict
    signer: str | None
    unacknowledged: int
    first_t_utc: int
    last_t_utc: int
    requests: int
    responses: int
    orphans: int
    denied: int
    removed: Removal | None = None
    borrowed: bool = False

    @property
    def records(self) -> int:
        """How many records there are, those of older segments that were removed included."""
        return self.verdict.last

    @property
    def has_warnings(self) -> bool:
        """Whether records at the end are vouched for by nothing from outside."""
        return bool(self.verdict.unvouched or self.verdict.after_anchor or self.borrowed)

    def table(self) -> dict[str, Any]:
        """As plain JSON values (`edgekit.audit-verify/1`)."""
        verdict = self.verdict
        return {
            "schema": "edgekit.audit-verify/1",
            "log_id": verdict.log_id,
            "first": verdict.first,
            "records": verdict.last,
            "chain": verdict.chain.hex(),
            "root": verdict.root.hex(),
            "epoch": verdict.epoch,
            "signer": self.signer,
            "checkpoints": verdict.checkpoints,
            "signed_to": verdict.signed_to,
            "sealed_from": verdict.sealed_from,
            "anchored_to": verdict.anchored_to,
            "after_anchor": verdict.after_anchor,
            "unvouched": verdict.unvouched,
            "late_epochs": verdict.late,
            "unacknowledged": self.unacknowledged,
            "first_t_utc": self.first_t_utc,
            "last_t_utc": self.last_t_utc,
            "requests": self.requests,
            "responses": self.responses,
            "orphans": self.orphans,
            "denied": self.denied,
            "removed": None if self.removed is None else asdict(self.removed),
            "signer_borrowed": self.borrowed,
        }


@dataclass(slots=True)
class Tally:
    """Counts without parsing: a million lines must not take a minute."""

    kinds: Counter[bytes] = field(default_factory=Counter)
    open_requests: OpenRequests = field(default_factory=OpenRequests)
    first: LogLine | None = None
    last: LogLine | None = None

    def add(self, verified: Verified) -> None:
        """Count one more line."""
        line, _, kind = verified
        self.first, self.last = self.first or line, line
        self.kinds[kind] += 1
        self.open_requests.add(kind, line.data)

    def join(self, later: Tally) -> None:
        """Go on with what was counted elsewhere, of later lines."""
        self.first, self.last = self.first or later.first, later.last or self.last
        self.kinds.update(later.kinds)
        self.open_requests.join(later.open_requests)

    def summary(self, verdict: Verdict, evidence: Evidence) -> AuditSummary:
        """What was counted, beside what was proven."""
        head, signer = evidence.head, evidence.signer
        return AuditSummary(
            verdict=verdict,
            signer=signer.fingerprint if signer is not None else None,
            unacknowledged=verdict.last - head.seq if head is not None else 0,
            first_t_utc=_time(self.first),
            last_t_utc=_time(self.last),
            requests=self.kinds[b"request"],
            responses=self.kinds[b"response"],
            orphans=len(self.open_requests) + self.kinds[b"orphaned"],
            denied=self.kinds[b"denied"] + self.kinds[b"auth_fail"],
        )


def _time(line: LogLine | None) -> int:
    return int(parse_line(line, 0)["t_utc"]) if line is not None else 0


def render_summary(summary: AuditSummary) -> str:
    """A few lines: what the log holds, and what vouches for it up to where."""
    verdict = summary.verdict
    held = (
        f"intact: {summary.records} records, {summary.requests} requests, "
        f"{summary.responses} responses, {summary.denied} denied, "
        f"{summary.orphans} without a response"
    )
    lines = [held]
    if (gone := summary.removed) is not None:
        how = "unexported, by force" if gone.forced else "after their export"
        lines.append(
            f"begins with record {verdict.first}: those before were removed {how} "
            f"(record {gone.seq})"
        )
    if verdict.signed_to:
        lines.append(
            f"signed: to record {verdict.signed_to}, {verdict.checkpoints} checkpoints, "
            f"audit key {str(summary.signer)[:24]}..."
        )
    if verdict.sealed_from is not None:
        lines.append(f"sealed: MACs checked from record {verdict.sealed_from} to the end")
    if verdict.after_anchor is not None:
        lines.append(
            f"anchor: record {verdict.anchored_to}, {verdict.after_anchor} records after it"
        )
    else:
        lines.append("anchor: none given; a log cut back to an earlier checkpoint looks like this")
    if verdict.unvouched:
        lines.append(f"note: only the chain speaks for the last {verdict.unvouched} records")
    if summary.borrowed:
        lines.append("note: the audit key came with the export; give yours with --pubkey")
    if verdict.late:
        lines.append(f"note: {verdict.late} epochs ended late")
    lines.append(f"head: record {verdict.last}, chain {verdict.chain.hex()[:32]}...")
    return "\n".join(lines)
