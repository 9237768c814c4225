"""A log that is checked in parts, side by side, comes to what it comes to in one go."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.audit_chain import Pace
from edgekit.core.audit_record import check_event
from edgekit.core.audit_verify import Evidence, Verifier
from edgekit.errors import AuditError
from edgekit.operations.audit_parts import check_log
from edgekit.system.audit_files import log_segments, read_lines
from tests.support.audit_logs import Written, start_log

WORKERS = 3
Result = tuple[object, ...]


def write_log(folder: Path, seed: int = 1) -> Written:
    """Many segments; busy epochs and quiet ones, requests that are answered segments later."""
    dice = random.Random(seed)
    written = start_log(folder, segment_bytes=9000, pace=Pace(300, 12))
    log = written.open()
    for number in range(60):
        written.clock.tick(0.1)
        batch = [{"type": "request", "request_id": f"r{number}"}]
        if number > 7 and dice.random() < 0.8:
            batch.append({"type": "response", "request_id": f"r{number - 7}"})
        log.append_batch([check_event(record) for record in batch])
        if number % 20 == 7:
            for _ in range(dice.randrange(20, 30)):
                written.clock.tick(dice.choice((301, 301, 1000)))
                log.settle()
    log.close()
    return written


def found(folder: Path, evidence: Evidence, workers: int) -> Result:
    """What a check comes to: a verdict and counts, or an error with its place."""
    try:
        checked = check_log(folder, evidence, workers)
    except AuditError as error:
        return type(error), error.message, error.where, error.found, error.needed
    tally = checked.tally
    return checked.verdict, tally.kinds, tally.first, tally.last, list(tally.open_requests)


def evidences(written: Written) -> dict[str, Evidence]:
    full = written.evidence()
    assert full.signer is not None
    return {
        "everything": full,
        "no key": replace(full, keys=()),
        "a late key": replace(full, keys=(full.keys[0].at(9),)),
        "no signer": replace(full, signer=None, keys=()),
        "nothing": Evidence(),
    }


@pytest.mark.parametrize("seed", range(4))
def test_parts_come_to_the_same(tmp_path: Path, seed: int) -> None:
    written = write_log(tmp_path / "audit", seed)
    count = len(log_segments(written.directory))
    assert count > 2 * WORKERS
    for evidence in evidences(written).values():
        whole = found(written.directory, evidence, 1)
        for workers in (2, WORKERS, count):
            assert found(written.directory, evidence, workers) == whole
    for workers in (1, 2, WORKERS):
        assert check_log(written.directory, written.evidence(), workers).parts == workers


def test_a_log_that_begins_later_comes_to_the_same(tmp_path: Path) -> None:
    written = write_log(tmp_path / "audit")
    segments = log_segments(written.directory)
    for path in segments[:3]:
        path.unlink()
    first = int(segments[3].name[6:22])
    for evidence in evidences(written).values():
        later = replace(evidence, first=first)
        assert found(written.directory, later, WORKERS) == found(written.directory, later, 1)
    full = replace(written.evidence(), first=first)
    assert check_log(written.directory, full, WORKERS).parts == WORKERS


def flip(lines: list[bytes], dice: random.Random) -> None:
    index = dice.randrange(len(lines))
    line = bytearray(lines[index])
    line[dice.randrange(len(line))] ^= 1
    lines[index] = bytes(line)


def drop(lines: list[bytes], dice: random.Random) -> None:
    del lines[dice.randrange(len(lines))]


def drop_first(lines: list[bytes], _dice: random.Random) -> None:
    del lines[0]


def repeat(lines: list[bytes], dice: random.Random) -> None:
    lines.insert(dice.randrange(len(lines)), dice.choice(lines))


def swap(lines: list[bytes], dice: random.Random) -> None:
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines) - 1)
    lines[one], lines[other] = lines[other], lines[one]


def cut(lines: list[bytes], dice: random.Random) -> None:
    del lines[dice.randrange(len(lines)) :]


@pytest.mark.parametrize("damage", [flip, drop, drop_first, repeat, swap, cut])
def test_damage_is_found_in_the_same_place(
    tmp_path: Path, damage: Callable[[list[bytes], random.Random], None]
) -> None:
    written, dice = write_log(tmp_path / "audit"), random.Random(5)
    known = evidences(written)
    for path in log_segments(written.directory):
        data = path.read_bytes()
        lines = data.split(b"\n")[:-1]
        damage(lines, dice)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        for evidence in known.values():
            assert found(written.directory, evidence, WORKERS) == found(
                written.directory, evidence, 1
            )
        path.write_bytes(data)


def test_parts_that_are_right_on_their_own_must_fit_each_other(tmp_path: Path) -> None:
    """From some segment on it is another log, which its own keys vouch for."""
    written = write_log(tmp_path / "audit")
    other = Written(tmp_path / "other", written.first_key, written.clock, written.settings)
    shutil.copytree(written.directory, other.directory)
    for log, name in ((written, "mine"), (other, "its")):
        writer = log.open()
        for number in range(120):
            log.clock.tick(0.1)
            writer.append_batch([check_event({"type": "x", "who": name, "n": number})])
        writer.close()
    mine, its = (log_segments(log.directory) for log in (written, other))
    names = [path.name for path in mine]
    assert names == [path.name for path in its]
    differ = [a.read_bytes() != b.read_bytes() for a, b in zip(mine, its, strict=True)]
    place = differ.index(True) + 2
    for ours, theirs in zip(mine[place:], its[place:], strict=True):
        shutil.copy(theirs, ours)
    evidence = replace(other.evidence(), head=None, anchors=())
    part = Verifier(replace(evidence, first=int(names[place][6:22])))
    list(part.check(read_lines(written.directory, int(names[place][6:22]))))  # right on its own
    for workers in (1, 2, WORKERS, len(mine)):
        result = found(written.directory, evidence, workers)
        assert result == found(written.directory, evidence, 1)
        assert isinstance(result[0], type)
        assert str(result[2]).startswith(names[place])
