"""Everything that can be done to a log of 10,000 records, and whether it is found and located.

A mutation says which record is the first bad one. An attacker may have more or less in hand: the
disk alone, the MAC key of a later epoch, or everything that lies on the host at the end, the
signing key included. Auditors hold everything, or the audit key and anchors alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import MAC_BYTES, LogLine, Pace, empty_head, next_chain
from edgekit.core.audit_checkpoint import (
    Checkpoint,
    checkpoint_fields,
    record_envelope,
    unsafe_read_checkpoint,
    verify_checkpoint,
)
from edgekit.core.audit_keys import MacKey
from edgekit.core.audit_record import check_event
from edgekit.core.audit_verify import MAX_BATCH, Evidence
from edgekit.core.merkle import Tree, leaf_hash
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import AuditError
from edgekit.system.audit_keyring import Keyring, load_keyring
from tests.audit.figures import Figure
from tests.support.audit_logs import Written, located, start_log, verify_lines

RECORDS = 10_000
EPOCH_RECORDS = 500
SEGMENT_BYTES = 1 << 20
TAIL = 40
"""Records after the newest checkpoint."""

Lines = list[bytes]
Record = dict[str, Any]


@dataclass(frozen=True)
class Forged:
    """A log after a mutation: lines by segment, the first bad record, and who can tell.

    `exact`: its number is named without the MAC key too; else the first checkpoint or anchor after
    it is. `needs` is what an auditor must bring for it to be found at all.
    """

    segments: list[Lines]
    seq: int
    exact: bool = True
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Subject:
    """The true log, what its host holds at the end, and what its auditor holds."""

    written: Written
    segments: list[Lines]
    names: list[str]
    keyring: Keyring
    evidence: Evidence
    starts: list[int]

    def lines(self) -> Lines:
        return [line for segment in self.segments for line in segment]

    def split(self, lines: Sequence[bytes]) -> list[Lines]:
        """Lines as they would lie in the same segments; what is too many goes into the last."""
        ends = [*self.starts[1:], len(lines)]
        return [list(lines[a:b]) for a, b in zip(self.starts, ends, strict=True)]

    def placed(self, segments: list[Lines]) -> list[LogLine]:
        found = []
        for name, lines in zip(self.names, segments, strict=True):
            offset = 0
            for line in lines:
                found.append(LogLine(name, offset, line))
                offset += len(line) + 1
        return found


def make_subject(directory: Path, records: int = RECORDS) -> Subject:
    """Busy epochs of 500 records, quiet ones between, and a tail that no checkpoint covers."""
    written = start_log(
        directory, segment_bytes=SEGMENT_BYTES, pace=Pace(300, EPOCH_RECORDS)
    )
    log = written.open()
    number = 0
    while log.head.seq < records - TAIL:
        written.clock.tick(0.05)
        batch = [_request(number + i) for i in range(4)]
        number += len(batch)
        log.append_batch(batch)
        if number % 1000 == 0:
            for _ in range(15):
                written.clock.tick(301)
                log.settle()
    written.clock.tick(301)
    log.settle()
    while log.head.seq < records:
        log.append_batch([_request(number)])
        number += 1
    log.settle()  # the head follows
    keyring = load_keyring(directory, log.head.log_id)
    segments = [path.read_bytes().split(b"\n")[:-1] for path in written.segments()]
    evidence = _with_anchor(written.evidence(), segments)
    starts, start = [], 0
    for segment in segments:
        starts.append(start)
        start += len(segment)
    names = [path.name for path in written.segments()]
    subject = Subject(written, segments, names, keyring, evidence, starts)
    log.close()
    return subject


def _request(number: int) -> Any:
    return check_event(
        {
            "type": "request" if number % 2 else "response",
            "request_id": f"r{number // 2:08d}",
            "model": "demo",
            "params": {"max_tokens": number % 97, "temperature_milli": 700},
            "tokens_in": number % 1000,
        }
    )


def _with_anchor(evidence: Evidence, segments: list[Lines]) -> Evidence:
    lines = [line for segment in segments for line in segment if b'"type":"checkpoint"' in line]
    envelope = record_envelope(json.loads(lines[-1]))
    assert evidence.signer is not None
    return replace(evidence, anchors=(verify_checkpoint(envelope, evidence.signer),))


# what an attacker can do with an editor alone


def flip_byte(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice)
    line = bytearray(segments[place][index])
    line[dice.randrange(len(line))] ^= dice.randrange(1, 256)
    if b"\n" in line:
        return flip_byte(subject, dice)
    segments[place][index] = bytes(line)
    return Forged(segments, seq)


def edit_field(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice)
    record = json.loads(segments[place][index])
    record[dice.choice(["t_utc", "t_boot_ns"])] += dice.choice([-1, 1, 1_000_000])
    segments[place][index] = encode_canonical(record)
    return Forged(segments, seq)


def edit_mac(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice)
    segments[place][index] = segments[place][index][:-98] + b"0" * MAC_BYTES + b'"}'
    return Forged(segments, seq)


def delete(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice, leave=60)
    del segments[place][index : index + dice.choice([1, 1, 2, 50])]
    return Forged(segments, seq)


def delete_segment(subject: Subject, dice: random.Random) -> Forged:
    place = dice.randrange(len(subject.segments))
    segments = [list(lines) for lines in subject.segments]
    segments[place] = []
    return Forged(segments, subject.starts[place] + 1)


def insert_copy(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice)
    copied = dice.choice(dice.choice(subject.segments))
    segments[place].insert(index, copied)
    return Forged(segments, seq + (copied == segments[place][index + 1]))


def insert_forged(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice, first=1)
    true = json.loads(segments[place][index])
    forged = {**true, "type": "denied", "t_utc": true["t_utc"] + 5}
    segments[place].insert(index, encode_canonical(forged))
    return Forged(segments, seq)


def duplicate(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice)
    segments[place].insert(index, segments[place][index])
    return Forged(segments, seq + 1)


def swap(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice, leave=1)
    lines = segments[place]
    other = min(len(lines) - 1, index + dice.choice([1, 1, 2, 100]))
    if other == index:
        return swap(subject, dice)
    lines[index], lines[other] = lines[other], lines[index]
    return Forged(segments, seq)


def swap_between_files(subject: Subject, dice: random.Random) -> Forged:
    segments = [list(lines) for lines in subject.segments]
    one, two = sorted(dice.sample(range(len(segments)), 2))
    a, b = dice.randrange(len(segments[one])), dice.randrange(len(segments[two]))
    segments[one][a], segments[two][b] = segments[two][b], segments[one][a]
    return Forged(segments, subject.starts[one] + a + 1)


def swap_files(subject: Subject, dice: random.Random) -> Forged:
    segments = [list(lines) for lines in subject.segments]
    one, two = sorted(dice.sample(range(len(segments)), 2))
    segments[one], segments[two] = segments[two], segments[one]
    return Forged(segments, subject.starts[one] + 1)


def replace_by_older(subject: Subject, dice: random.Random) -> Forged:
    """A segment as it was earlier, while the ones after it stay."""
    segments = [list(lines) for lines in subject.segments]
    place = dice.randrange(len(segments) - 1)
    kept = dice.randrange(1, len(segments[place]))
    segments[place] = segments[place][:kept]
    return Forged(segments, subject.starts[place] + kept + 1)


def truncate(subject: Subject, dice: random.Random) -> Forged:
    kept = dice.randrange(1, len(subject.lines()))
    return Forged(subject.split(subject.lines()[:kept]), kept + 1, needs=frozenset({"end"}))


def truncate_in_line(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice)
    line = segments[place][index]
    segments[place][index] = line[: dice.randrange(1, len(line))]
    return Forged(segments, seq)


def join_lines(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice, leave=1)
    between = dice.choice([b"", b" ", b"\r"])
    segments[place][index : index + 2] = [between.join(segments[place][index : index + 2])]
    return Forged(segments, seq)


def add_junk(subject: Subject, dice: random.Random) -> Forged:
    segments, place, index, seq = _pick(subject, dice)
    segments[place].insert(index, dice.choice([b"", b"{}", b"[]", b"\0" * 512, b"x" * 20_000]))
    return Forged(segments, seq)


# what an attacker can do with a program: link everything behind anew


def reseal(subject: Subject, dice: random.Random) -> Forged:
    """Edit a record and link all after it anew, with the MAC key of the last epoch."""
    lines = subject.lines()
    index = dice.randrange(1, _last_signed(lines) - 1)
    records = [json.loads(line) for line in lines]
    records[index]["t_utc"] += 7
    return Forged(subject.split(_relink(subject, lines, records, index)), index + 1, exact=False)


def reseal_without_key(subject: Subject, dice: random.Random) -> Forged:
    lines = subject.lines()
    index = dice.randrange(1, _last_signed(lines) - 1)
    records = [json.loads(line) for line in lines]
    records[index]["boot_id"] = "f" * 32
    changed = _relink(subject, lines, records, index, key=None)
    return Forged(subject.split(changed), index + 1, exact=False)


def reseal_and_resign(subject: Subject, dice: random.Random) -> Forged:
    """With all that lies on the host at the end: every checkpoint is signed anew as well."""
    lines = subject.lines()
    index = dice.randrange(1, _last_signed(lines) - 1)
    records = [json.loads(line) for line in lines]
    records[index]["t_utc"] += 7
    changed = _relink(subject, lines, records, index, resign=True)
    needs = frozenset({"mac", "anchor"})
    return Forged(subject.split(changed), index + 1, exact=False, needs=needs)


def drop_heartbeat(subject: Subject, dice: random.Random) -> Forged:
    """Take away the end of an epoch, and its checkpoint if it has one, and link what follows."""
    lines = subject.lines()
    records = [json.loads(line) for line in lines]
    ends = [i for i, record in enumerate(records[: _last_signed(lines) - 3])
            if record["type"] == "epoch"]
    index = dice.choice(ends)
    gone = {index}
    if records[index]["signs"]:
        gone.add(next(i for i in range(index, len(records)) if records[i]["type"] == "checkpoint"))
    left = [record for i, record in enumerate(records) if i not in gone]
    for number, record in enumerate(left, 1):
        record["seq"] = number
    changed = _relink(subject, lines, left, index)
    return Forged(subject.split(changed), index + 1, exact=False)


def unseal(subject: Subject, dice: random.Random) -> Forged:
    """Take away every heartbeat and checkpoint from some record on: a log that nobody seals."""
    lines = subject.lines()
    records = [json.loads(line) for line in lines]
    index = dice.randrange(2, len(lines) // 2)
    left = records[:index] + [
        record for record in records[index:] if record["type"] not in ("epoch", "checkpoint")
    ]
    for number, record in enumerate(left, 1):
        record["seq"] = number
    first = next(i for i in range(index, len(lines)) if left[i] != records[i])
    changed = _relink(subject, lines, left, first)
    needs = frozenset({"pace"})
    return Forged(subject.split(changed), first + 1, exact=False, needs=needs)


def truncate_and_continue(subject: Subject, dice: random.Random) -> Forged:
    """Cut the log and go on with records of one's own, sealed with the key of the last epoch."""
    lines = subject.lines()
    kept = dice.randrange(2, _last_signed(lines) - 1)
    records = [json.loads(line) for line in lines]
    for record in records[kept:]:
        if record["type"] in ("request", "response"):
            record["model"] = "other"
    first = next(i for i in range(kept, len(records)) if records[i] != json.loads(lines[i]))
    changed = _relink(subject, lines, records, first)
    return Forged(subject.split(changed), first + 1, exact=False)


