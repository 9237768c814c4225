"""Large batches: sealed while the one before is written, and answered when they are durable."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgekit.auditd.writer import FULL, LARGE_BATCH, Result, Writer
from edgekit.core.audit_capacity import plan_capacity
from edgekit.core.audit_record import AuditEvent, check_event
from edgekit.core.site_config import AuditConfig
from edgekit.errors import AuditUnavailableError
from edgekit.operations.audit import verify_audit
from edgekit.system.audit_log import AuditLog, open_audit_log
from edgekit.system.audit_space import Space
from edgekit.system.background_sync import BackgroundSync

Answers = list[Sequence[Result]]


def events(count: int, kind: str = "request") -> list[AuditEvent]:
    return [check_event({"type": kind, "n": number}) for number in range(count)]


class Disk:
    """A sync that fails from a moment on."""

    def __init__(self) -> None:
        self.number = 0

    def sync(self, descriptor: int) -> None:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        os.fdatasync(descriptor)


def make_writer(folder: Path, disk: Disk | None = None) -> Writer:
    folder.mkdir()

    def reopen() -> AuditLog:
        if disk is None:
            return open_audit_log(folder)
        disk.number = 0
        return open_audit_log(folder, sync=disk.sync)

    return Writer(reopen, Space(folder, plan_capacity(AuditConfig(max_mib=64), 0)))


@pytest.mark.parametrize("kind", ["kernel", "sync"])
def test_a_batch_is_answered_with_the_next_one_and_everything_is_in_the_log(
    tmp_path: Path, kind: str
) -> None:
    writer = make_writer(tmp_path / "audit", Disk() if kind == "sync" else None)
    answers: Answers = []
    for number in range(20):
        writer.commit(events(LARGE_BATCH + number), answers.append)
        assert len(answers) == number
        assert writer.is_busy
    writer.finish()
    assert not writer.is_busy
    writer.commit(events(1), answers.append)
    assert len(answers) == 21
    numbers = [number for answer in answers for number in answer]
    assert numbers == list(range(2, 2 + len(numbers)))
    writer.close()
    assert verify_audit(tmp_path / "audit").requests == len(numbers)


def test_a_small_batch_answers_the_large_one_before_it_first(tmp_path: Path) -> None:
    writer = make_writer(tmp_path / "audit")
    answers: Answers = []
    writer.commit(events(LARGE_BATCH), answers.append)
    writer.commit(events(1), answers.append)
    assert [len(answer) for answer in answers] == [LARGE_BATCH, 1]
    writer.commit(events(LARGE_BATCH), answers.append)
    writer.note(events(1, "stop"))
    assert len(answers) == 3
    writer.close()


def test_a_sync_that_fails_refuses_both_batches_and_the_log_for_good(tmp_path: Path) -> None:
    disk, answers = Disk(), Answers()
    writer = make_writer(tmp_path / "audit", disk)
    writer.commit(events(LARGE_BATCH), answers.append)
    disk.number = errno.EIO
    with pytest.raises(AuditUnavailableError):
        writer.commit(events(LARGE_BATCH + 1), answers.append)
    assert [len(answer) for answer in answers] == [LARGE_BATCH, LARGE_BATCH + 1]
    assert all(isinstance(result, str) for answer in answers for result in answer)
    disk.number = 0
    with pytest.raises(AuditUnavailableError, match="closed"):
        writer.commit(events(1), answers.append)
    writer.close()


def test_a_full_disk_refuses_what_waits_and_goes_on_from_the_reserve(tmp_path: Path) -> None:
    disk, answers = Disk(), Answers()
    writer = make_writer(tmp_path / "audit", disk)
    writer.commit(events(LARGE_BATCH), answers.append)
    disk.number = errno.ENOSPC
    writer.commit(events(LARGE_BATCH), answers.append)
    assert [set(answer) for answer in answers] == [{FULL}, {FULL}]
    writer.commit([*events(LARGE_BATCH), *events(2, "export")], answers.append)
    writer.finish()
    assert set(answers[2][:LARGE_BATCH]) == {FULL}
    assert all(isinstance(result, int) for result in answers[2][LARGE_BATCH:])
    writer.commit(events(LARGE_BATCH), answers.append)  # nothing of it is recorded
    writer.finish()
    assert set(answers[3]) == {FULL}
    writer.close()
    verify_audit(tmp_path / "audit")


def test_what_the_kernel_says_about_a_sync_is_raised(tmp_path: Path) -> None:
    sync = BackgroundSync()
    reader, writer = os.pipe()  # cannot be synced

    def sync_pipe() -> None:
        sync.start(writer)
        sync.wait()

    with pytest.raises(OSError, match="Invalid argument"):
        sync_pipe()
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(file, b"x")
    for _ in range(3):
        sync.start(file)
        sync.wait()
        sync.wait()
    sync.start(file)
    sync.close()
    for descriptor in (file, reader, writer):
        os.close(descriptor)
