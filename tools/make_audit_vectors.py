"""Write docs/spec/audit-vectors: one log per file, at most one fault in each, made from fixed keys.

`python -m tools.make_audit_vectors` writes them; with `--check` nothing is written, and the exit
status is 1 when a file differs from what would be written. ML-DSA-87 signatures are randomised: one
that a present file holds is used again as long as it verifies. Where the fault lies is counted
here, by line, never asked of the reader under test.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edgekit.core.audit_chain import Pace
from edgekit.core.audit_checkpoint import (
    CHECKPOINT_TYPE,
    Checkpoint,
    checkpoint_fields,
    encode_checkpoint,
    unsafe_read_checkpoint,
    verify_checkpoint,
)
from edgekit.core.audit_keys import AuditKey, MacKey, encode_audit_key
from edgekit.core.audit_record import AuditEvent, Times, check_event, own_event
from edgekit.core.audit_state import LogState, new_log
from edgekit.core.envelope import encode_envelope
from edgekit.core.hybrid_key import verify_hybrid_key
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.system.signing import create_signer, load_signer
from tools.vector_files import BrokenVectorError, differences, reading

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs/spec/audit-vectors"
LOG_ID: Final = "0a" * 16
FIRST_KEY: Final = AuditKey(LOG_ID, 0, bytes(range(48)))
PACE: Final = Pace(300, 4)
BOOT: Final = "0" * 31 + "1"
STRANGE: Final = 'new\nline "quote" \u202eright to left \x00 \x1b[2J \u2028 ✓ 🗝'

BEGAN: Final = Times(1_700_000_000_000_000, 60_000_000_000, BOOT)

Lines = list[bytes]
Edit = Callable[[Lines], object]
CODES: Final = {
    "intact": ExitCode.OK,
    "unvouched": ExitCode.WARNINGS,
    "altered": ExitCode.AUDIT_ALTERED,
    "missing": ExitCode.AUDIT_MISSING,
    "truncated": ExitCode.AUDIT_TRUNCATED,
    "format": ExitCode.AUDIT_FORMAT,
    "key": ExitCode.AUDIT_KEY,
    "seal": ExitCode.AUDIT_SEAL,
    "checkpoint": ExitCode.AUDIT_CHECKPOINT,
}


@dataclass(frozen=True)
class Vector:
    """A log and what an auditor brings. `record` is the first bad one, or the last of a good log;
    `byte` is where it begins."""

    name: str
    expect: str
    step: str
    comment: str
    lines: Lines
    record: int
    byte: int = 0
    signer: str = "keys/audit-vectors/audit-vectors.signer.json"
    key: str = "keys/first.key"
    anchor: str = ""
    head: str = ""
    first: int = 1
    tail: bytes = b"\n"

    def encode(self) -> bytes:
        """The file: header lines, an empty line, the segment."""
        header = {
            "expect": self.expect, "code": str(int(CODES[self.expect])), "step": self.step,
            "record": str(self.record), "byte": str(self.byte) if self.step else "",
            "signer": self.signer, "key": self.key, "anchor": self.anchor, "head": self.head,
            "first": str(self.first), "comment": self.comment,
        }  # fmt: skip
        text = "".join(f"{key}: {value}\n" for key, value in header.items() if value)
        return text.encode("ascii") + b"\n" + b"\n".join(self.lines) + self.tail


def read_vector(path: Path) -> tuple[dict[str, str], bytes]:
    """Header and segment of a vector file."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    with reading(path):
        return dict(line.split(": ", 1) for line in head.decode("ascii").split("\n")), body


@dataclass
class Forge:
    """Writes a log as the format says, under a clock of its own."""

    sign: Callable[[Checkpoint], bytes]
    state: LogState
    key: AuditKey = FIRST_KEY
    now: Times = BEGAN
    lines: Lines = field(default_factory=list)
    envelopes: list[bytes] = field(default_factory=list)

    def tick(self, seconds: int) -> None:
        """Let both clocks go on."""
        self.now = replace(
            self.now,
            t_utc=self.now.t_utc + seconds * 1_000_000,
            t_boot_ns=self.now.t_boot_ns + seconds * 1_000_000_000,
        )

    def add(self, *events: AuditEvent) -> None:
        """Records, a second after each other."""
        for event in events:
            self.tick(1)
            self.lines += self.state.write((event,), self.now, MacKey(self.key.key))

    def end_epoch(self) -> None:
        """The epoch's last record, and the checkpoint it asks for."""
        end = self.state.next_end(PACE, signs=False)
        self.add(end.event())
        self.state.end_epoch(end, self.now)
        self.key = self.key.next()
        if self.state.owed is not None:
            owed, self.state.owed = self.state.owed, None
            self.envelopes.append(self.sign(owed))
            event = AuditEvent(checkpoint_fields(self.envelopes[-1], owed.epoch))
            self.lines += self.state.write((event,), self.now, MacKey(self.key.key))


