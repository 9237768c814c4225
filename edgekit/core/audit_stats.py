"""Sums over audit entries: who asked how much of which model, and how it ended. Pure.

Times are microseconds since 1970 (UTC, as the host's clock had them), durations milliseconds.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgekit.core.audit_query import OPEN, REFUSALS, REQUEST, Entry

MINUTE_US = 60_000_000
WIDTHS_US = tuple(
    minutes * MINUTE_US for minutes in (1, 5, 15, 60, 360, 1440, 10_080, 43_200, 525_600)
)
"""What one bar may stand for: one minute to one year."""

MAX_BARS = 40
_BLOCKS = " ▏▎▍▌▋▊▉█"


@dataclass(slots=True)
class Usage:
    """What one key or one model had: requests, those that ended with an error, tokens."""

    requests: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, entry: Entry) -> None:
        """Count one request."""
        self.requests += 1
        self.errors += is_error(entry.status)
        self.tokens_in += entry.value("tokens_in", 0)
        self.tokens_out += entry.value("tokens_out", 0)

    def table(self) -> dict[str, int]:
        """As plain JSON values."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
        }


@dataclass(slots=True)
class Stats:
    """Sums of one stretch of the log. Make one with `collect_stats`."""

    first: int | None = None
    last: int | None = None
    total: Usage = field(default_factory=Usage)
    by_key: dict[str, Usage] = field(default_factory=dict)
    by_model: dict[str, Usage] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    text_modes: Counter[str] = field(default_factory=Counter)
    open_requests: int = 0
    aborted: int = 0
    latency_ms: array[int] = field(default_factory=lambda: array("q"))
    ttft_ms: array[int] = field(default_factory=lambda: array("q"))
    minutes: Counter[int] = field(default_factory=Counter)

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        moment = entry.first["t_utc"]
        self.first = moment if self.first is None else min(self.first, moment)
        self.last = moment if self.last is None else max(self.last, moment)
        if entry.type == REQUEST:
            self._add_request(entry, moment)
        elif entry.type in REFUSALS:
            # a record may stand for many: a flood is written at a bounded rate
            self.refused[str(entry.first.get("reason", ""))] += 1
            self.refused["not written one by one"] += entry.first.get("suppressed_before", 0)
        else:
            self.events[entry.type] += 1

    def _add_request(self, entry: Entry, moment: int) -> None:
        for usage in (
            self.total,
            self.by_key.setdefault(str(entry.value("actor", "")), Usage()),
            self.by_model.setdefault(str(entry.value("model", "")), Usage()),
        ):
            usage.add(entry)
        self.minutes[moment // MINUTE_US] += 1
        self.statuses[entry.status] += 1
        self.text_modes[str(entry.value("text_mode", "hash"))] += 1
        self.open_requests += entry.status == OPEN
        self.aborted += bool(entry.value("aborted", default=False))
        if is_error(entry.status):
            self.errors[str(entry.value("error", "")) or f"status {entry.status}"] += 1
        elif entry.last is not None:
            self.finished[str(entry.value("finish_reason", ""))] += 1
        for name, values in (("latency_ms", self.latency_ms), ("ttft_ms", self.ttft_ms)):
            if (value := entry.value(name)) is not None:
                values.append(value)

    def table(self) -> dict[str, Any]:
        """As plain JSON values (`edgekit.audit-stats/1`)."""
        return {
            "schema": "edgekit.audit-stats/1",
            "first_t_utc": self.first,
            "last_t_utc": self.last,
            "total": self.total.table(),
            "keys": {name: usage.table() for name, usage in sorted(self.by_key.items())},
            "models": {name: usage.table() for name, usage in sorted(self.by_model.items())},
            "statuses": dict(sorted(self.statuses.items())),
            "finish_reasons": dict(sorted(self.finished.items())),
            "refused": dict(sorted((+self.refused).items())),
            "errors": dict(sorted(self.errors.items())),
            "events": dict(sorted(self.events.items())),
            "text_modes": dict(sorted(self.text_modes.items())),
            "open": self.open_requests,
            "aborted": self.aborted,
            "latency_ms": percentiles(self.latency_ms),
            "ttft_ms": percentiles(self.ttft_ms),
        }


def collect_stats(entries: Iterable[Entry]) -> Stats:
    """The sums of these entries."""
    stats = Stats()
    for entry in entries:
        stats.add(entry)
    return stats


def is_error(status: str) -> bool:
    """Whether a request ended badly; one that has no ending yet did not."""
    return status != OPEN and not status.startswith("2")


def percentiles(values: Iterable[int]) -> dict[str, int] | None:
    """The values at 50, 95 and 99 of 100 and the largest (nearest rank); None of no values."""
    ranked = sorted(values)
    if not ranked:
        return None
    at = {f"p{share}": ranked[-(-len(ranked) * share // 100) - 1] for share in (50, 95, 99)}
    return {**at, "max": ranked[-1]}


@dataclass(frozen=True, slots=True)
class Bar:
    """How many requests began in one stretch of time, which begins at `start` (us)."""

    start: int
    count: int


def time_bars(stats: Stats, max_bars: int = MAX_BARS) -> tuple[int, list[Bar]]:
    """The width of a bar in microseconds and the bars, empty ones included, oldest first.

    The width is the smallest that needs no more than `max_bars`.
    """
    if not stats.minutes:
        return WIDTHS_US[0], []
    first, last = min(stats.minutes) * MINUTE_US, max(stats.minutes) * MINUTE_US
    fitting = (w for w in WIDTHS_US if last // w - first // w < max_bars)
    width = next(fitting, WIDTHS_US[-1])
    counts: Counter[int] = Counter()
    for minute, count in stats.minutes.items():
        counts[minute * MINUTE_US // width] += count
    numbers = range(first // width, last // width + 1)
    return width, [Bar(number * width, counts[number]) for number in numbers][-max_bars:]


def render_bar(count: int, largest: int, columns: int, *, ascii_only: bool = False) -> str:
    """A horizontal bar of at most `columns` characters, to an eighth of one; "" for nothing."""
    if count <= 0 or largest <= 0:
        return ""
    if ascii_only:
        return "#" * max(1, count * columns // largest)
    eighths = max(1, count * columns * 8 // largest)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
