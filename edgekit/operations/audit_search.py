"""`edgekit audit search`, `stats` and `tail -f`: read the log; `audit verify` is what proves it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import parse_line
from edgekit.core.audit_query import Entry, Query, Record, pair_records
from edgekit.core.audit_stats import Stats, collect_stats
from edgekit.core.host_layout import HostLayout
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import HostError
from edgekit.system.audit_files import read_lines, tail_lines
from edgekit.system.audit_follow import Follower, Place
from edgekit.system.files import read_bounded

POLL_S = 0.2
MAX_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Matches:
    """What was found, at most as many as asked for; `more` says that there was more."""

    entries: tuple[Entry, ...]
    more: bool

    def table(self) -> dict[str, Any]:
        """As plain JSON values (`edgekit.audit-search/1`)."""
        found = [[dict(record) for record in entry.records] for entry in self.entries]
        return {"schema": "edgekit.audit-search/1", "matches": found, "more": self.more}


def search_audit(log_dir: Path, query: Query, limit: int) -> Matches:
    """The first `limit` entries that match, oldest first. Raises AuditError for a broken log."""
    found = tuple(islice(matching(log_dir, query), limit + 1))
    return Matches(found[:limit], len(found) > limit)


def audit_stats(log_dir: Path, query: Query) -> Stats:
    """Sums over the entries that match. Raises AuditError for a broken log."""
    return collect_stats(matching(log_dir, query))


def follow_audit(log_dir: Path, count: int) -> Iterator[Record]:
    """The newest `count` records, oldest first, then every new one as it is written, for ever."""
    lines = tail_lines(log_dir, count)
    follower = Follower(log_dir, Place.after(lines[-1]) if lines else None)
    try:
        while True:
            for line in lines:
                yield parse_line(line, 0)
            lines = follower.read()
            if not lines:
                time.sleep(POLL_S)
    finally:
        follower.close()


def text_digests(text: bytes, key: bytes) -> frozenset[str]:
    """The digests that records hold of this text, whether it was a prompt or an answer.

    A chat's prompt is the list of its messages; a text also matches the chat in which it was the
    only message.
    """
    message = {"role": "user", "content": text.decode("utf-8", errors="surrogateescape")}
    forms = (text, encode_canonical([message]))
    return frozenset(hmac.new(key, form, hashlib.sha384).hexdigest() for form in forms)


def digest_key(layout: HostLayout, path: Path | None) -> bytes:
    """The host's key of keyed digests, or the one in a file. Raises HostError."""
    for candidate in [path] if path else [layout.gateway_state / "audit-hmac.key"]:
        if candidate.exists():
            return read_bounded(candidate.resolve(), MAX_KEY_BYTES, "key of keyed digests")
    raise HostError(
        "there is no key to look for texts with",
        where=str(path or layout.gateway_state / "audit-hmac.key"),
        hint="edgekit audit search --digest-key FILE --text-file FILE",
    )


def matching(log_dir: Path, query: Query) -> Iterator[Entry]:
    """Every entry that matches, oldest first. Raises AuditError for a broken log."""
    records = (parse_line(line, 0) for line in read_lines(log_dir))
    return (entry for entry in pair_records(records) if query.matches(entry))