@functools.cache
def true_log(folder: Path) -> Forge:
    """14 records: a busy epoch, one of a single request, two quiet ones, and an open request."""
    forge = Forge(functools.partial(_sign, folder), new_log(LOG_ID, PACE, Times(0, 0, BOOT)))
    forge.state.epoch.began = forge.now
    forge.add(forge.state.segment_event(), own_event("start", unit="auditd", version="1", pid=7))
    forge.add(_event("request", "r1", model="demo", params={"max_tokens": 16, "top_k": 40}))
    forge.add(_event("response", "r1", status=200, tokens_in=3, tokens_out=5, error=None))
    forge.end_epoch()
    forge.tick(300)
    forge.add(_event("request", "r2", model=STRANGE, note="x" * 2000))
    forge.add(_event("response", "r2", status=502, error="engine_failed", aborted=True))
    forge.end_epoch()
    for _ in range(2):
        forge.tick(300)
        forge.end_epoch()
    forge.add(_event("request", "r3", model="demo"))
    forge.add(own_event("orphaned", unit="auditd", request_id="r3", reason="the gateway left"))
    assert forge.state.seq == len(forge.lines) == RECORDS
    return forge


RECORDS: Final = 14
EPOCHS: Final = {0: 5, 1: 9, 2: 11, 3: 12}
"""The record that ends each epoch."""


@functools.cache
def later_log(folder: Path) -> Forge:
    """What follows in a segment of its own, once the first one was removed."""
    forge = Forge(functools.partial(_sign, folder), new_log(LOG_ID, PACE, Times(0, 0, BOOT)))
    true = true_log(folder)
    forge.state = LogState(
        LOG_ID, RECORDS, true.state.chain, true.state.tree.copy(), replace(true.state.epoch)
    )
    forge.now, forge.key = true.now, true.key
    forge.add(forge.state.segment_event())
    forge.add(_removal(true.state.chain.hex()))
    forge.end_epoch()
    return forge


def _removal(chain: str) -> AuditEvent:
    return check_event({
        "type": "retention", "first": 1, "last": RECORDS, "chain": chain, "segments": 1,
        "bytes": 9000, "exported_to": RECORDS, "forced": False, "reason": "", "actor": "uid 0",
    })  # fmt: skip


def _event(kind: str, request: str, **fields: Any) -> AuditEvent:
    return check_event({"type": kind, "unit": "gateway", "request_id": request, **fields})


def _sign(folder: Path, checkpoint: Checkpoint) -> bytes:
    """The envelope that a present vector holds, or a new one."""
    keys = folder / "keys/audit-vectors"
    half = verify_hybrid_key((keys / "audit-vectors.signer.json").read_bytes())
    for envelope in _present_envelopes(folder):
        try:
            if verify_checkpoint(envelope, half).value == checkpoint:
                return envelope
        except EdgekitError:
            continue
    payload = encode_checkpoint(checkpoint)
    signatures = load_signer(f"file:{keys}").sign(payload, CHECKPOINT_TYPE)
    return encode_envelope(payload, signatures, CHECKPOINT_TYPE)


@functools.cache
def _present_envelopes(folder: Path) -> tuple[bytes, ...]:
    found = []
    for path in sorted(folder.glob("intact*.txt")):
        with reading(path):
            found += [
                encode_canonical(json.loads(line)["envelope"])
                for line in read_vector(path)[1].split(b"\n")
                if b'"type":"checkpoint"' in line
            ]
    return tuple(found)


def relinked(lines: Lines, start: int, key: bytes | None) -> Lines:
    """Lines from index `start` on, chained anew; sealed with `key`, or as each epoch's would."""
    state = new_log(LOG_ID, PACE, Times(0, 0, BOOT))
    epoch, made = FIRST_KEY, []
    for index, line in enumerate(lines):
        record = json.loads(line)
        if index >= start:
            when = Times(record["t_utc"], record["t_boot_ns"], record["boot_id"])
            own = ("seq", "prev", "t_utc", "t_boot_ns", "boot_id", "~mac")
            event = AuditEvent({k: v for k, v in record.items() if k not in own})
            mac = MacKey(epoch.key if key is None else key)
            made += state.write((event,), when, mac)
        else:
            state.advance(line)
            made.append(line)
        if record["type"] == "epoch":
            epoch = epoch.next()
    return made