MUTATIONS: tuple[Callable[[Subject, random.Random], Forged], ...] = (
    flip_byte, edit_field, edit_mac, delete, delete_segment, insert_copy, insert_forged, duplicate,
    swap, swap_between_files, swap_files, replace_by_older, truncate, truncate_in_line, join_lines,
    add_junk, reseal, reseal_without_key, reseal_and_resign, drop_heartbeat, unseal,
    truncate_and_continue,
)


def run(subject: Subject, count: int, seed: int) -> Figure:
    """`count` mutations, each against an auditor who holds everything and one without MAC keys."""
    figure = Figure("audit mutations", seed=seed)
    for number in range(count):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        forged = mutation(subject, random.Random(f"{seed}/{number}"))
        for auditor in ("all", "public"):
            figure.planned += 1
            name = f"{mutation.__name__} {number} ({auditor})"
            figure.add(name, _judge(subject, forged, auditor))
    return figure


def _judge(subject: Subject, forged: Forged, auditor: str) -> str:
    """Empty when the mutation was found and located, else what was wrong."""
    changes: dict[str, Any] = {} if auditor == "all" else {"keys": ()}
    if not forged.exact:
        changes["head"] = None  # whoever rewrites a log rewrites the head beside it
    lines = subject.placed(forged.segments)
    try:
        verify_lines(lines, replace(subject.evidence, **changes))
    except AuditError as error:
        seq = located(error)[0]
        if forged.exact or auditor == "all":
            return "" if seq == forged.seq else f"record {seq} instead of {forged.seq}: {error}"
        limit = _next_judgement(subject, forged)
        good = forged.seq <= seq <= limit
        return "" if good else f"record {seq} outside {forged.seq} to {limit}: {error}"
    return "not found"


