"""The chain's promises: every edit, removal, reordering and cut is found, and located."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.audit_chain import Head, empty_head, encode_head, next_chain, parse_head
from edgekit.errors import (
    AuditAlteredError,
    AuditError,
    AuditFormatError,
    AuditMissingError,
    AuditTruncatedError,
)
from tests.support.audit_logs import Written, located, placed, start_log, write_requests

LOG_ID = "0123456789abcdef0123456789abcdef"
REQUESTS = 9
COUNT = REQUESTS + 3
WITHOUT = [{}, {"keys": ()}, {"keys": (), "signer": None}]
"""What the auditor lacks: nothing, the MAC key, that and the audit key."""

lacking = pytest.mark.parametrize("lack", WITHOUT, ids=["all", "no-mac-key", "no-keys"])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A segment's record, requests, the epoch's end and its checkpoint."""
    written = start_log(tmp_path_factory.mktemp("log") / "audit")
    write_requests(written, REQUESTS)
    return written


def texts(log: Written) -> list[bytes]:
    return [line.data for line in log.lines()]


def offset_of(lines: list[bytes], seq: int) -> int:
    return sum(len(line) + 1 for line in lines[: seq - 1])


def test_intact_log_verifies(log: Written) -> None:
    verdict = log.verify()
    assert (verdict.last, verdict.epoch, verdict.checkpoints) == (COUNT, 1, 1)
    assert (verdict.signed_to, verdict.sealed_from, verdict.unvouched) == (COUNT - 1, 1, 0)
    assert log.verify(keys=()).unvouched == 1
    assert log.verify(keys=(), signer=None).unvouched == COUNT


def test_chain_is_the_documented_formula() -> None:
    # computed once with sha384sum over the bytes the module's docstring names
    assert empty_head(LOG_ID).chain.hex().startswith("e106d1c96dfd927404d6482c")
    assert next_chain(bytes(48), b"{}").hex().startswith("308c487e5195ae70989a986d")


@lacking
@pytest.mark.parametrize("seq", range(1, COUNT + 1))
def test_edited_record_is_located(log: Written, seq: int, lack: dict[str, object]) -> None:
    lines = texts(log)
    lines[seq - 1] = lines[seq - 1].replace(b'"t_utc":17', b'"t_utc":27')
    with pytest.raises(AuditError) as caught:
        log.verify(placed(lines), **lack)
    assert located(caught.value) == (seq, offset_of(lines, seq))


@lacking
@pytest.mark.parametrize("field", [b'"prev":"', b'"~mac":"'])
@pytest.mark.parametrize("seq", range(1, COUNT + 1))
def test_edited_link_is_located(
    log: Written, seq: int, field: bytes, lack: dict[str, object]
) -> None:
    lines = texts(log)
    start = lines[seq - 1].index(field) + len(field)
    flipped = bytes([lines[seq - 1][start] ^ 1])
    lines[seq - 1] = lines[seq - 1][:start] + flipped + lines[seq - 1][start + 1 :]
    with pytest.raises(AuditError) as caught:
        log.verify(placed(lines), **lack)
    assert located(caught.value) == (seq, offset_of(lines, seq))


@lacking
@pytest.mark.parametrize("seq", range(1, COUNT + 1))
def test_edited_number_is_located(log: Written, seq: int, lack: dict[str, object]) -> None:
    lines = texts(log)
    lines[seq - 1] = lines[seq - 1].replace(b'"seq":%d,' % seq, b'"seq":%d,' % (seq + 50))
    with pytest.raises(AuditError) as caught:
        log.verify(placed(lines), **lack)
    assert located(caught.value)[0] == seq


@lacking
@pytest.mark.parametrize("seq", range(1, COUNT))
def test_removed_record_is_located(log: Written, seq: int, lack: dict[str, object]) -> None:
    lines = texts(log)
    del lines[seq - 1]
    with pytest.raises(AuditMissingError, match="missing") as caught:
        log.verify(placed(lines), **lack)
    assert located(caught.value) == (seq, offset_of(lines, seq))


