"""What clients were told, held against what the log says: rules K1 to K7 of audit/kills.py."""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import parse_line
from edgekit.errors import AuditError
from edgekit.operations.audit import verify_audit
from edgekit.system.audit_files import read_lines
from tests.audit.kills_site import Attempt

LEAST_ANSWERED = 3
"""At least one in so many requests must be answered: else the kills left nothing to look at."""

Record = dict[str, Any]


@dataclass
class Judgement:
    """Counts, and what was wrong."""

    problems: list[str] = field(default_factory=list)
    acknowledged: int = 0
    matched: int = 0
    unreceived: int = 0
    orphaned: int = 0
    records: int = 0


@dataclass
class Log:
    """The records by request, and the key of their digests."""

    key: bytes
    begins: dict[str, list[Record]]
    ends: dict[str, list[Record]]

    def digest(self, text: str) -> str:
        """As the gateway makes it."""
        return hmac.new(self.key, text.encode(), hashlib.sha384).hexdigest()


def judge(folder: Path, attempts: list[Attempt]) -> Judgement:
    """Read the log that is left in `folder` and judge every attempt."""
    found = Judgement()
    records = [parse_line(line, 0) for line in read_lines(folder / "audit")]
    log = _sort(records, (folder / "state/audit-hmac.key").read_bytes())
    found.records = len(records)
    found.acknowledged = sum(attempt.acknowledged for attempt in attempts)
    found.orphaned = sum(record["type"] == "orphaned" for record in records)
    asked = {r[0]["text_hmac"] for r in log.begins.values()}
    for attempt in attempts:
        wrong = list(_attempt(attempt, log, asked))
        found.matched += attempt.acknowledged and not wrong
        found.problems += [f"request {attempt.number} ({attempt.shape}): {why}" for why in wrong]
    found.problems += _engine(folder, log, asked)
    found.problems += _ends(log)
    held = {attempt.request_id for attempt in attempts if attempt.acknowledged}
    failed = {log.digest(attempt.prompt) for attempt in attempts if not attempt.acknowledged}
    for request, ends in log.ends.items():
        if ends[0].get("status") == 200 and request not in held:
            found.unreceived += 1
            if all(begin["text_hmac"] not in failed for begin in log.begins.get(request, [])):
                found.problems.append(f"K6: {request} was answered, and its client knows nothing")
    try:
        verify_audit(folder / "audit")
    except AuditError as error:
        found.problems.append(f"K7: {error}")
    if found.acknowledged * LEAST_ANSWERED < len(attempts):
        found.problems.append(f"only {found.acknowledged} answers")
    return found


def _sort(records: list[Record], key: bytes) -> Log:
    begins: dict[str, list[Record]] = defaultdict(list)
    ends: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record["type"] == "request":
            begins[record["request_id"]].append(record)
        elif record["type"] in ("response", "orphaned"):
            ends[record["request_id"]].append(record)
    return Log(key, begins, ends)


def _attempt(attempt: Attempt, log: Log, asked: set[str]) -> Iterator[str]:
    begins, ends = log.begins.get(attempt.request_id, []), log.ends.get(attempt.request_id, [])
    if attempt.acknowledged:
        if not begins or not ends:
            yield f"K1: answered, with {len(begins)} request and {len(ends)} response records"
            return
        (begin, *_), (end, *_) = begins, ends
        if not begin["seq"] < end["seq"] or end["type"] != "response" or end["status"] != 200:
            yield f"K1: answered, and recorded as {end['type']} {end.get('status')}"
        if begin["text_hmac"] != log.digest(attempt.prompt):
            yield "K1: the recorded prompt is another"
        if end.get("output_hmac") != log.digest(attempt.text):
            yield "K1: the recorded answer is another"
    elif attempt.ended and attempt.status >= 500 and "audit" not in attempt.problem:
        if [end.get("status") for end in ends] != [attempt.status]:
            yield f"K2: refused with {attempt.status}, and recorded as {ends}"
    elif attempt.text and log.digest(attempt.prompt) not in asked:
        yield "K3: got text without a request record"


def _engine(folder: Path, log: Log, asked: set[str]) -> Iterator[str]:
    for prompt in (folder / "seen").read_text().splitlines():
        if log.digest(prompt) not in asked:
            yield f"K4: the engine saw {prompt!r}, which was never recorded"


def _ends(log: Log) -> Iterator[str]:
    for request, begins in log.begins.items():
        ends = log.ends.get(request, [])
        if len(begins) != 1 or len(ends) != 1:
            kinds = [end["type"] for end in ends]
            yield f"K5: {request} has {len(begins)} request records and the ends {kinds}"
    for request in log.ends.keys() - log.begins.keys():
        yield f"K5: {request} ends and never began"