def _next_judgement(subject: Subject, forged: Forged) -> int:
    """The record at which an auditor without the MAC key must have noticed."""
    lines = subject.lines()
    if "anchor" in forged.needs:
        return len(lines)
    if "pace" in forged.needs:
        return forged.seq + EPOCH_RECORDS + MAX_BATCH
    for number, line in enumerate(lines, 1):
        if number > forged.seq and b'"type":"checkpoint"' in line:
            signed = unsafe_read_checkpoint(record_envelope(json.loads(line)))
            if signed.seq >= forged.seq:
                return number
    return len(lines)


def _pick(
    subject: Subject, dice: random.Random, *, leave: int = 0, first: int = 0
) -> tuple[list[Lines], int, int, int]:
    """A copy of the log, and a random record in it: segment, index there, number."""
    segments = [list(lines) for lines in subject.segments]
    place = dice.randrange(len(segments))
    index = dice.randrange(first, len(segments[place]) - leave)
    return segments, place, index, subject.starts[place] + index + 1


def _last_signed(lines: Lines) -> int:
    return max(i for i, line in enumerate(lines) if b'"type":"checkpoint"' in line)


LAST: Any = object()


def _relink(
    subject: Subject,
    lines: Lines,
    records: list[Record],
    first: int,
    *,
    key: Any = LAST,
    resign: bool = False,
) -> Lines:
    """Records from `first` on with true links, and MACs under one key (zeros without one)."""
    mac = MacKey(subject.keyring.key.key) if key is LAST else None
    chain, tree = empty_head(subject.written.first_key.log_id).chain, Tree()
    result = list(lines[:first])
    for line in result:
        chain = next_chain(chain, line)
        tree.add(leaf_hash(line))
    ended: Checkpoint | None = None
    for original in records[first:]:
        record = dict(original)
        if resign and record["type"] == "checkpoint":
            said = unsafe_read_checkpoint(record_envelope(record))
            value = ended if ended is not None and ended.epoch == said.epoch else said
            record |= checkpoint_fields(subject.keyring.sign(value), value.epoch)
        if resign and record["type"] == "segment":
            record["peaks"] = [peak.hex() for peak in tree.peaks()]
        record["prev"] = chain.hex()
        body = encode_canonical({k: v for k, v in record.items() if k != "~mac"})
        seal = mac.mac(body) if mac is not None else "0" * MAC_BYTES
        line = body[:-1] + b',"~mac":"' + seal.encode() + b'"}'
        result.append(line)
        chain = next_chain(chain, line)
        tree.add(leaf_hash(line))
        if record["type"] == "epoch" and record["signs"]:
            ended = Checkpoint(
                subject.written.first_key.log_id, record["epoch"], record["seq"], chain,
                tree.root(), record["t_utc"], record["t_boot_ns"], record["boot_id"],
            )
    return result
