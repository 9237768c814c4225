"""What is wrong with a set on its medium, in words a courier can act on. Pure.

Facts go in: the files that must be there (`Wanted`), what lies there (`Seen`), what did not read
as it should (`Flaw`). Findings come out, sorted by file and block, each one line for people and one
table for JSON. Nothing here decides whom to trust.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgekit.core import set_files
from edgekit.core.digest import Digest
from edgekit.core.release import Manifest, VolumeTable
from edgekit.exit_codes import ExitCode

MAX_NAMED_ENTRIES = 2
"""How many paths a line names before it says `and N more`; JSON has them all."""

TEMPORARY_PATTERN = re.compile(r"(?P<folder>(?:trust|attest)/)?\.(?P<name>.+)\.tmp")
"""What an interrupted `media write` leaves: `.NAME.tmp` beside NAME's place."""


class Kind(StrEnum):
    """The kinds of finding. `ELSEWHERE` alone is no problem."""

    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    MISSING = "missing"
    TRUNCATED = "truncated"
    GROWN = "grown"
    DUPLICATE = "duplicate"
    FOREIGN = "foreign"
    UNFINISHED = "unfinished"
    NOT_A_FILE = "not-a-file"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `words` say what, `hint` what to do; both are parts of one line.

    `folder` is where the file lies, empty when it does not. `block` counts from 0, `first` and
    `last` are bytes of the file, inclusive; None when the finding is about the whole file.
    `entries` are the manifest's paths that the finding hits.
    """

    kind: Kind
    file: str
    words: str
    hint: str = ""
    folder: str = ""
    block: int | None = None
    first: int | None = None
    last: int | None = None
    entries: tuple[str, ...] = ()

    def line(self) -> str:
        """The finding in one line."""
        return f"{self.words}; {self.hint}" if self.hint else self.words

    def table(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return {
            "kind": str(self.kind),
            "file": printable(self.file),
            "folder": printable(self.folder),
            "words": self.words,
            "hint": self.hint,
            "block": self.block,
            "bytes": None if self.first is None else [self.first, self.last],
            "entries": list(self.entries),
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file the set must have. `size` in bytes and `digest` of the whole file are None when nobody
    says. `volume` is its index in the volume table; None for other files and without a table."""

    name: str
    size: int | None = None
    digest: Digest | None = None
    volume: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """A file on a medium: the folder it was found in, its size, None if it is no regular file."""

    folder: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies in the folders: copies by name within the set, and names that no set has."""

    copies: Mapping[str, tuple[Copy, ...]]
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flaw:
    """Bytes `first` to `last` of a file are not what they must be.

    `problem` is what the system said when they could not be read at all, else empty. `block` and
    the range are None when only the whole file could be judged.
    """

    name: str
    folder: str
    block: int | None = None
    first: int | None = None
    last: int | None = None
    problem: str = ""


class Contents:
    """Which entries of a manifest lie where in the volumes."""

    def __init__(self, table: VolumeTable, manifest: Manifest) -> None:
        paths: dict[Digest, list[str]] = {}
        for entry in manifest.entries:
            paths.setdefault(entry.digest, []).append(str(entry.path))
        self.table = table
        self.manifest = manifest
        self._runs: list[list[tuple[int, list[str]]]] = [[] for _ in table.volumes]
        for digest, extents in table.blobs:
            for extent in extents:
                self._runs[extent.volume].append((extent.offset, paths.get(digest, [])))
        for runs in self._runs:
            runs.sort(key=lambda run: run[0])

    def entries_in(self, volume: int, first: int, last: int) -> tuple[str, ...]:
        """Paths of the entries with a byte in `first` to `last` of a volume, in medium order.

        A volume has no gaps (VolumeTable checks that), so a run ends where the next one begins.
        """
        runs = self._runs[volume]
        start = bisect.bisect_right(runs, first, key=lambda run: run[0]) - 1
        found: list[str] = []
        for offset, paths in runs[max(start, 0) :]:
            if offset > last:
                break
            found += paths
        return tuple(dict.fromkeys(found))


def list_findings(
    wanted: Sequence[Wanted],
    seen: Seen,
    flaws: Iterable[Flaw],
    contents: Contents | None,
    *,
    partial: bool = False,
) -> tuple[Finding, ...]:
    """Everything that is wrong, sorted by file, folder and block.

    With `partial` the folders are some sticks of many: absent volumes are `ELSEWHERE`.
    """
    by_name = {file.name: file for file in wanted}
    several = len({copy.folder for copies in seen.copies.values() for copy in copies}) > 1
    found: list[Finding] = []
    for file in wanted:
        copies = seen.copies.get(file.name, ())
        found += _presence(file, copies, contents, partial=partial, several=several)
    for name in sorted(set(seen.copies) - set(by_name)):
        found += [_foreign(name, copy.folder) for copy in seen.copies[name]]
    found += [_outsider(path) for path in seen.foreign]
    found += [_flaw(by_name[flaw.name], flaw, contents, several=several) for flaw in flaws]
    return tuple(sorted(found, key=_order))


def exit_code_of(findings: Iterable[Finding]) -> ExitCode:
    """0 for an intact set, 22 for damage, 13 for what is only missing, foreign or of wrong size."""
    kinds = {finding.kind for finding in findings} - {Kind.ELSEWHERE}
    if kinds & {Kind.DAMAGED, Kind.UNREADABLE}:
        return ExitCode.DIGEST
    return ExitCode.SET_SHAPE if kinds else ExitCode.OK


def files_to_copy(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Names of the files that a fresh copy of would mend, sorted."""
    mended = {Kind.DAMAGED, Kind.UNREADABLE, Kind.MISSING, Kind.TRUNCATED, Kind.GROWN}
    return tuple(sorted({f.file for f in findings if f.kind in mended}))


