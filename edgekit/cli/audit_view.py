"""Audit entries and their sums as people read them. Pure: values in, lines out.

Texts in records come from strangers: what could move a cursor or turn a line is shown escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from edgekit.core.audit_query import REQUEST, Entry, Record, render_moment
from edgekit.core.audit_stats import Stats, Usage, render_bar, time_bars

BAR_COLUMNS = 40
MAX_ROWS = 20
_STAMPS = frozenset({"seq", "prev", "t_utc", "t_boot_ns", "boot_id", "type", "unit", "capped"})
_WIDTHS = {60: "minute", 300: "5 minutes", 900: "15 minutes", 3600: "hour", 21_600: "6 hours",
           86_400: "day", 604_800: "week", 2_592_000: "30 days", 31_536_000: "year"}


def printable(value: object) -> str:
    """A record's value on one line, without anything that a terminal would act on."""
    if isinstance(value, str):
        return json.dumps(value)[1:-1]
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def render_entry(entry: Entry) -> str:
    """One line: when, which records, what, who, and how it went."""
    numbers = "-".join(str(record["seq"]) for record in entry.records)
    head = f"{render_moment(entry.first['t_utc'])}  {numbers:>13}"
    if entry.type == REQUEST:
        return f"{head}  {_render_request(entry)}"
    return f"{head}  {entry.type}  {_render_fields(entry.first)}"


def _render_request(entry: Entry) -> str:
    parts = [
        "request",
        f"{entry.status:>4}",
        printable(entry.value("actor", "-")),
        printable(entry.value("model", "-")),
        f"{entry.value('tokens_in', '?')} + {entry.value('tokens_out', '?')} tokens",
        f"{entry.value('latency_ms', '?')} ms",
        printable(entry.value("error") or entry.value("finish_reason", "")),
        printable(entry.value("request_id", "")),
    ]
    return "  ".join(part for part in parts if part)


def _render_fields(record: Record) -> str:
    fields = {k: v for k, v in sorted(record.items()) if k not in _STAMPS and v not in ("", None)}
    return " ".join(f"{name}={printable(value)}" for name, value in fields.items())


def render_stats(stats: Stats, *, ascii_only: bool) -> Iterator[str]:
    """The sums, then a bar for every stretch of time."""
    if stats.first is None or stats.last is None:
        yield "no records"
        return
    total = stats.total
    yield f"from      {render_moment(stats.first)} to {render_moment(stats.last)}"
    yield (
        f"requests  {total.requests}, {total.errors} ended with an error, "
        f"{stats.open_requests} without an ending, {stats.aborted} left by their client"
    )
    yield f"tokens    {total.tokens_in} in, {total.tokens_out} out"
    yield from _render_times(stats.table())
    yield from _render_counts("status", stats.statuses)
    yield from _render_counts("refused", +stats.refused)
    yield from _render_counts("errors", stats.errors)
    yield from _render_counts("events", stats.events)
    yield from _render_usage("key", stats.by_key)
    yield from _render_usage("model", stats.by_model)
    yield from _render_bars(stats, ascii_only=ascii_only)


def _render_times(table: Mapping[str, Mapping[str, int] | None]) -> Iterator[str]:
    for title, name in (("answer", "latency_ms"), ("1st token", "ttft_ms")):
        if (at := table[name]) is not None:
            shares = ", ".join(f"{at[share]} ms {share}" for share in ("p50", "p95", "p99", "max"))
            yield f"{title:<10}{shares}"


def _render_counts(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    if counts:
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_ROWS]
        yield f"{title:<10}" + ", ".join(f"{count} {printable(name)}" for name, count in ranked)


def _render_usage(title: str, usages: Mapping[str, Usage]) -> Iterator[str]:
    if not usages:
        return
    yield ""
    yield f"{title:<28}{'requests':>9}{'errors':>8}{'tokens in':>12}{'tokens out':>12}"
    ranked = sorted(usages.items(), key=lambda item: (-item[1].requests, item[0]))
    for name, usage in ranked[:MAX_ROWS]:
        yield (
            f"{printable(name)[:27]:<28}{usage.requests:>9}{usage.errors:>8}"
            f"{usage.tokens_in:>12}{usage.tokens_out:>12}"
        )
    if len(ranked) > MAX_ROWS:
        yield f"and {len(ranked) - MAX_ROWS} more"


def _render_bars(stats: Stats, *, ascii_only: bool) -> Iterator[str]:
    width, bars = time_bars(stats)
    largest = max((bar.count for bar in bars), default=0)
    if not largest:
        return
    yield ""
    yield f"requests per {_WIDTHS[width // 1_000_000]}"
    for bar in bars:
        drawn = render_bar(bar.count, largest, BAR_COLUMNS, ascii_only=ascii_only)
        yield f"{render_moment(bar.start)[:16]}  {drawn} {bar.count}".replace("   ", "  ")
