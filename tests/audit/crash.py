"""A crash at every byte of an append: what was acknowledged is there, and the log opens.

The states a crash can leave are built from two true states of one log, before and after one append:
any prefix of what was written, and the same with the first block of it missing (a hole reads as
zeros), beside the head from before: the head moves when everything is durable.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.audit_chain import Pace
from edgekit.core.audit_record import AuditEvent, check_event
from edgekit.errors import AuditError
from edgekit.system.audit_files import log_segments
from tests.audit.figures import Figure
from tests.support.audit_logs import Written, start_log

BLOCK = 512


@dataclass(frozen=True)
class Append:
    """One append: the folder before and after it, and how many records were acknowledged before."""

    name: str
    written: Written
    before: Path
    after: Path
    acknowledged: int


def run(folder: Path, *, step: int) -> list[Figure]:
    """Every `step`-th byte of each kind of append."""
    return [_sweep(append, folder / "state", step) for append in _appends(folder)]


def _appends(folder: Path) -> Iterator[Append]:
    """One record; a batch; a batch that ends an epoch; one that begins a segment."""
    for name, pace, segment_bytes, batch in (
        ("one record", Pace(), 64 << 20, 1),
        ("a batch", Pace(), 64 << 20, 16),
        ("the end of an epoch", Pace(300, 12), 64 << 20, 8),
        ("a new segment", Pace(), 3000, 2),
    ):
        base = folder / name.replace(" ", "-")
        written = start_log(base / "audit", pace=pace, segment_bytes=segment_bytes)
        log = written.open()
        for number in range(5):
            log.append_batch([_event(number)])
        acknowledged = log.head.seq
        before = shutil.copytree(written.directory, base / "before")
        log.append_batch([_event(100 + number) for number in range(batch)])
        after = shutil.copytree(written.directory, base / "after")
        log.close()
        yield Append(name, written, before, after, acknowledged)


def _event(number: int) -> AuditEvent:
    return check_event({"type": "request", "request_id": f"r{number}", "model": "demo" * 20})


def _sweep(append: Append, state: Path, step: int) -> Figure:
    figure = Figure(f"audit crash, {append.name}")
    old, new = log_segments(append.before), log_segments(append.after)
    segment = new[-1].name
    size = old[-1].stat().st_size if len(old) == len(new) else 0
    data = new[-1].read_bytes()
    for end in range(size, len(data) + 1, step):
        for hole in (False, True):
            torn = _with_hole(data, size, end) if hole else data[:end]
            if hole and torn == data[:end]:
                continue
            figure.planned += 1
            problem = _judge(append, state, segment, torn)
            figure.add(f"{append.name}, byte {end - size}{', hole' if hole else ''}", problem)
    return figure


def _with_hole(data: bytes, start: int, end: int) -> bytes:
    """The first block of what was written never reached the disk."""
    edge = min(end, (start // BLOCK + 1) * BLOCK)
    return data[:start] + bytes(edge - start) + data[edge:end]


def _judge(append: Append, state: Path, segment: str, torn: bytes) -> str:
    """Empty when the log opens, verifies, holds what was acknowledged, and can be written."""
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(append.before, state)
    (state / segment).write_bytes(torn)
    whole = torn == (append.after / segment).read_bytes()
    written = Written(state, append.written.first_key, append.written.clock)
    acknowledged = (append.before / segment).read_bytes() if segment in _names(append) else b""
    try:
        log = written.open()
        first = log.append_batch([_event(999)])[0]
        log.close()
        verdict = written.verify()
    except AuditError as error:
        return f"{type(error).__name__}: {error} {error.where}"
    if first <= append.acknowledged or verdict.last < append.acknowledged:
        return f"record {first} follows {append.acknowledged} acknowledged ones"
    if not (state / segment).read_bytes().startswith(acknowledged):
        return "acknowledged bytes changed"
    if whole and list(state.glob("*.torn")):
        return "a whole append was set aside"
    return ""


def _names(append: Append) -> set[str]:
    return {path.name for path in log_segments(append.before)}