def vectors(folder: Path) -> Iterator[Vector]:
    """Every case."""
    true, later = true_log(folder), later_log(folder)
    lines, last = true.lines, true.state
    head = f"{RECORDS} {last.chain.hex()}"
    anchor = "keys/anchor.checkpoint"

    def good(name: str, comment: str, expect: str = "intact", **more: Any) -> Vector:
        return Vector(name, expect, "", comment, lines, RECORDS, **more)

    def bad(
        name: str, expect: str, step: str, comment: str, edit: Edit, record: int, **more: Any
    ) -> Vector:
        made = list(lines)
        edit(made)
        where = _offsets(made)
        byte = where[record - 1] if record <= len(made) else where[-1]
        return Vector(name, expect, step, comment, made, record, byte, **more)

    yield good("intact", "everything an auditor could bring", head=head, anchor="")
    yield good("intact-signer-alone", "the last 5 records are signed by nobody", "unvouched",
               key="")
    yield good("intact-nothing-brought", "the chain alone", "unvouched", signer="", key="")
    yield good("intact-after-an-anchor", "5 records came after the anchor", "unvouched",
               anchor=anchor)
    yield good("intact-key-of-epoch-2", "MACs are checked from that epoch on", key="keys/third.key")
    yield Vector("intact-later-segment", "intact", "", "the first segment was removed, recorded",
                 later.lines, later.state.seq, first=RECORDS + 1, key="keys/fifth.key")

    def field_of(record: int, old: bytes, new: bytes) -> Edit:
        def edit(made: Lines) -> None:
            assert old in made[record - 1]
            made[record - 1] = made[record - 1].replace(old, new)

        return edit

    yield bad("altered-field", "altered", "A3", "a status is changed, same length",
              field_of(4, b'"status":200', b'"status":500'), 4)
    yield bad("altered-field-no-key", "altered", "A2", "the same, seen by the next record's prev",
              field_of(4, b'"status":200', b'"status":500'), 4, key="")
    yield bad("altered-newest", "altered", "A3", "the newest record is changed",
              field_of(14, b"the gateway left", b"the gateway fled"), 14)
    yield bad("altered-newest-head", "altered", "A6", "the same without the key: the head knows",
              field_of(14, b"the gateway left", b"the gateway fled"), 14, key="", head=head)
    yield bad("altered-mac", "altered", "A3", "a digit of a MAC is changed", _change_mac(3), 3)
    yield bad("altered-number", "altered", "A2", "a record says it is another",
              field_of(4, b'"seq":4,', b'"seq":5,'), 4)
    yield bad("altered-white-space", "altered", "A2", "a blank that canonical JSON has not",
              field_of(3, b'"seq":3,', b'"seq": 3,'), 3)
    yield bad("altered-other-log", "altered", "A1", "a key of another log is brought",
              _untouched, 1, key="keys/other.key")
    yield bad("missing-record", "missing", "A2", "record 7 is removed",
              lambda made: made.pop(6), 7)
    yield bad("missing-order", "missing", "A2", "records 7 and 8 are swapped",
              lambda made: made.insert(6, made.pop(7)), 7)
    yield bad("missing-twice", "missing", "A2", "record 4 stands there twice",
              lambda made: made.insert(3, made[3]), 5)
    yield bad("missing-start", "missing", "A1", "the first three records are removed",
              lambda made: made.__delitem__(slice(0, 3)), 1)
    yield replace(
        bad("missing-segment", "missing", "A1", "a later segment where the first should be",
            lambda made: made.__setitem__(slice(None), later.lines), 1), key="keys/fifth.key")
    yield bad("truncated-head", "truncated", "A8", "the last record is gone; the head knows",
              lambda made: made.pop(), 14, head=head)
    yield bad("truncated-anchor", "truncated", "A8", "cut before the anchor's record",
              lambda made: made.__delitem__(slice(7, None)), 8, anchor=anchor)
    yield bad("truncated-all", "truncated", "A8", "no records at all",
              lambda made: made.clear(), 1, head=head, tail=b"")
    yield bad("format-not-json", "format", "A2", "a line is no JSON",
              lambda made: made.__setitem__(3, made[3][:-20]), 4)
    yield bad("format-empty-line", "format", "A2", "an empty line", lambda m: m.insert(6, b""), 7)
    yield bad("format-zeros", "format", "A2", "a block of zeros, as a crash leaves it",
              lambda made: made.append(bytes(64)), 15)
    yield bad("format-no-mac", "format", "A2", "a record without ~mac",
              lambda made: made.__setitem__(3, made[3][:-107] + b"}"), 4)
    yield bad("key-rewritten", "key", "A3", "from record 7 on sealed and chained by a stranger",
              lambda m: m.__setitem__(slice(None), relinked(m, 6, bytes(48))), 7)
    yield bad("key-of-another-epoch", "key", "A3", "record 7 is sealed with the first epoch's key",
              lambda m: m.__setitem__(slice(None), relinked(m, 6, FIRST_KEY.key)), 7)
    yield bad("seal-heartbeat-missing", "seal", "A7", "an epoch's end is removed, all else redone",
              lambda m: (m.pop(10), m.__setitem__(slice(None), relinked(m, 10, None))), 11,
              key="")
    yield bad("seal-checkpoint-missing", "seal", "A7", "a checkpoint is removed, all else redone",
              lambda m: (m.pop(9), m.__setitem__(slice(None), relinked(m, 9, None))), 10,
              key="")
    yield bad("checkpoint-root", "checkpoint", "A5", "record 7 and all after it redone without the "
              "key; the signed root does not fit",
              lambda m: m.__setitem__(slice(None), _redone(m)), 10, key="")
    yield bad("checkpoint-signature", "checkpoint", "A5", "a checkpoint of another signer",
              lambda m: m.__setitem__(slice(None), _by_a_stranger(m)), 6, key="")
    yield bad("checkpoint-anchor", "checkpoint", "A6", "the anchor is another log's, same number",
              _untouched, 9, anchor="keys/other.checkpoint")


