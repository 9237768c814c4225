"""The chain's promises: every edit, removal, reordering and cut is found, and located."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.audit_chain import (
    MAX_LINE_BYTES,
    Head,
    LogLine,
    Stamp,
    check_event,
    empty_head,
    encode_head,
    encode_record,
    log_event,
    next_chain,
    parse_head,
    verify_lines,
)
from edgekit.errors import (
    AuditAlteredError,
    AuditError,
    AuditFormatError,
    AuditMissingError,
    AuditTruncatedError,
)

LOG_ID = "0123456789abcdef0123456789abcdef"
COUNT = 8


def build_log(count: int = COUNT) -> tuple[list[bytes], Head]:
    head, lines = empty_head(LOG_ID), []
    for number in range(count):
        event = log_event(LOG_ID) if number == 0 else check_event({"type": "request", "n": number})
        line, head = encode_record(event, head, Stamp(1_000 + number, number, "boot"))
        lines.append(line)
    return lines, head


def placed(lines: list[bytes]) -> list[LogLine]:
    result, offset = [], 0
    for line in lines:
        result.append(LogLine("audit-0000000000000001.jsonl", offset, line))
        offset += len(line) + 1
    return result


def verify(lines: list[bytes], head: Head) -> int:
    return sum(1 for _ in verify_lines(placed(lines), head))


def located(error: AuditError) -> tuple[int, int]:
    found = re.search(r"record (\d+) at byte (\d+)", error.where or "")
    assert found, error.where
    return int(found[1]), int(found[2])


def offset_of(lines: list[bytes], seq: int) -> int:
    return sum(len(line) + 1 for line in lines[: seq - 1])


def test_intact_log_verifies() -> None:
    lines, head = build_log()
    assert verify(lines, head) == COUNT


def test_chain_is_the_documented_formula() -> None:
    # computed once with sha384sum over the bytes the module's docstring names
    assert empty_head(LOG_ID).chain.hex().startswith("e106d1c96dfd927404d6482c")
    assert next_chain(bytes(48), b"{}").hex().startswith("308c487e5195ae70989a986d")


@pytest.mark.parametrize("seq", range(1, COUNT + 1))
def test_edited_record_is_located(seq: int) -> None:
    lines, head = build_log()
    lines[seq - 1] = lines[seq - 1].replace(b'"t_utc":1', b'"t_utc":2')
    with pytest.raises(AuditAlteredError) as caught:
        verify(lines, head)
    assert located(caught.value) == (seq, offset_of(lines, seq))


@pytest.mark.parametrize("seq", range(2, COUNT + 1))
def test_edited_chain_value_is_located(seq: int) -> None:
    lines, head = build_log()
    record = json.loads(lines[seq - 1])
    flipped = record["prev"].translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
    lines[seq - 1] = lines[seq - 1].replace(record["prev"].encode(), flipped.encode())
    with pytest.raises(AuditAlteredError) as caught:
        verify(lines, head)
    assert located(caught.value) == (seq, offset_of(lines, seq))


@pytest.mark.parametrize("seq", range(1, COUNT + 1))
def test_edited_number_is_located(seq: int) -> None:
    lines, head = build_log()
    lines[seq - 1] = lines[seq - 1].replace(b'"seq":%d' % seq, b'"seq":%d' % (seq + 50))
    with pytest.raises(AuditAlteredError) as caught:
        verify(lines, head)
    assert located(caught.value)[0] == seq


@pytest.mark.parametrize("seq", range(1, COUNT))
def test_removed_record_is_located(seq: int) -> None:
    lines, head = build_log()
    del lines[seq - 1]
    with pytest.raises(AuditMissingError, match="missing") as caught:
        verify(lines, head)
    assert located(caught.value) == (seq, offset_of(lines, seq))


@pytest.mark.parametrize("seq", range(2, COUNT))
def test_swapped_records_are_out_of_order(seq: int) -> None:
    lines, head = build_log()
    lines[seq - 1], lines[seq] = lines[seq], lines[seq - 1]
    with pytest.raises(AuditMissingError, match="out of order") as caught:
        verify(lines, head)
    assert located(caught.value)[0] == seq


def test_repeated_record_is_out_of_order() -> None:
    lines, head = build_log()
    with pytest.raises(AuditMissingError, match="out of order"):
        verify([*lines[:4], lines[2], *lines[4:]], head)


@pytest.mark.parametrize("kept", range(COUNT))
def test_cut_tail_is_located(kept: int) -> None:
    lines, head = build_log()
    with pytest.raises(AuditTruncatedError) as caught:
        verify(lines[:kept], head)
    assert located(caught.value) == (kept + 1, offset_of(lines, kept + 1))


def test_records_after_the_head_are_fine_and_still_chained() -> None:
    lines, _ = build_log()
    _, older = build_log(COUNT - 3)
    assert verify(lines, older) == COUNT
    lines[COUNT - 2] = lines[COUNT - 2].replace(b'"n":6', b'"n":9')
    with pytest.raises(AuditAlteredError) as caught:
        verify(lines, older)
    assert located(caught.value)[0] == COUNT - 1


def test_record_after_the_head_must_be_as_the_writer_writes() -> None:
    lines, _ = build_log()
    _, older = build_log(COUNT - 1)
    lines[-1] = lines[-1].replace(b'"n":7', b'"n": 7')
    with pytest.raises(AuditAlteredError) as caught:
        verify(lines, older)
    assert located(caught.value)[0] == COUNT


def test_log_swapped_for_another_whole_log_is_found() -> None:
    lines, _ = build_log()
    with pytest.raises(AuditAlteredError):
        verify(lines, Head("f" * 32, COUNT, bytes(48)))


@pytest.mark.parametrize("junk", [b"", b"null", b"[1]", b"{}", b"\x00\x00", b"{" * 9000, b"\xff"])
def test_line_that_is_no_record(junk: bytes) -> None:
    lines, head = build_log()
    lines[3] = junk
    with pytest.raises(AuditFormatError) as caught:
        verify(lines, head)
    assert located(caught.value) == (4, offset_of(lines, 4))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found(data: st.DataObject) -> None:
    lines, head = build_log()
    seq = data.draw(st.integers(0, COUNT - 1))
    place = data.draw(st.integers(0, len(lines[seq]) - 1))
    mask = data.draw(st.integers(1, 255))
    line = bytearray(lines[seq])
    line[place] ^= mask
    lines[seq] = bytes(line)
    with pytest.raises(AuditError) as caught:
        verify(lines, head)
    assert located(caught.value)[0] == seq + 1


@pytest.mark.parametrize(
    "text",
    [
        'x"}\n{"seq":99,"type":"forged"}',
        "\r\n",
        "\x00\x1b[2J",
        "\u202eevil",
        "\u2028",
        "\x7f",
        "\ud800",
    ],
)
def test_injected_text_stays_one_ascii_line(text: str) -> None:
    line, _ = encode_record(
        check_event({"type": "denied", "why": text}), empty_head(LOG_ID), Stamp(0, 0, "b")
    )
    assert re.fullmatch(rb"[\x20-\x7e]+", line)
    assert json.loads(line)["why"] == text


def test_long_text_is_capped_and_the_cap_recorded() -> None:
    event = check_event({"type": "x", "why": "a" * 5000, "more": {"deep": "b" * 2000}})
    assert len(event.fields["why"]) == 1024
    assert event.fields["capped"] == {"why": 5000, "more.deep": 2000}


def test_line_never_exceeds_its_limit() -> None:
    event = check_event({"type": "x", **{f"f{i}": "\U0001f600" * 4000 for i in range(60)}})
    line, _ = encode_record(event, empty_head(LOG_ID), Stamp(2**62, 2**62, "b" * 36))
    assert len(line) <= MAX_LINE_BYTES


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        {"type": 1},
        {"type": "Bad"},
        {"type": "x", "seq": 1},
        {"type": "x", "prev": ""},
        {"type": "x", "a": 1.5},
        {"type": "x", "a": [1]},
        {"type": "x", "a": {"b": {"c": 1}}},
        {"type": "x", "a": 2**63},
        {"type": "x", "A": 1},
        {"type": "x", "a\n": 1},
        {"type": "x", **{f"k{i}": 0 for i in range(64)}},
    ],
)
def test_illegal_events_are_refused(record: object) -> None:
    with pytest.raises(AuditFormatError):
        check_event(record)


def test_head_round_trip_and_refusals() -> None:
    _, head = build_log()
    assert parse_head(encode_head(head)) == head
    for bad in (b"", b"{}", encode_head(head)[:-9], encode_head(head).replace(b"seq", b"sex")):
        with pytest.raises(AuditFormatError):
            parse_head(bad)