def is_set_name(name: str) -> bool:
    """True for a name that some file of a set has (bundle-v1 section 4)."""
    return set_files.is_set_file(name)


def is_temporary(name: str) -> bool:
    """True for the name of an unfinished copy of a file of the set."""
    match = TEMPORARY_PATTERN.fullmatch(name)
    return match is not None and is_set_name(f"{match['folder'] or ''}{match['name']}")


def printable(text: str) -> str:
    """A name from a medium, safe to print: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def title(name: str) -> str:
    """What people call a file of the set."""
    return f"volume {name}" if set_files.is_volume(name) else printable(name)


def _order(finding: Finding) -> tuple[bool, str, str, int, str]:
    block = -1 if finding.block is None else finding.block
    elsewhere = finding.kind == Kind.ELSEWHERE
    return elsewhere, finding.file, finding.folder, block, finding.kind


def _presence(
    file: Wanted, copies: Sequence[Copy], contents: Contents | None, *, partial: bool, several: bool
) -> Iterable[Finding]:
    """Findings about how often and how large a file is there."""
    name = file.name
    if not copies:
        yield _absent(file, contents, partial=partial)
        return
    if len(copies) > 1 and set_files.is_volume(name):
        places = ", ".join(printable(copy.folder) for copy in copies)
        yield Finding(
            Kind.DUPLICATE,
            name,
            f"{title(name)} is there {len(copies)} times: {places}",
            "give only one folder that has it",
        )
    for copy in copies:
        if copy.size is None:
            yield Finding(
                Kind.NOT_A_FILE,
                name,
                f"{title(name)} is a folder or a link, not a file{_on(copy.folder, several)}",
                f"copy {name} again",
                copy.folder,
            )
        elif file.size is not None and copy.size != file.size:
            yield _wrong_size(file, file.size, copy, copy.size, contents, several=several)


def _absent(file: Wanted, contents: Contents | None, *, partial: bool) -> Finding:
    entries = _entries(file, 0, (file.size or 1) - 1, contents)
    if partial and set_files.is_volume(file.name):
        words = f"{title(file.name)} is not on this stick"
        return Finding(Kind.ELSEWHERE, file.name, words, entries=entries)
    words = f"{title(file.name)} is missing{_part_of(entries, ', with ')}"
    hint = f"copy {file.name} from the packager's set"
    if set_files.is_volume(file.name):
        hint += ", or add --one-of-many if it lies on another stick"
    return Finding(Kind.MISSING, file.name, words, hint, entries=entries)


def _wrong_size(
    file: Wanted, size: int, copy: Copy, found: int, contents: Contents | None, *, several: bool
) -> Finding:
    short = found < size
    entries = _entries(file, found, size - 1, contents) if short else ()
    words = (
        f"{title(file.name)} is too {'short' if short else 'long'}{_on(copy.folder, several)}: "
        f"{found} bytes instead of {size}{_part_of(entries, ', cut off in ')}"
    )
    return Finding(
        Kind.TRUNCATED if short else Kind.GROWN,
        file.name,
        words,
        f"copy {file.name} again",
        copy.folder,
        first=min(found, size),
        last=max(found, size) - 1,
        entries=entries,
    )


def _foreign(name: str, folder: str) -> Finding:
    words = f"{title(name)} belongs to another set"
    return Finding(Kind.FOREIGN, name, words, f"move it out of {printable(folder)}", folder)


def _outsider(path: str) -> Finding:
    """A file whose name no set has; `path` is relative to its folder's parent or absolute."""
    folder, _, name = path.rpartition("/")
    below = f"{folder.rpartition('/')[2]}/{name}"
    if is_temporary(name) or is_temporary(below):
        words = f"{printable(name)} is an unfinished copy"
        hint = "run edgekit media write again, or delete it"
        return Finding(Kind.UNFINISHED, name, words, hint, folder)
    words = f"{printable(name)} does not belong to this set"
    return Finding(Kind.FOREIGN, name, words, f"move it out of {printable(folder)}", folder)


def _flaw(file: Wanted, flaw: Flaw, contents: Contents | None, *, several: bool) -> Finding:
    last = (file.size or 1) - 1 if flaw.last is None else flaw.last
    entries = _entries(file, flaw.first or 0, last, contents)
    place = ""
    if flaw.block is not None:
        place = f": block {flaw.block} (bytes {flaw.first} to {flaw.last})"
    on = _on(flaw.folder, several)
    verb, hint = "is damaged", f"copy {file.name} again"
    if flaw.problem:
        verb, hint = f"cannot be read ({flaw.problem})", f"copy {file.name} to another stick"
    return Finding(
        Kind.UNREADABLE if flaw.problem else Kind.DAMAGED,
        file.name,
        f"{title(file.name)} {verb}{on}{place}{_part_of(entries, ', part of ')}",
        hint,
        flaw.folder,
        flaw.block,
        flaw.first,
        flaw.last,
        entries,
    )


def _entries(file: Wanted, first: int, last: int, contents: Contents | None) -> tuple[str, ...]:
    if contents is None or file.volume is None:
        return ()
    return contents.entries_in(file.volume, first, last)


def _on(folder: str, several: bool) -> str:
    return f" in {printable(folder)}" if several else ""


def _part_of(entries: tuple[str, ...], lead: str) -> str:
    if not entries:
        return ""
    named, more = entries[:MAX_NAMED_ENTRIES], len(entries) - MAX_NAMED_ENTRIES
    return f"{lead}{', '.join(named)}" + (f" and {more} more" if more > 0 else "")
