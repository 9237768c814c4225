"""`python -m tests.fault.damage [--flips N] [--seed S] [--every]`: harm to a set, always located.

A set of five blocks in three volumes is harmed in one place or several, looked at the way a courier
does (`media check`) and the way a host does (`verify`), and mended. Every harm must be named with
volume, block, bytes and the entries it hits, and nothing else may be named. A tally of what was
planned and what fired is printed; fired below planned is a failure.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.findings import Finding, Kind
from edgekit.core.host_layout import HostLayout
from edgekit.core.release import BLOCK_BYTES
from edgekit.errors import DigestError, EdgekitError
from edgekit.operations.media_check import MediaReport, check_media
from edgekit.operations.verify import Trusting, verify_everything, verify_metadata
from edgekit.system.trust_store import TrustStore
from tests.support.sets import RootBuilder, SetBuilder, quiet

ENTRIES: dict[str, bytes] = {
    "documents/small.txt": b"small\n",
    "models/a.bin": b"a" * (2 * BLOCK_BYTES - 6),
    "models/b.bin": b"b" * (BLOCK_BYTES + 1),
    "models/c.bin": b"c" * (BLOCK_BYTES - 1),
    "models/d.bin": b"d" * 4096,
}
SIZES = {"vol-0001.ekv": 2 * BLOCK_BYTES, "vol-0002.ekv": 2 * BLOCK_BYTES, "vol-0003.ekv": 4096}
DOCUMENTS = (
    "README.txt", "SHA384SUMS", "SHA384SUMS.sig", "edgekit", "manifest.json", "release.json",
    "trust/1.root.json", "volumes.json",
)
START = {"documents/small.txt": 0, "models/a.bin": 6, "models/b.bin": 2 * BLOCK_BYTES,
         "models/c.bin": 3 * BLOCK_BYTES + 1, "models/d.bin": 4 * BLOCK_BYTES}
"""Where each entry begins in the concatenation of all volumes: known here, not asked for."""


class Harmed:
    """A set and a host that trusts its signers."""

    def __init__(self, base: Path) -> None:
        self.folder = SetBuilder(entries=dict(ENTRIES), volume_bytes=2 * BLOCK_BYTES).write(
            base / "set")
        self.trusting = Trusting(HostLayout(base / "host"))
        TrustStore(self.trusting.layout.trust).save_root(RootBuilder().trusted())

    def check(self) -> MediaReport:
        return check_media((self.folder,), self.trusting, quiet)

    def verify(self) -> None:
        verify_everything((self.folder,), self.trusting, quiet)


@dataclass
class Tally:
    """How many harms were planned and how many were detected and located."""

    planned: int = 0
    fired: int = 0

    def __str__(self) -> str:
        return f"planned {self.planned}, fired {self.fired}"


def entries_hit(name: str, first: int, last: int) -> tuple[str, ...]:
    """The entries with a byte of a volume in this range, inclusive."""
    base = 2 * BLOCK_BYTES * (int(name[4:8]) - 1)
    return tuple(
        path for path, start in START.items()
        if start <= base + last and base + first < start + len(ENTRIES[path])
    )


# ------------------------------------------------------------------------------------------ flips


def flip_bits(harmed: Harmed, flips: int, seed: str) -> Tally:
    """Flip bits at random places of the volumes, at most one per block at a time."""
    dice = random.Random(seed)
    tally = Tally(planned=flips)
    blocks = [(n, start) for n, size in SIZES.items() for start in range(0, size, BLOCK_BYTES)]
    while flips:
        chosen = dice.sample(blocks, min(flips, dice.randint(1, len(blocks))))
        places = {
            (name, start): start + dice.randrange(min(BLOCK_BYTES, SIZES[name] - start))
            for name, start in chosen
        }
        bit = 1 << dice.randrange(8)
        _flip(harmed.folder, places, bit)
        try:
            tally.fired += _located(harmed, places)
        finally:
            _flip(harmed.folder, places, bit)
        flips -= len(chosen)
    harmed.verify()
    return tally


def _flip(folder: Path, places: dict[tuple[str, int], int], bit: int) -> None:
    for (name, _), offset in places.items():
        with (folder / name).open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ bit]))


def _located(harmed: Harmed, places: dict[tuple[str, int], int]) -> int:
    """How many of the flipped bits were named by the check, if the host refuses the set too."""
    wanted = {
        (Kind.DAMAGED, name, start // BLOCK_BYTES, start, end,
         entries_hit(name, start, end))
        for name, start in places
        for end in [min(start + BLOCK_BYTES, SIZES[name]) - 1]
    }
    found = {_place(finding) for finding in harmed.check().findings}
    try:
        harmed.verify()
    except DigestError as error:
        name, start = min(places)
        is_first = f"block {start // BLOCK_BYTES}, bytes {start} to " in (error.where or "")
        if error.message == f"volume {name} is damaged" and is_first and found == wanted:
            return len(wanted)
    return 0


def _place(finding: Finding) -> tuple[object, ...]:
    return (finding.kind, finding.file, finding.block, finding.first, finding.last,
            finding.entries)


# -------------------------------------------------------------------------------------- truncation


def cut_volumes(harmed: Harmed) -> Tally:
    """Cut every volume one byte before, at and after every block's edge, and at its ends."""
    tally = Tally()
    for name, size in SIZES.items():
        edges = (*range(0, size, BLOCK_BYTES), size)
        lengths = {edge + step for edge in edges for step in (-1, 0, 1)}
        for length in sorted(length for length in lengths if 0 <= length < size):
            tally.planned += 1
            with _cut(harmed.folder / name, length):
                tally.fired += _cut_is_located(harmed, name, length)
    harmed.verify()
    return tally


