"""`edgekit audit report`: what the log proves and holds, as a page for a security officer."""

from __future__ import annotations

import os
import socket
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.core.api_keys import parse_keys
from edgekit.core.audit_query import ENDINGS, REFUSALS, REQUEST, Query, Record
from edgekit.core.audit_record import OWN_TYPES
from edgekit.core.audit_report import MAX_EVENTS, Finding, ReportFacts, render_report
from edgekit.core.audit_stats import Stats
from edgekit.core.audit_summary import AuditSummary
from edgekit.core.host_layout import HostLayout
from edgekit.errors import AuditError, AuditUnavailableError, EdgekitError
from edgekit.operations.audit import Brought, verify_audit
from edgekit.operations.audit_search import matching
from edgekit.operations.host_records import audit_event
from edgekit.operations.host_trust import load_installed
from edgekit.system.clock import wall_clock
from edgekit.system.files import durable_write, read_bounded

MAX_KEYS_BYTES = 16 << 20
UNLISTED = (OWN_TYPES - {"audit_full", "recovered", "clock_jump"}) | REFUSALS | ENDINGS | {REQUEST}
"""Types that are counted and not listed one by one."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A report that was written; `problem` is why the log is not intact, None when it is."""

    path: Path
    summary: AuditSummary | None
    problem: AuditError | None


def report_audit(
    layout: HostLayout, log_dir: Path, brought: Brought, query: Query, out: Path
) -> Reported:
    """Verify the log, sum it up, and write the page to `out`.

    A log that is not intact gets a page that says so. On the host itself the report is recorded.
    Raises AuditUnavailableError when the log cannot be read or the report not recorded, HostError.
    """
    proven, problem = None, None
    try:
        proven = verify_audit(log_dir, brought)
    except AuditUnavailableError:
        raise
    except AuditError as error:
        problem = error
    stats, events, more = _read(log_dir, query)
    on_host = log_dir == layout.audit
    facts = ReportFacts(
        host=socket.gethostname() if on_host else str(log_dir),
        version=__version__,
        created=wall_clock() * 1_000_000,
        since=query.since,
        until=query.until,
        proven=proven,
        finding=None if problem is None else _finding(problem),
        stats=stats,
        events=events,
        more_events=more,
        key_notes=_key_notes(layout) if on_host else {},
        signers=_signers(layout) if on_host else (),
    )
    page = render_report(facts).encode()
    if on_host and problem is None:
        last = proven.verdict.last if proven is not None else 0
        record = {"type": "report", "last": last, "to": str(out), "actor": f"uid {os.getuid()}"}
        audit_event(layout, record)
    durable_write(out, page)
    return Reported(out, proven, problem)


def _read(log_dir: Path, query: Query) -> tuple[Stats, list[Record], int]:
    """The sums, the newest events that are listed, and how many earlier ones are not.

    In a log that is not intact they end where it can no longer be read.
    """
    stats, events, count = Stats(), deque[Record](maxlen=MAX_EVENTS), 0
    try:
        for entry in matching(log_dir, query):
            stats.add(entry)
            if entry.type not in UNLISTED:
                events.append(entry.first)
                count += 1
    except AuditUnavailableError:
        raise
    except AuditError:
        pass  # the page says that the log is not intact, and where
    return stats, list(events), count - len(events)


def _finding(error: AuditError) -> Finding:
    details = error.details()
    return Finding(
        error.message,
        str(details.get("where", "")),
        str(details.get("found", "")),
        str(details.get("needed", "")),
        int(error.exit_code),
    )


def _key_notes(layout: HostLayout) -> dict[str, str]:
    """What this host calls its API keys, as far as it can be read."""
    try:
        data = read_bounded(layout.api_keys, MAX_KEYS_BYTES, "api-keys.json")
        return {key.id: key.note for key in parse_keys(data).keys}
    except EdgekitError:
        return {}


def _signers(layout: HostLayout) -> tuple[str, ...]:
    try:
        installed = load_installed(layout)
    except EdgekitError:
        return ()
    return () if installed is None else tuple(installed.statement.signers)
