"""A log is checked in parts, side by side: some segments each, from the state that they begin with.

What a segment says of the log before it is believed first, and held against what the part before
came to when both are done. Parts can only find that a log is intact: whenever one does not end
well, or does not begin as the one before ended, the log is checked again from its first record to
its last, which says what is wrong and where. So the verdict never depends on how many there were.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import LogLine, parse_line, times_of
from edgekit.core.audit_record import Times
from edgekit.core.audit_retention import RETENTION, Removal, parse_removal
from edgekit.core.audit_state import MAX_QUIET_EPOCHS, LogState, parse_segment
from edgekit.core.audit_summary import Tally
from edgekit.core.audit_verify import Evidence, Part, Standing, Verdict, Verified, Verifier, key_at
from edgekit.errors import AuditError, AuditMissingError
from edgekit.system.audit_files import (
    first_record,
    log_segments,
    read_lines,
    segment_lines,
    unavailable,
)
from edgekit.system.children import processors, run_side_by_side

MAX_WORKERS = 16
PART_BYTES = 32 << 20
"""A part that is smaller is not worth a process."""

_RETENTION = RETENTION.encode()
_EPOCH = b'"type":"epoch"'


@dataclass(slots=True)
class Counted:
    """What was counted of lines that stand in their place."""

    tally: Tally = field(default_factory=Tally)
    removals: list[Removal] = field(default_factory=list)

    def add(self, lines: Iterator[Verified]) -> None:
        """Count them all."""
        for verified in lines:
            self.tally.add(verified)
            if verified.kind == _RETENTION:
                self.removals.append(parse_removal(parse_line(verified.line, verified.seq)))


@dataclass(frozen=True, slots=True)
class Checked:
    """A log that is intact, what was counted, and what it says of records before its first."""

    verdict: Verdict
    tally: Tally
    removals: list[Removal]
    parts: int = 1


def check_log(folder: Path, evidence: Evidence, workers: int | None = None) -> Checked:
    """Check every record from `evidence.first` on, with so many workers or as many as pay.

    Raises the AuditError that says what is wrong.
    """
    try:
        segments = [path for path in log_segments(folder) if first_record(path) >= evidence.first]
        groups = _share(segments, workers)
    except OSError as error:
        raise unavailable("cannot read the audit log", folder, error) from error
    if len(groups) > 1 and (checked := _check_side_by_side(groups, evidence)) is not None:
        return checked
    verifier, counted = Verifier(evidence), Counted()
    counted.add(verifier.check(read_lines(folder, evidence.first)))
    return Checked(verifier.verdict(), counted.tally, counted.removals)


def _share(segments: Sequence[Path], workers: int | None) -> list[list[Path]]:
    """Neighbouring segments for each worker, about as many bytes for each. Raises OSError."""
    sizes = [path.stat().st_size for path in segments]
    total = sum(sizes)
    if workers is None:
        workers = min(processors(), MAX_WORKERS, total // PART_BYTES)
    groups: list[list[Path]] = [[] for _ in range(max(1, workers))]
    before = 0
    for path, size in zip(segments, sizes, strict=True):
        middle = before + size // 2
        groups[min(middle * len(groups) // max(1, total), len(groups) - 1)].append(path)
        before += size
    return [group for group in groups if group]


def _check_side_by_side(groups: Sequence[list[Path]], evidence: Evidence) -> Checked | None:
    """None when the parts alone do not show that the log is intact."""
    before: list[Path] = []
    jobs: list[Callable[[], Any]] = []
    for group in groups:
        jobs.append(partial(_check_part, group, list(before), evidence))
        before += group
    parts: list[tuple[Part, Counted]] | None = run_side_by_side(jobs)
    if parts is None:
        return None
    verifier, counted = Verifier(evidence), Counted()
    for part, its in parts:
        if not verifier.join(part):
            return None
        counted.tally.join(its.tally)
        counted.removals += its.removals
    try:
        verifier.finish()
    except AuditError:
        return None
    return Checked(verifier.verdict(), counted.tally, counted.removals, len(parts))


def _check_part(group: list[Path], before: list[Path], evidence: Evidence) -> tuple[Part, Counted]:
    verifier = Verifier(evidence, _standing(group[0], before, evidence) if before else None)
    counted = Counted()
    counted.add(verifier.check_part(chain.from_iterable(map(segment_lines, group))))
    return verifier.part(), counted


def _standing(segment: Path, before: Sequence[Path], evidence: Evidence) -> Standing:
    """How the log stood at the beginning of a segment, by what it and those before say."""
    state = _told(segment)
    began: Times | None = None
    for record in _epochs_backwards(before):
        began = began or times_of(record)
        if record["signs"] or state.epoch.quiet > MAX_QUIET_EPOCHS:
            break
        state.epoch.quiet += 1
    state.epoch.began = began or _told(before[0]).epoch.began
    return Standing(state, key_at(evidence, state.epoch.number))


def _told(segment: Path) -> LogState:
    line = next(segment_lines(segment), None)
    if line is None:
        raise AuditMissingError("a segment is empty", where=segment.name)
    return parse_segment(parse_line(line, first_record(segment)), line)


def _epochs_backwards(segments: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The records that end epochs, newest first."""
    for path in reversed(segments):
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            if not end:
                continue
            with mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ) as data:
                while (end := data.rfind(_EPOCH, 0, end)) >= 0:
                    start = data.rfind(b"\n", 0, end) + 1
                    line = LogLine(path.name, start, data[start : data.find(b"\n", end)])
                    record = parse_line(line, 0)
                    if record["type"] == "epoch":
                        yield record