@lacking
@pytest.mark.parametrize("seq", range(2, COUNT))
def test_swapped_records_are_out_of_order(
    log: Written, seq: int, lack: dict[str, object]
) -> None:
    lines = texts(log)
    lines[seq - 1], lines[seq] = lines[seq], lines[seq - 1]
    with pytest.raises(AuditMissingError, match="out of order") as caught:
        log.verify(placed(lines), **lack)
    assert located(caught.value)[0] == seq


@lacking
def test_repeated_record_is_out_of_order(log: Written, lack: dict[str, object]) -> None:
    lines = texts(log)
    with pytest.raises(AuditMissingError, match="out of order") as caught:
        log.verify(placed([*lines[:4], lines[2], *lines[4:]]), **lack)
    assert located(caught.value)[0] == 5


@lacking
@pytest.mark.parametrize("kept", range(COUNT))
def test_cut_tail_is_located(log: Written, kept: int, lack: dict[str, object]) -> None:
    lines = texts(log)
    with pytest.raises(AuditTruncatedError) as caught:
        log.verify(placed(lines[:kept]), **lack)
    assert located(caught.value) == (kept + 1, offset_of(lines, kept + 1))


def test_records_after_the_head_are_fine_and_still_chained(log: Written) -> None:
    lines = texts(log)
    older = Head(log.first_key.log_id, 2, next_chain(next_chain(start(log), lines[0]), lines[1]))
    assert log.verify(head=older).last == COUNT
    lines[COUNT - 3] = lines[COUNT - 3].replace(b'"n":8', b'"n":9')
    with pytest.raises(AuditAlteredError) as caught:
        log.verify(placed(lines), head=older)
    assert located(caught.value)[0] == COUNT - 2


def start(log: Written) -> bytes:
    return empty_head(log.first_key.log_id).chain


def test_last_record_must_be_as_the_writer_writes_even_without_keys(log: Written) -> None:
    lines = texts(log)
    lines[-1] = lines[-1].replace(b'"epoch":0', b'"epoch": 0')
    with pytest.raises(AuditAlteredError) as caught:
        log.verify(placed(lines), head=None, keys=(), signer=None)
    assert located(caught.value)[0] == COUNT


def test_log_swapped_for_another_whole_log_is_found(log: Written, tmp_path: Path) -> None:
    other = start_log(tmp_path / "audit")
    write_requests(other, REQUESTS)
    for changes in ({}, {"keys": ()}):
        with pytest.raises(AuditAlteredError, match="another log"):
            log.verify(other.lines(), **changes)


@lacking
@pytest.mark.parametrize("junk", [b"", b"null", b"[1]", b"{}", b"\x00\x00", b"{" * 9000, b"\xff"])
def test_line_that_is_no_record(log: Written, junk: bytes, lack: dict[str, object]) -> None:
    lines = texts(log)
    lines[3] = junk
    with pytest.raises(AuditFormatError) as caught:
        log.verify(placed(lines), **lack)
    assert located(caught.value) == (4, offset_of(lines, 4))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found(log: Written, data: st.DataObject) -> None:
    lines, lack = texts(log), data.draw(st.sampled_from(WITHOUT))
    seq = data.draw(st.integers(0, COUNT - 1))
    place = data.draw(st.integers(0, len(lines[seq]) - 1))
    mask = data.draw(st.integers(1, 255))
    line = bytearray(lines[seq])
    line[place] ^= mask
    lines[seq] = bytes(line)
    with pytest.raises(AuditError) as caught:
        log.verify(placed(lines), **lack)
    assert located(caught.value)[0] == seq + 1


def test_head_round_trip_and_refusals(log: Written) -> None:
    head = log.evidence().head
    assert head is not None
    assert parse_head(encode_head(head)) == head
    for bad in (b"", b"{}", encode_head(head)[:-9], encode_head(head).replace(b"seq", b"sex")):
        with pytest.raises(AuditFormatError):
            parse_head(bad)
