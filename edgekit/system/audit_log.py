"""The audit log's one writer. What the files are: `system.audit_files`.

A batch is durable (one write, one fdatasync) before the head moves, so the head never leads the
records. It may lag: after a crash by the batch nobody was told about and by those of the last 10 ms
(until `settle`), after a power cut by what was written since `settle`. Records after the head are
therefore fine; records missing before it mean the log was cut. The head is one sector, overwritten
in place: a new file and a rename for every batch made an append three times slower, and moving it
with every single one a tenth (measured, ext4). A failed write or sync is final:
the kernel may have dropped the pages, so the log refuses all further work and nothing is retried.

What needs no hurry is left to `settle`, between batches: signing an ended epoch, wiping its MAC
key, making the head durable, the heartbeat.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.core.audit_chain import Head, Pace, empty_head, encode_head
from edgekit.core.audit_checkpoint import Checkpoint, checkpoint_fields
from edgekit.core.audit_keys import KEY_BYTES, AuditKey, MacKey
from edgekit.core.audit_record import REKEY, AuditEvent, Times, check_event, own_event
from edgekit.core.audit_state import LogState
from edgekit.errors import AuditUnavailableError, EdgekitError
from edgekit.system.audit_files import (
    HEAD_NAME,
    LOCK_NAME,
    load_audit_signer,
    log_segments,
    public_half_path,
    read_head,
    segment_name,
    unavailable,
)
from edgekit.system.audit_keyring import Keyring, create_keyring, give_to_owner, load_keyring
from edgekit.system.audit_recovery import Trusted, recover, write_new
from edgekit.system.background_sync import BackgroundSync
from edgekit.system.files import ensure_directory, fsync_directory, remove_tree, write_all

SEGMENT_BYTES = 64 << 20
HEAD_BYTES = 512
HEAD_EVERY_NS = 10_000_000
JUMP_US = 2_000_000

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

Sync = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How a log is written: bytes after which a segment ends, and the pace of its epochs."""

    segment_bytes: int = SEGMENT_BYTES
    pace: Pace = field(default_factory=Pace)


DEFAULTS = LogSettings()