def _cut_is_located(harmed: Harmed, name: str, length: int) -> bool:
    (finding, *others) = harmed.check().findings
    lost = entries_hit(name, length, SIZES[name] - 1)
    text = f"{length} bytes instead of {SIZES[name]}"
    try:
        harmed.verify()
    except EdgekitError as error:
        named = name in f"{error.message} {error.where}" and str(length) in (error.found or "")
        return (
            named and not others and text in finding.words
            and (finding.kind, finding.file, finding.entries) == (Kind.TRUNCATED, name, lost)
        )
    return False


def cut_documents(harmed: Harmed, step: int) -> Tally:
    """Cut every small file at every `step`th byte; each must be named by check and host."""
    tally = Tally()
    for name in DOCUMENTS:
        path = harmed.folder / name
        good = path.read_bytes()
        for length in sorted({*range(0, len(good), step), len(good) - 1}):
            tally.planned += 1
            path.write_bytes(good[:length])
            tally.fired += _document_is_named(harmed, name)
        path.write_bytes(good)
    harmed.verify()
    return tally


def _document_is_named(harmed: Harmed, name: str) -> bool:
    try:
        verify_metadata((harmed.folder,), harmed.trusting)
    except EdgekitError as error:
        said = (error.message, error.where, error.found)
        return {_first_named(text) for text in said if text} - {None} == {name}
    return False


def _first_named(text: str) -> str | None:
    """The first file of a set in a text, as a whole word or the end of a path."""
    words = re.findall(r"[\w./-]+", text)
    return next((name for word in words for name in DOCUMENTS
                 if f"/{word}".endswith(f"/{name}")), None)


@contextmanager
def _cut(path: Path, length: int) -> Iterator[None]:
    with path.open("rb") as file:
        file.seek(length)
        lost = file.read()
    with path.open("r+b") as file:
        file.truncate(length)
    try:
        yield
    finally:
        with path.open("ab") as file:
            file.write(lost)


def main(argv: Iterable[str] | None = None) -> int:
    """Harm a set in every planned way; 0 when all of it was detected and located."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.damage", description=__doc__)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--step", type=int, default=1, help="cut documents at every so many bytes")
    options = parser.parse_args(None if argv is None else list(argv))
    tallies = {}
    with tempfile.TemporaryDirectory() as base:
        harmed = Harmed(Path(base))
        for what, tally in (
            ("payload bit flips", lambda: flip_bits(harmed, options.flips, options.seed)),
            ("volumes cut at block edges", lambda: cut_volumes(harmed)),
            ("documents cut", lambda: cut_documents(harmed, options.step)),
        ):
            tallies[what] = tally()
            print(f"{what}: {tallies[what]}", flush=True)
    return int(any(tally.fired != tally.planned for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
