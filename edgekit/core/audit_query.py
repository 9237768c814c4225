"""Questions about audit records: when, who, which model, how it ended, which text.

A request and what became of it are two records; here they are one `Entry` again. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from edgekit.errors import FormatError

Record = Mapping[str, Any]

REQUEST = "request"
ENDINGS = frozenset({"response", "orphaned"})
"""Types that close a request; `orphaned` is what the log writes for one that a crash cut off."""

REFUSALS = frozenset({"denied", "auth_fail"})
OPEN = "open"
TEXT_FIELDS = ("prompt_hmac", "text_hmac", "output_hmac")

_AGO = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STATUS = re.compile(rf"[1-5][0-9]{{2}}|[1-5]xx|{OPEN}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened: a request with its ending (None while there is none), or an event
    that is one record."""

    first: Record
    last: Record | None = None

    @property
    def type(self) -> str:
        """The first record's type."""
        return str(self.first["type"])

    @property
    def records(self) -> tuple[Record, ...]:
        """One or two records, in the order of the log."""
        return (self.first,) if self.last is None else (self.first, self.last)

    @property
    def status(self) -> str:
        """The HTTP status as text, `open` for a request without an ending, "" for other events."""
        if self.type == REQUEST:
            return OPEN if self.last is None else str(self.last.get("status", OPEN))
        return str(self.first.get("status", ""))

    def value(self, name: str, default: Any = None) -> Any:
        """A field of whichever record has it, the ending's first."""
        for record in reversed(self.records):
            if record.get(name) is not None:
                return record[name]
        return default


def pair_records(records: Iterable[Record]) -> Iterator[Entry]:
    """Entries in the order in which they ended; requests that did not end come last."""
    waiting: dict[str, Record] = {}
    for record in records:
        identity = str(record.get("request_id", ""))
        if record["type"] == REQUEST:
            waiting[identity] = record
        elif record["type"] in ENDINGS and identity in waiting:
            yield Entry(waiting.pop(identity), record)
        else:
            yield Entry(record)
    yield from map(Entry, waiting.values())


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for. Everything given must hold; of several values of one field, one.

    `since` and `until` are microseconds since 1970, the second one excluded. `digests` are keyed
    digests of a text (hex).
    """

    since: int | None = None
    until: int | None = None
    keys: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    requests: frozenset[str] = frozenset()
    digests: frozenset[str] | None = field(default=None)

    def matches(self, entry: Entry) -> bool:
        """Whether the entry is one of those asked for."""
        return (
            self._in_time(entry.first["t_utc"])
            and _among(self.keys, entry.first.get("actor"))
            and _among(self.models, entry.value("model"))
            and _among(self.requests, entry.first.get("request_id"))
            and (not self.types or any(r["type"] in self.types for r in entry.records))
            and (not self.statuses or _has_status(self.statuses, entry.status))
            and (self.digests is None or _has_text(self.digests, entry))
        )

    def _in_time(self, t_utc: int) -> bool:
        late_enough = self.since is None or t_utc >= self.since
        return late_enough and (self.until is None or t_utc < self.until)


def parse_status(text: str) -> str:
    """A status to look for: `503`, `5xx` or `open`. Raises FormatError."""
    if _STATUS.fullmatch(text) is None:
        raise FormatError("no status to look for", found=text[:40], needed="503, 5xx or open")
    return text


def parse_moment(text: str, now_us: int) -> int:
    """A moment in microseconds since 1970: UTC as `2026-11-25` or `2026-11-25T09:30[:15]`, or how
    long before now: `90s`, `15m`, `6h`, `7d`, `4w`. Raises FormatError."""
    if ago := _AGO.fullmatch(text):
        return now_us - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) // timedelta(microseconds=1)
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError as error:
        raise FormatError(
            "no moment in time",
            found=text[:40],
            needed="UTC as 2026-11-25 or 2026-11-25T09:30, or how long ago: 15m, 6h, 7d",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def render_moment(t_utc: int) -> str:
    """Microseconds since 1970 as `2026-11-25 09:30:15Z`."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t_utc)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _among(wanted: frozenset[str], value: object) -> bool:
    return not wanted or value in wanted


def _has_status(wanted: frozenset[str], status: str) -> bool:
    return status in wanted or f"{status[:1]}xx" in wanted


def _has_text(digests: frozenset[str], entry: Entry) -> bool:
    return any(
        record.get(name) in digests for record in entry.records for name in TEXT_FIELDS
    )
