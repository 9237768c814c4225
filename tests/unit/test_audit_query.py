"""Questions about records: pairs, filters, moments, sums and bars."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.cli.audit_view import printable, render_entry, render_stats
from edgekit.core.audit_query import (
    Entry,
    Query,
    pair_records,
    parse_moment,
    parse_status,
    render_moment,
)
from edgekit.core.audit_stats import MAX_BARS, collect_stats, percentiles, render_bar, time_bars
from edgekit.errors import FormatError

HOUR_US = 3_600_000_000
NOW = 1_790_000_000_000_000


def request(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "request", "seq": number, "t_utc": NOW + number, "request_id": f"req-{number}",
        "actor": "k1", "model": "demo", "prompt_hmac": f"p{number}", **fields,
    }


def response(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "response", "seq": number + 100, "t_utc": NOW + number + 100, "status": 200,
        "request_id": f"req-{number}", "actor": "k1", "tokens_in": 3, "tokens_out": 4,
        "latency_ms": number, "output_hmac": f"o{number}", "finish_reason": "stop", **fields,
    }


def denied(**fields: Any) -> dict[str, Any]:
    return {"type": "denied", "seq": 900, "t_utc": NOW, "actor": "k2", "status": 403,
            "reason": "missing_scope", "suppressed_before": 5, **fields}


def test_pairs_come_back_together_and_open_requests_last() -> None:
    orphaned = {"type": "orphaned", "seq": 300, "t_utc": NOW, "request_id": "req-3"}
    records = [request(1), request(2), denied(), response(2), request(3), orphaned]
    entries = list(pair_records(records))
    assert [(e.type, e.status) for e in entries] == [
        ("denied", "403"), ("request", "200"), ("request", "open"), ("request", "open"),
    ]
    assert [len(e.records) for e in entries] == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), ["req-1", "req-2", None]),
        (Query(since=NOW + 2), ["req-2"]),
        (Query(until=NOW + 2), ["req-1", None]),
        (Query(keys=frozenset({"k2"})), [None]),
        (Query(models=frozenset({"other"})), ["req-2"]),
        (Query(statuses=frozenset({"5xx"})), ["req-2"]),
        (Query(statuses=frozenset({"503", "403"})), ["req-2", None]),
        (Query(statuses=frozenset({"4xx"}), keys=frozenset({"k1"})), []),
        (Query(types=frozenset({"response"})), ["req-1", "req-2"]),
        (Query(requests=frozenset({"req-1"})), ["req-1"]),
        (Query(digests=frozenset({"p2"})), ["req-2"]),
        (Query(digests=frozenset({"o1", "p1"})), ["req-1"]),
        (Query(digests=frozenset()), []),
    ],
)
def test_query_selects(query: Query, found: list[str | None]) -> None:
    records = [request(1), response(1), request(2, model="other"), response(2, status=503),
               denied()]
    entries = [entry for entry in pair_records(records) if query.matches(entry)]
    assert [entry.first.get("request_id") for entry in entries] == found


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-02", 24 * HOUR_US),
        ("1970-01-01T01:30", HOUR_US * 3 // 2),
        ("1970-01-01T01:00:01Z", HOUR_US + 1_000_000),
        ("1970-01-01T02:00+01:00", HOUR_US),
        ("90s", NOW - 90_000_000),
        ("2h", NOW - 2 * HOUR_US),
        ("1w", NOW - 168 * HOUR_US),
    ],
)
def test_moments(text: str, us: int) -> None:
    assert parse_moment(text, NOW) == us


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0h", "5y", "-3h"])
def test_no_moments(text: str) -> None:
    with pytest.raises(FormatError):
        parse_moment(text, NOW)


def test_moment_of_microseconds() -> None:
    assert render_moment(1_764_064_215_999_999) == "2025-11-25 09:50:15Z"


@pytest.mark.parametrize("text", ["20", "600", "5XX", "200 ", "closed"])
def test_no_statuses(text: str) -> None:
    with pytest.raises(FormatError):
        parse_status(text)


def test_stats_add_up() -> None:
    records = [request(1), response(1), request(2, model="other", actor="k9"),
               response(2, actor="k9", status=503, error="engine_failed", tokens_out=0),
               request(3), denied(),
               {"type": "install_commit", "seq": 1, "t_utc": NOW - 5}]
    table = collect_stats(pair_records(records)).table()
    assert table["total"] == {"requests": 3, "errors": 1, "tokens_in": 6, "tokens_out": 4}
    assert table["keys"]["k1"]["requests"] == 2
    assert table["models"]["other"] == {
        "requests": 1, "errors": 1, "tokens_in": 3, "tokens_out": 0,
    }
    assert table["statuses"] == {"200": 1, "503": 1, "open": 1}
    assert table["refused"] == {"missing_scope": 1, "not written one by one": 5}
    assert table["errors"] == {"engine_failed": 1}
    assert table["events"] == {"install_commit": 1}
    assert table["open"] == 1
    assert (table["first_t_utc"], table["last_t_utc"]) == (NOW - 5, NOW + 3)


def test_percentiles_are_values_that_were_there() -> None:
    assert percentiles(range(1, 101)) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert percentiles([7]) == {"p50": 7, "p95": 7, "p99": 7, "max": 7}
    assert percentiles([]) is None


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=60))
def test_bars_hold_every_request_in_order(moments: list[int]) -> None:
    entries = [Entry(request(i, t_utc=t)) for i, t in enumerate(moments)]
    width, bars = time_bars(collect_stats(entries))
    assert len(bars) <= MAX_BARS
    assert sum(bar.count for bar in bars) == len(moments)
    assert [b.start for b in bars] == list(range(bars[0].start, bars[-1].start + 1, width))
    assert bars[0].count
    assert bars[-1].count


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 200), st.booleans())
def test_bar_fits_and_shows_every_count(a: int, b: int, columns: int, ascii_only: bool) -> None:
    count, largest = min(a, b), max(a, b)
    drawn = render_bar(count, largest, columns, ascii_only=ascii_only)
    assert 1 <= len(drawn) <= columns
    assert len(render_bar(largest, largest, columns, ascii_only=ascii_only)) == columns


def test_what_people_read_moves_no_cursor() -> None:
    evil = "a\n\x1b[2J\u202e\x07"
    entries = list(pair_records([request(1, model=evil, actor=evil), response(1, error=evil),
                                 denied(reason=evil, path=evil)]))
    lines = [*map(render_entry, entries),
             *render_stats(collect_stats(entries), ascii_only=True)]
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert printable({"a": evil}).isprintable()


def test_stats_of_nothing() -> None:
    assert list(render_stats(collect_stats([]), ascii_only=False)) == ["no records"]
