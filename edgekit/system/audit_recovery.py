"""What a log stands at when its writer opens it, whatever a crash left behind.

The newest segment is verified whole, with the MAC key where it reaches. A crash can leave half a
record, or blocks of an unacknowledged batch in any order: bytes after the kept head that are no
record in its place are set aside in a `.torn` file, and a record says so. A record in its place
whose MAC is wrong was not left by a crash, wherever it stands: it is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.audit_chain import Head, LogLine, Pace, parse_line, times_of
from edgekit.core.audit_keys import AuditKey
from edgekit.core.audit_record import AuditEvent, Times, own_event
from edgekit.core.audit_requests import OpenRequests, record_kind
from edgekit.core.audit_state import LogState, new_log
from edgekit.core.audit_verify import Evidence, Verifier
from edgekit.core.hybrid_key import HybridKey
from edgekit.errors import AuditError, AuditTruncatedError
from edgekit.system.audit_files import first_record, log_segments, segment_lines
from edgekit.system.audit_keyring import give_to_owner
from edgekit.system.files import fsync_directory, pwrite_all, write_all

Sync = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Torn:
    """What was set aside: the file it lies in, and its bytes."""

    name: str
    data: bytes

    def event(self) -> AuditEvent:
        """The record about it."""
        return own_event(
            "recovered",
            torn_file=self.name,
            torn_bytes=len(self.data),
            torn_sha384=hashlib.sha384(self.data).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class Recovered:
    """Where to go on: the state, its epoch's key, when its last record was written, and what was
    set aside.
    """

    state: LogState
    key: AuditKey
    last: Times | None
    torn: tuple[Torn, ...]


@dataclass(frozen=True, slots=True)
class Trusted:
    """What the writer holds its own log against; `prepared` counts only if the log says so."""

    kept: Head
    key: AuditKey
    prepared: AuditKey | None
    signer: HybridKey


def recover(directory: Path, trusted: Trusted, pace: Pace, now: Times, sync: Sync) -> Recovered:
    """The state to continue from.

    Raises AuditTruncatedError when records are missing before the kept head or before the epoch
    whose key is kept, the verifier's errors for what no crash explains, OSError.
    """
    torn: list[Torn] = []
    for path in reversed(log_segments(directory)):
        verifier, last, known, end = _verify(path, trusted)
        if verifier is None:
            torn += _drop(path, sync)
            continue
        _write_again(path, known, end, sync)
        torn += _set_aside(path, end, sync)
        state = verifier.state()
        _check_reached(directory, state, trusted)
        key = verifier.key or trusted.key.at(state.epoch.number)
        return Recovered(state, key, last, tuple(torn))
    state = new_log(trusted.kept.log_id, pace, now)
    _check_reached(directory, state, trusted)
    return Recovered(state, trusted.key.at(state.epoch.number), None, tuple(torn))


def open_requests(directory: Path, segments: int = 2) -> list[str]:
    """Requests in the newest segments that were neither answered nor given up. Raises OSError."""
    found = OpenRequests()
    for path in log_segments(directory)[-segments:]:
        for line in segment_lines(path):
            found.add(record_kind(line.data), line.data)
    return list(found)


def _check_reached(directory: Path, state: LogState, trusted: Trusted) -> None:
    kept, epoch = trusted.kept.seq, trusted.key.epoch
    if state.seq < kept or state.epoch.number < epoch:
        raise AuditTruncatedError(
            "the audit log was cut off at its end",
            where=str(directory),
            found=f"{state.seq} records, epoch {state.epoch.number}",
            needed=f"{kept} records, epoch {epoch}",
        )


def _verify(path: Path, trusted: Trusted) -> tuple[Verifier | None, Times | None, int, int]:
    """The verifier after a segment's last good record, that record's time, and two ends in bytes.

    The ends are those of the last record that the kept head acknowledges, and of the last good one.
    """
    first, lines = first_record(path), list(segment_lines(path))
    if not lines and trusted.kept.seq < first:  # cut off before its first record
        return None, None, 0, 0
    head = trusted.kept if trusted.kept.seq >= first else None
    keys = (trusted.key,) if trusted.prepared is None else (trusted.key, trusted.prepared)
    verifier = Verifier(Evidence(trusted.signer, keys, (), head, first))
    good, known, end = 0, 0, 0
    try:
        for verified in verifier.check(lines):
            good, end = good + 1, verified.line.offset + len(verified.line.data) + 1
            known = end if first + good - 1 <= trusted.kept.seq else known
    except AuditError:
        reached = first + good - 1
        if reached < trusted.kept.seq or good == len(lines) or _is_whole(lines, good, verifier):
            raise
    if not good:
        return None, None, 0, 0
    last = times_of(parse_line(lines[good - 1], first + good - 1))
    return verifier, last, known, end


def _write_again(path: Path, start: int, end: int, sync: Sync) -> None:
    """Write the records that nobody was told about once more, before others are chained to them.

    Perhaps their sync failed: then they are in memory alone, and a later sync would pass them over.
    """
    if start == end:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        data = os.pread(descriptor, end - start, start)
        if len(data) != end - start:
            raise OSError(f"{path.name} became shorter")
        pwrite_all(descriptor, memoryview(data), start)
        sync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(lines: list[LogLine], good: int, verifier: Verifier) -> bool:
    """Whether the first bad line is a record that says it belongs there."""
    if not good:
        return False
    state = verifier.state()
    try:
        record = parse_line(lines[good], state.seq + 1)
    except AuditError:
        return False
    return bool(record["seq"] == state.seq + 1 and record["prev"] == state.chain.hex())


def _drop(path: Path, sync: Sync) -> list[Torn]:
    """Take away a segment that holds no record: its beginning is all that was lost."""
    torn = _set_aside(path, 0, sync)
    path.unlink()
    fsync_directory(path.parent)
    return torn


def _set_aside(path: Path, end: int, sync: Sync) -> list[Torn]:
    """Move what lies after byte `end` to a `.torn` file, durable before the segment is cut."""
    with path.open("rb") as file:
        file.seek(end)
        data = file.read()
    if not data:
        return []
    aside = path.with_name(f"{path.name}.{end}.torn")
    write_new(aside, data, sync)
    fsync_directory(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return [Torn(aside.name, data)]


def write_new(path: Path, data: bytes, sync: Sync) -> None:
    """A whole file, durable but for its name, of the log folder's owner. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o640)
    try:
        write_all(descriptor, data)
        sync(descriptor)
    finally:
        os.close(descriptor)
    give_to_owner(path.parent, path)
