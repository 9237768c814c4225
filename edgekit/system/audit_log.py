"""The audit log on disk: a folder that one writer appends to and anyone may verify.

    audit-<first seq, 16 digits>.jsonl   records, at most 64 MiB a file
    head.json                            log id, last acknowledged seq, chain value; 512 bytes
    writer.lock                          held by the one writer (flock)
    audit-*.jsonl.<offset>.torn          bytes a crash left behind a half-written record

A batch is durable (one write, one fdatasync) before the head moves, so the head never leads the
records. It may lag: after a crash by the batch nobody was told about, and after a power cut by what
was written since `sync_head`. Records after the head are therefore fine; records missing before it
mean the log was cut. The head is one sector, overwritten in place: a new file and a rename for
every batch made an append three times slower (measured, ext4). A failed write or sync is final:
the kernel may have dropped the pages, so the log refuses all further work and nothing is retried.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edgekit.core.audit_chain import (
    MAX_LINE_BYTES,
    AuditEvent,
    Head,
    LogLine,
    Stamp,
    check_event,
    empty_head,
    encode_head,
    encode_record,
    log_event,
    parse_head,
    parse_line,
    verify_lines,
)
from edgekit.errors import (
    AuditError,
    AuditFormatError,
    AuditMissingError,
    AuditTruncatedError,
    AuditUnavailableError,
)

SEGMENT_BYTES = 64 << 20
HEAD_NAME = "head.json"
HEAD_BYTES = 512
LOCK_NAME = "writer.lock"

_SEGMENT = re.compile(r"audit-([0-9]{16})\.jsonl")
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

Sync = Callable[[int], None]


def system_stamp() -> Stamp:
    """The host's clocks and boot id, now."""
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Stamp(time.time_ns() // 1000, boot_ns, _boot_id())


@functools.cache
def _boot_id() -> str:
    """This boot's id: from the unit (its sandbox hides /proc/sys), else from the kernel."""
    given = os.environ.get("EDGEKIT_BOOT_ID", "")
    if re.fullmatch(r"[0-9a-f]{32}", given):
        return given
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return text.strip().replace("-", "")


class AuditLog:
    """The one writer of an audit log. Use `open_audit_log`; close with `close`."""

    def __init__(
        self,
        directory: Path,
        lock: int,
        head: Head,
        *,
        stamp: Callable[[], Stamp],
        sync: Sync,
        segment_bytes: int,
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._head = head
        self._stamp = stamp
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._broken = False
        self._file: int | None = None
        self._head_file: int | None = None
        self._head_unsynced = False
        self._size = 0

    @property
    def head(self) -> Head:
        """The state after the last acknowledged record."""
        return self._head

    def append_batch(self, events: Sequence[AuditEvent]) -> list[int]:
        """Make the events durable as the next records; returns their numbers, in order.

        One write and one fdatasync, then the head. Raises AuditUnavailableError when the disk
        refuses any of it; the log is then closed for good and part of the batch may lie after the
        head, unacknowledged.
        """
        if self._broken:
            raise AuditUnavailableError("the audit log failed earlier and is closed")
        if not events:
            return []
        first, head, lines = self._head.seq + 1, self._head, []
        stamp = self._stamp()
        for event in events:
            line, head = encode_record(event, head, stamp)
            lines.append(line + b"\n")
        try:
            self._write(b"".join(lines), first)
            self._move_head(head)
        except OSError as error:
            self._broken = True
            raise _unavailable("cannot write the audit log", self._directory, error) from error
        self._head = head
        return list(range(first, head.seq + 1))

    @property
    def head_unsynced(self) -> bool:
        """True while a power cut would set the head back; `sync_head` ends that."""
        return self._head_unsynced

    def sync_head(self) -> None:
        """Make the head itself durable. Raises AuditUnavailableError; the log is then closed."""
        if self._head_file is None or not self._head_unsynced:
            return
        try:
            self._sync(self._head_file)
        except OSError as error:
            self._broken = True
            raise _unavailable("cannot write the audit log", self._directory, error) from error
        self._head_unsynced = False

    def close(self) -> None:
        """Release the files and the writer's lock. Raises as `sync_head`, files released."""
        try:
            if not self._broken:
                self.sync_head()
        finally:
            for descriptor in (self._file, self._head_file, self._lock):
                if descriptor is not None:
                    os.close(descriptor)
            self._file, self._head_file, self._broken = None, None, True

    def _move_head(self, head: Head) -> None:
        if self._head_file is None:
            self._head_file = os.open(
                self._directory / HEAD_NAME, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
        data = _head_sector(head)
        if os.pwrite(self._head_file, data, 0) != len(data):
            raise OSError(f"short write to {HEAD_NAME}")
        self._head_unsynced = True

    def _write(self, data: bytes, first: int) -> None:
        descriptor = self._segment(first)
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(f"wrote {written} of {len(data)} bytes")
        self._sync(descriptor)
        self._size += written

    def _segment(self, first: int) -> int:
        """The segment to append to: the last one while it has room, else a new one."""
        if self._file is not None and self._size < self._segment_bytes:
            return self._file
        segments = log_segments(self._directory) if self._file is None else []
        if segments and segments[-1].stat().st_size < self._segment_bytes:
            self._file = os.open(segments[-1], _FLAGS)
        else:
            if self._file is not None:
                os.close(self._file)
            path = self._directory / f"audit-{first:016d}.jsonl"
            self._file = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o640)
            _give_to_owner(self._file, self._directory)
            _sync_directory(self._directory)
        self._size = os.fstat(self._file).st_size
        return self._file


def open_audit_log(
    directory: Path,
    *,
    stamp: Callable[[], Stamp] = system_stamp,
    sync: Sync = os.fdatasync,
    segment_bytes: int = SEGMENT_BYTES,
) -> AuditLog:
    """Open the log for writing, creating it on first use; takes the writer's lock.

    The last segment is verified first. Bytes a crash left after the last whole record go to a
    `.torn` file and a `recovered` record says so. Raises AuditUnavailableError when another writer
    holds the log or the disk refuses, and the verifier's errors when the log is not intact.
    """
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = _take_lock(directory)
    except OSError as error:
        raise _unavailable("cannot open the audit log", directory, error) from error
    try:
        head, torn = _recover(directory, sync)
        log = AuditLog(directory, lock, head, stamp=stamp, sync=sync, segment_bytes=segment_bytes)
        if head.seq == 0:
            log.append_batch([log_event(head.log_id)])
        if torn:
            log.append_batch([_recovered_event(torn)])
    except OSError as error:
        os.close(lock)
        raise _unavailable("cannot open the audit log", directory, error) from error
    except AuditError:
        os.close(lock)
        raise
    return log


def read_head(directory: Path) -> Head:
    """The kept head. Raises AuditMissingError without one, AuditFormatError for a damaged one."""
    try:
        return parse_head((directory / HEAD_NAME).read_bytes().rstrip(b" \n"))
    except FileNotFoundError as error:
        raise AuditMissingError(
            "the audit log has no head", where=str(directory / HEAD_NAME)
        ) from error
    except OSError as error:
        raise _unavailable("cannot read the audit log", directory, error) from error


def read_lines(directory: Path) -> Iterator[LogLine]:
    """Every whole line in order of its segment's name; an unfinished last line is left out."""
    try:
        for path in log_segments(directory):
            yield from _segment_lines(path)
    except OSError as error:
        raise _unavailable("cannot read the audit log", directory, error) from error


def tail_lines(directory: Path, count: int) -> list[LogLine]:
    """The last `count` whole lines, oldest first, unverified."""
    lines: list[LogLine] = []
    for path in reversed(log_segments(directory)):
        lines = list(_segment_lines(path))[-(count - len(lines)) :] + lines
        if len(lines) >= count:
            break
    return lines


def log_segments(directory: Path) -> list[Path]:
    """The segment files, oldest first. Raises OSError."""
    return sorted(path for path in directory.iterdir() if _SEGMENT.fullmatch(path.name))


def _segment_lines(path: Path) -> Iterator[LogLine]:
    offset = 0
    with path.open("rb") as file:
        # a line is never longer than the limit: a longer one is yielded in part and refused
        while data := file.readline(MAX_LINE_BYTES + 2):
            if not data.endswith(b"\n") and not file.peek(1):
                return
            yield LogLine(path.name, offset, data.removesuffix(b"\n"))
            offset += len(data)


def _take_lock(directory: Path) -> int:
    lock = os.open(
        directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
    )
    _give_to_owner(lock, directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AuditUnavailableError(
            "another audit writer holds the log", where=str(directory)
        ) from error
    return lock


def _recover(directory: Path, sync: Sync) -> tuple[Head, tuple[str, bytes] | None]:
    """The state to continue from, and the torn bytes (file name, content) that were set aside."""
    segments = log_segments(directory)
    if not segments and not (directory / HEAD_NAME).exists():
        head = empty_head(secrets.token_hex(16))
        _replace_head(directory, head, sync)
        _sync_directory(directory)
        return head, None
    kept = read_head(directory)
    if not segments:
        if kept.seq:
            raise AuditTruncatedError(
                "the audit log was cut off at its end",
                where=str(directory),
                found="0 records",
                needed=f"{kept.seq} records",
            )
        return kept, None
    head, end = _verify_segment(segments[-1], kept)
    return head, _set_aside(segments[-1], end, sync)


def _verify_segment(path: Path, kept: Head) -> tuple[Head, int]:
    """The state after the segment's last good record and that record's end in bytes.

    Damage after the kept head is what a crash leaves of an unacknowledged batch (blocks may reach
    the disk in any order) and ends the good part; damage before it is raised.
    """
    lines = list(_segment_lines(path))
    first = int(path.name[6:22])
    base = _segment_base(lines[0], first, kept) if lines and first > 1 else None
    state, end = base or Head(kept.log_id, first - 1, empty_head(kept.log_id).chain), 0
    try:
        for verified in verify_lines(lines, kept, base):
            state = verified.head
            end = verified.line.offset + len(verified.line.data) + 1
    except AuditError:
        if state.seq < kept.seq:
            raise
    if state.seq < kept.seq:
        raise AuditTruncatedError(
            "the audit log was cut off at its end",
            where=f"{path.name}: byte {end}",
            found=f"{state.seq} records",
            needed=f"{kept.seq} records",
        )
    return state, end


def _segment_base(line: LogLine, first: int, kept: Head) -> Head:
    prev = parse_line(line, first)["prev"]
    try:
        return Head(kept.log_id, first - 1, bytes.fromhex(prev))
    except ValueError as error:
        raise AuditFormatError("not an audit record", where=line.place(first)) from error


def _set_aside(path: Path, end: int, sync: Sync) -> tuple[str, bytes] | None:
    """Move what lies after byte `end` to a `.torn` file, durable before the segment is cut."""
    with path.open("rb") as file:
        file.seek(end)
        torn = file.read()
    if not torn:
        return None
    aside = path.with_name(f"{path.name}.{end}.torn")
    _write_new(aside, torn, sync)
    _sync_directory(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return aside.name, torn


def _recovered_event(torn: tuple[str, bytes]) -> AuditEvent:
    name, data = torn
    return check_event(
        {
            "type": "recovered",
            "torn_file": name,
            "torn_bytes": len(data),
            "torn_sha384": hashlib.sha384(data).hexdigest(),
        }
    )


def _replace_head(directory: Path, head: Head, sync: Sync) -> None:
    temporary = directory / f"{HEAD_NAME}.tmp"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    _write_new(temporary, _head_sector(head), sync)
    temporary.replace(directory / HEAD_NAME)


def _head_sector(head: Head) -> bytes:
    return encode_head(head).rstrip(b"\n").ljust(HEAD_BYTES - 1) + b"\n"


def _write_new(path: Path, data: bytes, sync: Sync) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o640)
    try:
        _give_to_owner(descriptor, path.parent)
        if os.write(descriptor, data) != len(data):
            raise OSError(f"short write to {path.name}")
        sync(descriptor)
    finally:
        os.close(descriptor)


def _give_to_owner(descriptor: int, directory: Path) -> None:
    """What root writes between two runs of the writer must stay the writer's to append to."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(message: str, where: Path, error: OSError) -> AuditUnavailableError:
    return AuditUnavailableError(message, where=str(where), found=error.strerror or str(error))


def append_offline(directory: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Make records durable while no writer runs: what `install` does before the first start.

    Raises AuditUnavailableError when a writer holds the log, and as `open_audit_log`.
    """
    log = open_audit_log(directory)
    try:
        log.append_batch([check_event(dict(record)) for record in records])
    finally:
        log.close()