def system_times() -> Times:
    """The host's clocks and boot id, now."""
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Times(time.time_ns() // 1000, boot_ns, _boot_id())


@functools.cache
def _boot_id() -> str:
    """This boot's id: from the unit (its sandbox hides /proc/sys), else from the kernel."""
    given = os.environ.get("EDGEKIT_BOOT_ID", "")
    if re.fullmatch(r"[0-9a-f]{32}", given):
        return given
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return text.strip().replace("-", "")


class _Final:
    """Whatever the disk refuses within it closes the log for good."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.broken = False

    def __enter__(self) -> None:
        if self.broken:
            raise AuditUnavailableError("the audit log failed earlier and is closed")
        self.broken = True

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise unavailable("cannot write the audit log", self._directory, error) from error
        self.broken = error is not None


class AuditLog:
    """The one writer of an audit log. Use `open_audit_log`; close with `close`."""

    def __init__(
        self,
        directory: Path,
        lock: int,
        state: LogState,
        keyring: Keyring,
        key: AuditKey,
        *,
        settings: LogSettings,
        now: Callable[[], Times],
        sync: Sync,
        last: Times | None,
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._state = state
        self._keyring = keyring
        self._settings = settings
        self._now = now
        self._sync = sync
        self._background = BackgroundSync(sync)
        self._under_way: tuple[int, bytes] | None = None
        self._last = last
        self._acknowledged = state.seq, state.chain
        self._key = key
        self._mac = MacKey(self._key.key)
        self._final = _Final(directory)
        self._file: int | None = None
        self._head_file: int | None = None
        self._head_seq: int | None = None
        self._head_ns = 0
        self._head_unsynced = False
        self._size = 0
        self.signed: Checkpoint | None = None
        """What this writer signed last; None until it has signed something."""

    @property
    def head(self) -> Head:
        """The state after the last acknowledged record."""
        return Head(self._state.log_id, *self._acknowledged)

    def append_batch(self, events: Sequence[AuditEvent]) -> list[int]:
        """Make the events durable as the next records; returns their numbers, in order.

        One write and one fdatasync. Raises AuditUnavailableError when the disk refuses any of it;
        the log is then closed for good and part of the batch may lie in it, unacknowledged.
        """
        if not events:
            return []
        with self._final:
            lines, numbers = self._seal(events)
            self._commit(lines)
        return numbers

    def begin_batch(self, events: Sequence[AuditEvent]) -> list[int]:
        """As `append_batch`, but the events are durable only after the next call that succeeds.

        Sealing them overlaps with the fdatasync of the batch that was begun before, which is
        durable when this returns.
        """
        if not events:
            self.finish()
            return []
        with self._final:
            lines, numbers = self._seal(events)
            self._wait()
            self._write(lines)
            self._background.start(self._last_file())
            self._under_way = self._state.seq, self._state.chain
        return numbers

    def rekey(self, event: AuditEvent) -> int:
        """Make the event durable as the last of its epoch but one, and a new random MAC key the
        next epoch's; returns the event's number.

        The key is durable before the record that says so, and is the writer's once that is: a crash
        leaves the old key or the new one. Raises as `append_batch`.
        """
        with self._final:
            lines, (number,) = self._seal([event])
            epoch = self._state.epoch.number + 1
            key = AuditKey(self._state.log_id, epoch, secrets.token_bytes(KEY_BYTES))
            self._keyring.prepare(key)
            self._end_epoch(lines, self._now(), signs=True, rekey=key)
            self._commit(lines)
            self._keyring.keep(key)
            self._keyring.forget_prepared()
        return number

    def finish(self) -> None:
        """Wait until what was begun is durable. Raises as `append_batch`."""
        with self._final:
            self._wait()

    def _seal(self, events: Sequence[AuditEvent]) -> tuple[list[bytes], list[int]]:
        now = self._now()
        lines = self._begin_batch(now)
        self._notice_jump(lines, now)
        first = self._state.seq + 1
        lines += self._state.write(events, now, self._mac)
        if self._state.epoch.records >= self._state.epoch.pace.records:
            self._end_epoch(lines, now)
        return lines, list(range(first, first + len(events)))

    def settle(self) -> None:
        """Do what can wait: heartbeat, signature, key, head. Raises as `append_batch`."""
        with self._final:
            lines = self._begin_batch(self._now())
            self._sign(lines)
            self._commit(lines)
            if self._keyring.key.epoch != self._key.epoch:
                self._keyring.keep(self._key)
            if self._head_seq != self._acknowledged[0]:
                self._move_head()
            if self._head_file is not None and self._head_unsynced:
                self._sync(self._head_file)
                self._head_unsynced = False

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has something to do other than the heartbeat."""
        behind = self._keyring.key.epoch != self._key.epoch
        behind |= self._head_seq != self._acknowledged[0]
        return self._head_unsynced or behind or self._state.owed is not None

    def heartbeat_in_s(self) -> float:
        """Seconds until the epoch ends, if nothing else ends it."""
        age = self._state.epoch.age_s(self._now())
        return 0 if age is None else max(0, self._state.epoch.pace.seconds - age)

    def close(self) -> None:
        """End and sign the epoch, release files and lock. Raises as `settle`, files released."""
        try:
            if not self._final.broken:
                with self._final:
                    now = self._now()
                    lines = self._begin_batch(now)
                    if self._state.epoch.records > 1:
                        self._end_epoch(lines, now, signs=True)
                    self._commit(lines)
                self.settle()
        finally:
            self._background.close()
            for descriptor in (self._file, self._head_file, self._lock):
                if descriptor is not None:
                    os.close(descriptor)
            self._file, self._head_file, self._final.broken = None, None, True

    def _begin_batch(self, now: Times) -> list[bytes]:
        """The lines that come before all others: a new segment's first, an epoch's last."""
        lines: list[bytes] = []
        if self._file is None:
            self._open_last_segment()
        if self._file is None or self._size >= self._settings.segment_bytes:
            self._sign(lines)  # no segment begins between the end of an epoch and its checkpoint
            self._commit(lines)
            self._new_segment()
            lines = [self._encode(self._state.segment_event(), now)]
        if self._is_due(now):
            self._end_epoch(lines, now)
        return lines

    def _open_last_segment(self) -> None:
        segments = log_segments(self._directory)
        if segments:
            self._file = os.open(segments[-1], _FLAGS)
            self._size = os.fstat(self._file).st_size

    def _new_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
        path = self._directory / segment_name(self._state.seq + 1)
        self._file = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o640)
        self._size = 0
        give_to_owner(self._directory, path)
        fsync_directory(self._directory)

    def _is_due(self, now: Times) -> bool:
        age = self._state.epoch.age_s(now)
        return self._state.seq > 0 and (age is None or age >= self._state.epoch.pace.seconds)

    def _encode(self, event: AuditEvent, now: Times) -> bytes:
        return self._state.write((event,), now, self._mac)[0]

    def _end_epoch(
        self,
        lines: list[bytes],
        now: Times,
        *,
        signs: bool = False,
        rekey: AuditKey | None = None,
    ) -> None:
        self._sign(lines)
        end = self._state.next_end(self._settings.pace, signs=signs, rekeyed=rekey is not None)
        lines.append(self._encode(end.event(), now))
        self._state.end_epoch(end, now)
        self._key = rekey or self._key.next()
        self._mac = MacKey(self._key.key)

    def _sign(self, lines: list[bytes]) -> None:
        """Add the checkpoint that an ended epoch asked for."""
        owed = self._state.owed
        if owed is None:
            return
        envelope = self._keyring.sign(owed)
        when = Times(owed.t_utc, owed.t_boot_ns, owed.boot_id)
        event = AuditEvent(checkpoint_fields(envelope, owed.epoch))
        lines.append(self._encode(event, when))
        self._state.owed = None
        self.signed = owed

    def _notice_jump(self, lines: list[bytes], now: Times) -> None:
        """Record that the wall clock was set. Nothing is ever ordered by it."""
        last, self._last = self._last, now
        if last is None:
            return
        if last.boot_id == now.boot_id:
            expected = last.t_utc + (now.t_boot_ns - last.t_boot_ns) // 1000
            jumped = abs(now.t_utc - expected) > JUMP_US
        else:
            expected, jumped = last.t_utc, now.t_utc < last.t_utc
        if jumped:
            event = own_event("clock_jump", expected_t_utc=expected, jump_us=now.t_utc - expected)
            lines.append(self._encode(event, now))

    def _commit(self, lines: list[bytes]) -> None:
        self._wait()
        if not lines or self._file is None:
            return
        self._write(lines)
        self._sync(self._file)
        self._acknowledge(self._state.seq, self._state.chain)

    def _write(self, lines: list[bytes]) -> None:
        data = b"\n".join(lines) + b"\n"
        write_all(self._last_file(), data)  # after a short write the next one says why
        self._size += len(data)

    def _wait(self) -> None:
        if self._under_way is not None:
            self._background.wait()
            self._acknowledge(*self._under_way)
            self._under_way = None

    def _last_file(self) -> int:
        assert self._file is not None
        return self._file

    def _acknowledge(self, seq: int, chain: bytes) -> None:
        """The records up to this one are durable; the head follows, if not at once."""
        self._acknowledged = seq, chain
        now_ns = self._last.t_boot_ns if self._last is not None else 0
        if abs(now_ns - self._head_ns) >= HEAD_EVERY_NS:
            self._head_ns = now_ns
            self._move_head()

    def _move_head(self) -> None:
        if self._head_file is None:
            path = self._directory / HEAD_NAME
            self._head_file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        data = head_sector(self.head)
        if os.pwrite(self._head_file, data, 0) != len(data):
            raise OSError(f"short write to {HEAD_NAME}")
        self._head_seq, self._head_unsynced = self._acknowledged[0], True


