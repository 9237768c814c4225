"""A follower sees every line once, in order, whatever the writer is in the middle of."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgekit.core.audit_record import MAX_LINE_BYTES
from edgekit.errors import AuditFormatError, AuditUnavailableError
from edgekit.system.audit_files import tail_lines
from edgekit.system.audit_follow import Follower, Place


def segment(folder: Path, first: int) -> Path:
    return folder / f"audit-{first:016d}.jsonl"


def test_every_line_once_while_it_is_written(tmp_path: Path) -> None:
    follower, seen, rng = Follower(tmp_path), [], random.Random(7)
    assert follower.read() == []
    for number in range(1, 200):
        path = segment(tmp_path, number - number % 20 or 1)
        data = b'{"n":%d}\n' % number
        cut = rng.randrange(len(data))
        for part in (data[:cut], data[cut:]):
            with path.open("ab") as file:
                file.write(part)
            if rng.random() < 0.7:
                seen += [line.data for line in follower.read(rng.randrange(1, 5))]
    while lines := follower.read(3):
        seen += [line.data for line in lines]
    follower.close()
    assert seen == [b'{"n":%d}' % number for number in range(1, 200)]


def test_goes_on_behind_a_line(tmp_path: Path) -> None:
    segment(tmp_path, 1).write_bytes(b"1\n2\n")
    segment(tmp_path, 3).write_bytes(b"3\n")
    follower = Follower(tmp_path, Place.after(tail_lines(tmp_path, 2)[0]))
    assert [line.data for line in follower.read()] == [b"3"]
    assert follower.read() == []
    with segment(tmp_path, 3).open("ab") as file:
        file.write(b"4\n")
    assert [(line.data, line.offset) for line in follower.read()] == [(b"4", 2)]


def test_line_without_end_is_an_error_not_a_wait(tmp_path: Path) -> None:
    segment(tmp_path, 1).write_bytes(b"x" * (MAX_LINE_BYTES + 10))
    with pytest.raises(AuditFormatError):
        Follower(tmp_path).read()


def test_log_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(AuditUnavailableError):
        Follower(tmp_path / "nothing").read()
