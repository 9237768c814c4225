"""Records: what may be in one, and that nothing in it can break out of its line."""

from __future__ import annotations

import json
import re

import pytest

from edgekit.core.audit_chain import seal_records
from edgekit.core.audit_keys import MacKey
from edgekit.core.audit_record import MAX_LINE_BYTES, AuditEvent, Times, check_event
from edgekit.errors import AuditFormatError

NEVER = Times(0, 0, "b")


def encode(event: AuditEvent, when: Times = NEVER) -> bytes:
    return seal_records((event,), 2**62 - 1, bytes(48), when, MacKey(bytes(48))).lines[0]


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
    line = encode(check_event({"type": "denied", "why": text}))
    assert re.fullmatch(rb"[\x20-\x7e]+", line)
    assert json.loads(line)["why"] == text


def test_long_text_is_capped_and_the_cap_recorded() -> None:
    event = check_event({"type": "x", "why": "a" * 5000, "more": {"deep": "b" * 2000}})
    assert len(event.fields["why"]) == 1024
    assert event.fields["capped"] == {"why": 5000, "more.deep": 2000}


def test_line_never_exceeds_its_limit() -> None:
    event = check_event({"type": "x", **{f"f{i}": "\U0001f600" * 4000 for i in range(60)}})
    line = encode(event, Times(2**62, 2**62, "b" * 36))
    assert len(line) <= MAX_LINE_BYTES


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        {"type": 1},
        {"type": "Bad"},
        {"type": "epoch"},
        {"type": "x", "~mac": "0"},
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