def _offsets(lines: Lines) -> list[int]:
    """The byte at which each line begins, and that after the last."""
    found = [0]
    for line in lines:
        found.append(found[-1] + len(line) + 1)
    return found


def _untouched(_lines: Lines) -> None:
    pass


def _change_mac(record: int) -> Edit:
    def edit(made: Lines) -> None:
        line = made[record - 1]
        digit = b"0" if line[-3:-2] != b"0" else b"1"
        made[record - 1] = line[:-3] + digit + line[-2:]

    return edit


def _redone(lines: Lines) -> Lines:
    """What an attacker without the MAC key can do: edit, then chain anew under any MAC."""
    lines[6] = lines[6].replace(b'"r2"', b'"r9"')
    return relinked(lines, 6, bytes(48))


def _by_a_stranger(lines: Lines) -> Lines:
    """The first checkpoint's signatures exchanged for those of the second."""
    first, second = json.loads(lines[5]), json.loads(lines[9])
    first["envelope"]["signatures"] = second["envelope"]["signatures"]
    lines[5] = encode_canonical(first)
    return relinked(lines, 5, bytes(48))


def files(folder: Path) -> dict[str, bytes]:
    """Every generated file by its path below `folder`."""
    true_log.cache_clear()
    later_log.cache_clear()
    _present_envelopes.cache_clear()
    found = {f"{vector.name}.txt": vector.encode() for vector in vectors(folder)}
    found["keys/first.key"] = encode_audit_key(FIRST_KEY)
    found["keys/third.key"] = encode_audit_key(FIRST_KEY.at(2))
    found["keys/fifth.key"] = encode_audit_key(FIRST_KEY.at(4))
    found["keys/other.key"] = encode_audit_key(AuditKey("0b" * 16, 0, FIRST_KEY.key))
    anchor = true_log(folder).envelopes[1]
    found["keys/anchor.checkpoint"] = anchor
    other = replace(unsafe_read_checkpoint(anchor), root=bytes(48))
    present = folder / "keys/other.checkpoint"
    half = verify_hybrid_key((folder / "keys/audit-vectors/audit-vectors.signer.json").read_bytes())
    if present.exists() and verify_checkpoint(present.read_bytes(), half).value == other:
        found["keys/other.checkpoint"] = present.read_bytes()
    else:
        found["keys/other.checkpoint"] = _sign(folder, other)
    return found


def check(folder: Path) -> list[str]:
    """Paths of files that differ from what would be written, are missing or are left over."""
    return differences(folder, files(folder), "*.txt", "keys/*[yt]")


def main() -> int:
    """Write or check the vectors; 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description="write the test vectors of audit log format 1")
    parser.add_argument("--check", action="store_true", help="write nothing, report differences")
    if parser.parse_args().check:
        try:
            different = check(FOLDER)
        except BrokenVectorError as error:
            print(error)
            return 1
        print("".join(f"{name} is not what this writes\n" for name in different), end="")
        return 1 if different else 0
    if not (FOLDER / "keys/audit-vectors").exists():
        create_signer(FOLDER / "keys/audit-vectors")
    for name, data in files(FOLDER).items():
        (FOLDER / name).write_bytes(data)
    print(f"{len(list(FOLDER.glob('*.txt')))} vectors in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
