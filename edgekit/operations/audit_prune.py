"""`edgekit audit prune`: remove the log's oldest segments, once they were exported.

The log is verified first, the record that says what goes is durable before anything goes, and
segments go oldest first: whenever it is cut off, what is left is intact and says why it begins
where it does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgekit.core.audit_chain import parse_line
from edgekit.core.audit_retention import EXPORT, RETENTION, exported_to
from edgekit.core.host_layout import HostLayout
from edgekit.errors import AuditUnavailableError, FormatError, PrivilegeError
from edgekit.operations.audit import verify_audit
from edgekit.operations.audit_export import read_records
from edgekit.operations.host_records import audit_event
from edgekit.system.audit_files import first_record, log_segments, segment_lines
from edgekit.system.files import exclusive_lock, fsync_directory, translate_os_error

KEPT_SEGMENTS = 2
"""The writer looks for open requests in the newest two."""

MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went: records, segments, bytes. `exported_to` is the last record that is exported;
    `kept_from` the first that is left."""

    first: int
    last: int
    segments: int
    bytes: int
    exported_to: int
    forced: bool

    @property
    def kept_from(self) -> int:
        """The log's first record now."""
        return self.last + 1


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    last: int
    """Number of its last record."""
    chain: str
    """The chain value after that record."""
    ended: int
    """When the next segment began, in microseconds since 1970."""


def prune_audit(layout: HostLayout, before: int | None, insecure_unexported: str | None) -> Pruned:
    """Remove whole segments that ended before a moment (us since 1970; None: any), oldest first,
    as far as they were exported, or further for a reason.

    The newest two segments stay. Nothing to remove is no error. Raises PrivilegeError, BusyError,
    AuditUnavailableError when it cannot be recorded, the verifier's errors for a log that is not
    intact: nothing is removed from that one.
    """
    if not layout.is_private and os.geteuid() != 0:
        raise PrivilegeError("removing records needs root", hint="sudo edgekit audit prune")
    reason = insecure_unexported
    if reason is not None and not (0 < len(reason) <= MAX_REASON and reason.isprintable()):
        raise FormatError("a removal says why", needed=f"a line of at most {MAX_REASON} characters")
    with exclusive_lock(layout.audit_lock, "the audit log's exports"):
        first = verify_audit(layout.audit).verdict.first
        reached = exported_to(read_records(layout.audit, EXPORT), first)
        chosen = []
        for segment in _closed_segments(layout.audit):
            is_old = before is None or segment.ended < before
            if not is_old or (reason is None and segment.last > reached):
                break
            chosen.append(segment)
        if not chosen:
            return Pruned(first, first - 1, 0, 0, reached, forced=False)
        size = sum(segment.path.stat().st_size for segment in chosen)
        last, forced = chosen[-1].last, chosen[-1].last > reached
        pruned = Pruned(first, last, len(chosen), size, reached, forced)
        record = {
            "type": RETENTION,
            "first": first,
            "last": last,
            "chain": chosen[-1].chain,
            "segments": len(chosen),
            "bytes": size,
            "exported_to": reached,
            "forced": forced,
            "reason": reason or "",
            "actor": f"uid {os.getuid()}",
        }
        audit_event(layout, record)
        _remove(layout.audit, chosen)
    return pruned


def _closed_segments(log_dir: Path) -> Iterator[_Segment]:
    """The segments that may go, oldest first, each with how the log stood at its end."""
    for path, following in pairwise(log_segments(log_dir)[: 1 - KEPT_SEGMENTS]):
        line = next(segment_lines(following), None)
        if line is None:
            raise AuditUnavailableError("a segment is empty", where=str(following))
        begin = parse_line(line, first_record(following))
        yield _Segment(path, begin["seq"] - 1, begin["prev"], begin["t_utc"])


def _remove(log_dir: Path, segments: list[_Segment]) -> None:
    for segment in segments:
        try:
            segment.path.unlink(missing_ok=True)
            fsync_directory(log_dir)
        except OSError as error:
            raise translate_os_error(error, "removing a segment") from error