def open_audit_log(
    directory: Path,
    *,
    settings: LogSettings = DEFAULTS,
    now: Callable[[], Times] = system_times,
    sync: Sync = os.fdatasync,
) -> AuditLog:
    """Open the log for writing, creating it and its keys on first use; takes the writer's lock.

    The newest segment is verified first (`system.audit_recovery`). Raises AuditUnavailableError
    when another writer holds the log or the disk refuses, TrustError when the keys cannot be read,
    and the verifier's errors when the log is not intact.
    """
    make_log_folder(directory)
    try:
        lock = _take_lock(directory)
    except OSError as error:
        raise unavailable("cannot open the audit log", directory, error) from error
    try:
        return _open(directory, lock, settings, now, sync)
    except OSError as error:
        os.close(lock)
        raise unavailable("cannot open the audit log", directory, error) from error
    except EdgekitError:
        os.close(lock)
        raise


def make_log_folder(directory: Path) -> None:
    """The folder of a log, if it is not there yet. Raises AuditUnavailableError."""
    try:
        ensure_directory(directory, mode=0o750)
    except OSError as error:
        raise unavailable("cannot open the audit log", directory, error) from error


def _open(
    directory: Path, lock: int, settings: LogSettings, now: Callable[[], Times], sync: Sync
) -> AuditLog:
    if not log_segments(directory) and not (directory / HEAD_NAME).exists():
        keyring = _create(directory, sync)
    else:
        keyring = load_keyring(directory, read_head(directory).log_id)
    kept = read_head(directory)
    signer = load_audit_signer(public_half_path(directory, kept.log_id))
    trusted = Trusted(kept, keyring.key, keyring.prepared(), signer)
    found = recover(directory, trusted, settings.pace, now(), sync)
    log = AuditLog(
        directory,
        lock,
        found.state,
        keyring,
        found.key,
        settings=settings,
        now=now,
        sync=sync,
        last=found.last,
    )
    log.settle()  # also keeps a new key that the log says counts
    keyring.forget_prepared()
    log.append_batch([torn.event() for torn in found.torn])
    return log


