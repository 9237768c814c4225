"""The evidence report as one HTML page: for a security officer, on paper or on a screen. Pure.

It holds no script and asks for nothing from anywhere. Whatever strangers wrote is escaped.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.core.audit_query import render_moment
from edgekit.core.audit_report_style import STYLE
from edgekit.core.audit_stats import Bar, Stats, Usage, percentiles, time_bars
from edgekit.core.audit_summary import AuditSummary

Record = Mapping[str, Any]

MAX_EVENTS = 500
_HIDDEN = frozenset(
    {"type", "seq", "prev", "t_utc", "t_boot_ns", "boot_id", "~mac", "actor", "unit", "capped"}
)
_WIDTHS = {60: "minute", 300: "5 minutes", 900: "15 minutes", 3600: "hour", 21_600: "6 hours"}
_LONGER = {86_400: "day", 604_800: "week", 2_592_000: "30 days", 31_536_000: "year"}


@dataclass(frozen=True, slots=True)
class Finding:
    """Why the log is not intact: what an audit error says."""

    message: str
    where: str
    found: str
    needed: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """Everything that the page shows. Times in microseconds since 1970.

    `proven` is None when the log is not intact; `finding` then says why. `key_notes` are what the
    host calls its API keys, `signers` who signed the release that serves; both empty elsewhere.
    `events` are what happened besides requests, newest last; `more_events` were left out.
    """

    host: str
    version: str
    created: int
    since: int | None
    until: int | None
    proven: AuditSummary | None
    finding: Finding | None
    stats: Stats
    events: Sequence[Record]
    more_events: int
    key_notes: Mapping[str, str]
    signers: Sequence[str]


def render_report(facts: ReportFacts) -> str:
    """The whole page."""
    period = f"{_moment(facts.since or facts.stats.first)} to " + _moment(
        facts.until or facts.stats.last
    )
    parts = [
        f"<header><h1>Audit report</h1><p>{_text(facts.host)}<br>{period}</p></header>",
        _integrity(facts),
        _totals(facts.stats),
        _plot(facts.stats),
        _usage("Who asked", "API key", facts.stats.by_key, facts.key_notes),
        _usage("Which model", "Model", facts.stats.by_model, {}),
        _outcomes(facts.stats),
        _events(facts),
        _signature(facts),
    ]
    return _PAGE.format(
        style=STYLE, title=f"Audit report {_text(facts.host)}", body="\n".join(filter(None, parts))
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _integrity(facts: ReportFacts) -> str:
    if facts.finding is not None:
        return _broken(facts.finding)
    assert facts.proven is not None
    proven, verdict = facts.proven, facts.proven.verdict
    rows = [
        ("Log", f"<code>{_text(verdict.log_id)}</code>"),
        ("Records", f"{verdict.first:,} to {verdict.last:,}, in {verdict.epoch + 1:,} epochs"),
        ("Audit key", f"<code>{_text(proven.signer or 'none was given')}</code>"),
        ("Signed", f"to record {verdict.signed_to:,} by {verdict.checkpoints:,} checkpoints"),
    ]
    if verdict.sealed_from is not None:
        rows.append(("Sealed", f"every MAC checked from record {verdict.sealed_from:,} on"))
    if verdict.after_anchor is None:
        rows.append(("Anchor", "none was given: what nobody outside holds could have been cut off"))
    else:
        after = f"{verdict.after_anchor:,} records came after it"
        rows.append(("Anchor", f"record {verdict.anchored_to:,}; {after}"))
    if proven.removed is not None:
        how = "by force, not all exported" if proven.removed.forced else "after their export"
        rows.append(
            ("Removed", f"records before {verdict.first:,}, {how} (record {proven.removed.seq:,})")
        )
    if verdict.unvouched:
        rows.append(("Note", f"only the chain speaks for the last {verdict.unvouched:,} records"))
    if proven.borrowed:
        rows.append(("Note", "the audit key came with the export: compare its fingerprint"))
    if verdict.late:
        rows.append(("Note", f"{verdict.late:,} epochs ended late"))
    rows.append(("Chain", f"<code>{verdict.chain.hex()}</code>"))
    rows.append(("Root", f"<code>{verdict.root.hex()}</code>"))
    level = "warn" if proven.has_warnings else "good"
    words = (
        "No record was changed, removed or moved."
        if level == "good"
        else "No record was changed, removed or moved; read the notes for the newest records."
    )
    return (
        f'<section class="verdict {level}"><h2>Integrity</h2>'
        f"<p><strong>Intact.</strong> {words}</p>{_list(rows)}</section>"
    )


def _broken(finding: Finding) -> str:
    rows = [
        ("Where", _text(finding.where)),
        ("Found", _text(finding.found)),
        ("Needed", _text(finding.needed)),
        ("Exit code", str(finding.exit_code)),
    ]
    return (
        f'<section class="verdict bad"><h2>Integrity</h2><p><strong>Not intact:</strong> '
        f"{_text(finding.message)}.</p>{_list(row for row in rows if row[1])}"
        "<p>The figures below were read from this log and prove nothing.</p></section>"
    )


def _totals(stats: Stats) -> str:
    refused = sum(stats.refused.values())
    latency = percentiles(stats.latency_ms)
    cells = [
        ("requests", f"{stats.total.requests:,}"),
        ("errors", f"{stats.total.errors:,}"),
        ("refused", f"{refused:,}"),
        ("without an ending", f"{stats.open_requests:,}"),
        ("tokens in", f"{stats.total.tokens_in:,}"),
        ("tokens out", f"{stats.total.tokens_out:,}"),
        ("median answer", "-" if latency is None else f"{latency['p50']:,} ms"),
        ("slowest of 100", "-" if latency is None else f"{latency['p99']:,} ms"),
    ]
    tiles = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in cells)
    return f'<section><h2>How much</h2><div class="tiles">{tiles}</div></section>'


def _plot(stats: Stats) -> str:
    """Requests over time as bars of an inline SVG."""
    width, bars = time_bars(stats)
    if len(bars) < 2:
        return ""
    largest = max(bar.count for bar in bars)
    unit = {**_WIDTHS, **_LONGER}[width // 1_000_000]
    shapes = "".join(_bar(index, bar, largest) for index, bar in enumerate(bars))
    return (
        f"<section><h2>Requests in each {unit}</h2>"
        f'<svg class="plot" viewBox="0 0 {len(bars) * 10} 100" preserveAspectRatio="none" '
        f'role="img" aria-label="at most {largest}">{shapes}</svg>'
        f'<p class="axis"><span>{_moment(bars[0].start)}</span>'
        f"<span>at most {largest:,}</span><span>{_moment(bars[-1].start)}</span></p></section>"
    )


def _bar(index: int, bar: Bar, largest: int) -> str:
    height = max(bar.count * 100 // largest, 1 if bar.count else 0)
    title = f"{_moment(bar.start)}: {bar.count:,}"
    return (
        f'<rect x="{index * 10 + 1}" y="{100 - height}" width="8" height="{height}">'
        f"<title>{title}</title></rect>"
    )


def _usage(title: str, head: str, table: Mapping[str, Usage], notes: Mapping[str, str]) -> str:
    if not table:
        return ""
    ordered = sorted(table.items(), key=lambda item: (-item[1].requests, item[0]))
    rows = [
        (
            f"<code>{_text(name or 'none')}</code> {_text(notes.get(name, ''))}",
            f"{usage.requests:,}",
            f"{usage.errors:,}",
            f"{usage.tokens_in:,}",
            f"{usage.tokens_out:,}",
        )
        for name, usage in ordered
    ]
    heads = (head, "Requests", "Errors", "Tokens in", "Tokens out")
    shown = _table(heads, rows, kind="numbers")
    return f"<section><h2>{title}</h2>{shown}</section>"


def _outcomes(stats: Stats) -> str:
    groups = (
        ("Statuses", stats.statuses),
        ("Ended", stats.finished),
        ("Errors", stats.errors),
        ("Refused", +stats.refused),
        ("What was kept of texts", stats.text_modes),
        ("Other records", stats.events),
    )
    shown = [
        f"<div><h3>{name}</h3>"
        + _list((_text(key or "none"), f"{count:,}") for key, count in sorted(counts.items()))
        + "</div>"
        for name, counts in groups
        if counts
    ]
    return (
        f'<section><h2>How it ended</h2><div class="columns">{"".join(shown)}</div></section>'
        if shown
        else ""
    )


def _events(facts: ReportFacts) -> str:
    if not facts.events:
        return ""
    rows = [
        (
            _moment(record["t_utc"]),
            f"{record['seq']:,}",
            _text(str(record["type"]).replace("_", " ")),
            _text(str(record.get("actor", ""))),
            _text(_details(record)),
        )
        for record in facts.events
    ]
    left_out = f"<p>{facts.more_events:,} earlier ones are left out.</p>"
    title = "<h2>Changes to the host, its trust and its log</h2>"
    table = _table(("When (UTC)", "Record", "What", "By", "Details"), rows, kind="events")
    return f"<section>{title}{left_out if facts.more_events else ''}{table}</section>"


def _details(record: Record) -> str:
    parts = []
    for name, value in record.items():
        if name in _HIDDEN or value in ("", None):
            continue
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        parts.append(f"{name} {text[:48]}..." if len(text) > 48 else f"{name} {text}")
    return "; ".join(parts)


def _signature(facts: ReportFacts) -> str:
    signed = ", ".join(facts.signers)
    release = f"The release that serves was signed by {_text(signed)}. " if signed else ""
    return (
        f'<section class="sign"><h2>Reviewed</h2><p>{release}Made by edgekit '
        f"{_text(facts.version)} on {_moment(facts.created)} by this host's clock. This page "
        "proves nothing by itself: <code>edgekit audit verify</code> does, on any machine.</p>"
        "<div><span>Name</span><span>Date</span><span>Signature</span></div></section>"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def _moment(t_utc: int | None) -> str:
    return "-" if t_utc is None else render_moment(t_utc)


def _text(text: str) -> str:
    """Text of strangers: markup is escaped, and what changes how others read becomes visible."""
    shown = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
    return html.escape(shown)