def _create(directory: Path, sync: Sync) -> Keyring:
    """The keys of a new log, and its head: with that the log exists."""
    for left in directory.glob("audit-*/"):
        remove_tree(left)  # keys of a creation that a crash ended before there was a log
    log_id = secrets.token_hex(16)
    keyring = create_keyring(directory, log_id)
    temporary = directory / f"{HEAD_NAME}.tmp"
    write_new(temporary, head_sector(empty_head(log_id)), sync)
    temporary.replace(directory / HEAD_NAME)
    fsync_directory(directory)
    return keyring


def head_sector(head: Head) -> bytes:
    """The bytes of head.json."""
    return encode_head(head).rstrip(b"\n").ljust(HEAD_BYTES - 1) + b"\n"


def _take_lock(directory: Path) -> int:
    path = directory / LOCK_NAME
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    give_to_owner(directory, path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AuditUnavailableError(
            "another audit writer holds the log", where=str(directory)
        ) from error
    return lock


def append_offline(directory: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Make records durable while no writer runs: what `install` does before the first start.

    Raises AuditUnavailableError when a writer holds the log, and as `open_audit_log`.
    """
    log = open_audit_log(directory)
    try:
        events = [check_event(dict(record)) for record in records]
        if [event.fields["type"] for event in events] == [REKEY]:
            log.rekey(events[0])
        else:
            log.append_batch(events)
    finally:
        log.close()
