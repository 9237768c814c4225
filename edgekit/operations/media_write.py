"""`edgekit media write`: a set onto a medium, read back from there before it is called done."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.core import findings, set_files
from edgekit.core.digest import Digest, new_hasher
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.findings import Contents, Kind, Seen, Wanted
from edgekit.core.release import BLOCK_BYTES
from edgekit.errors import (
    DigestError,
    EdgekitError,
    HostError,
    InsufficientError,
    PrivilegeError,
    SetShapeError,
)
from edgekit.operations.verify import Trusting
from edgekit.operations.vouch import Vouched, copies_to_read, look_at, readable_copies, vouch
from edgekit.system.block_reader import MediumReader, OpenReader
from edgekit.system.files import free_bytes, fsync_directory, translate_os_error
from edgekit.system.medium import CopyChecker, reason_of
from edgekit.system.volumes import hash_view

SYNC_BYTES = 64 << 20
"""Written bytes after which the stick is waited for, so that progress is true and Ctrl-C quick."""

FAT_MAX_FILE_BYTES = (4 << 30) - 1


@dataclass(frozen=True, slots=True)
class Written:
    """A receipt: the set's folder on the stick, what was copied and what was there already.

    `read_back` are the bytes compared with the table, read from the stick.
    """

    folder: Path
    copied: tuple[str, ...]
    kept: tuple[str, ...]
    read_back: int
    signers: tuple[str, ...] | None

    def table(self) -> dict[str, Any]:
        """The receipt as plain JSON values (`edgekit.media-write/1`)."""
        return {
            "schema": "edgekit.media-write/1",
            "folder": str(self.folder),
            "copied": list(self.copied),
            "already_there": list(self.kept),
            "bytes_read_back": self.read_back,
            "signatures_checked": self.signers is not None,
            "signed_by": list(self.signers or ()),
            "safe_to_remove": True,
        }


def parse_volume_numbers(text: str) -> frozenset[int]:
    """`1-3,5` to {1, 2, 3, 5}. Raises ValueError."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high:
            raise ValueError(f"no volume numbers: {text!r}")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def write_media(
    folders: tuple[Path, ...],
    destination: Path,
    numbers: frozenset[int] | None,
    trusting: Trusting | None,
    listener: Listener,
    *,
    open_reader: OpenReader = MediumReader,
) -> Written:
    """Copy a set, or these volumes of it, into `destination/NAME-VERSION/` and prove it is there.

    Files go one by one (temporary file, write, fsync, rename, fsync of the folder), `release.json`
    last. When all are written, all are read again from the stick: a stick that claims more room
    than it has shows only then. Files already there and equal are kept, so an interrupted run is
    resumed. Nothing is deleted but what an earlier run left unfinished. Raises SetShapeError,
    DigestError, InsufficientError, DiskFullError, PrivilegeError, HostError and what `check_media`
    raises.
    """
    seen = look_at(folders)
    vouched = vouch(folders, seen, trusting)
    files = _selected(seen, vouched, numbers)
    folder = _check_destination(destination, vouched, files)
    checker = CopyChecker(vouched.contents, listener, open_reader)
    kept = _already_there(folder, files, checker)
    jobs = [file for file in files if file.name not in kept]
    _check_room(destination, folder, jobs)
    _prepare(folder)
    _copy_all(seen, vouched.contents, folder, jobs, listener)
    if jobs:
        _read_back(folder, vouched, files, checker)
    return Written(
        folder,
        tuple(file.name for file in jobs),
        tuple(sorted(kept)),
        sum(file.size or 0 for file in files),
        vouched.signers,
    )


def _selected(seen: Seen, vouched: Vouched, numbers: frozenset[int] | None) -> list[Wanted]:
    """The files to write in the order to write them, each with its size and digest.

    SHA384SUMS goes first, as the mark whose folder it is, and release.json last, because without it
    no host takes the folder for a set. Raises when the set copied from is not whole.
    """
    contents = vouched.contents
    count = len(contents.table.volumes) if contents else 0
    if contents is not None and numbers is not None and max(numbers) > count:
        raise SetShapeError(
            f"the set has no volume {max(numbers)}", needed=f"--volumes from 1 to {count}"
        )
    chosen = [
        file
        for file in vouched.wanted
        if file.volume is None or numbers is None or file.volume + 1 in numbers
    ]
    harmless = {Kind.FOREIGN, Kind.UNFINISHED, Kind.DUPLICATE}
    found = findings.list_findings(chosen, seen, vouched.flaws, contents)
    bad = [finding for finding in found if finding.kind not in harmless]
    if bad or contents is None:
        raise SetShapeError(
            "the set to copy is not whole",
            found="\n".join(f.words for f in bad[:5]) or "a document that describes it is damaged",
            hint="edgekit media check SET",
        )
    order = {set_files.SUMS: 0, set_files.SUMS_SIGNATURE: 1, set_files.RELEASE: 4}
    return sorted(
        (_exact(file, seen) for file in chosen),
        key=lambda file: (order.get(file.name, 2 if file.volume is None else 3), file.name),
    )


def _exact(file: Wanted, seen: Seen) -> Wanted:
    """The file with size and digest; where nobody says them, those of the copy to write."""
    size = seen.copies[file.name][0].size
    if file.digest is not None:
        return replace(file, size=size)
    _, data = readable_copies(seen, file.name)[0]
    return replace(file, size=size, digest=Digest.of(data))


def _check_destination(destination: Path, vouched: Vouched, files: list[Wanted]) -> Path:
    """The set's folder on the stick: absent, empty, or with files of this very set in it.

    Changes nothing. Raises HostError, PrivilegeError, and SetShapeError when something else lies
    there.
    """
    if not destination.is_dir():
        raise HostError(
            "there is no such folder", where=str(destination), hint="is the stick mounted there?"
        )
    if os.statvfs(destination).f_flag & os.ST_RDONLY:
        raise _stick_error(OSError(errno.EROFS, os.strerror(errno.EROFS)), destination)
    _check_file_system(destination, files)
    folder = destination / vouched.name
    if folder.exists():
        _check_owner(folder, look_at((folder,)), vouched, files)
    return folder


def _prepare(folder: Path) -> None:
    """Make the set's folder, and remove what an interrupted run left in it."""
    try:
        (folder / set_files.TRUST).mkdir(parents=True, exist_ok=True)
        for path in map(Path, look_at((folder,)).foreign):
            path.unlink()  # nothing but unfinished copies, see _check_owner
    except OSError as error:
        raise _stick_error(error, folder) from error


def _check_owner(folder: Path, seen: Seen, vouched: Vouched, files: list[Wanted]) -> None:
    """Refuse a folder with files of another set, or with files of no set. Reads small files."""
    found = findings.list_findings(vouched.wanted, seen, (), vouched.contents, partial=True)
    foreign = [f for f in found if f.kind in (Kind.FOREIGN, Kind.NOT_A_FILE)]
    if foreign:
        raise SetShapeError(
            "the folder on the stick holds something that does not belong to the set",
            where=str(folder),
            found=", ".join(findings.printable(finding.file) for finding in foreign[:5]),
            hint="move it away, or write to another stick",
        )
    marks = {f.name: f.digest for f in files if f.name in (set_files.RELEASE, set_files.SUMS)}
    ours = any(
        Digest.of(data) == digest
        for name, digest in marks.items()
        for _, data in readable_copies(seen, name)
    )
    if seen.copies and not ours:
        raise SetShapeError(
            "another set of the same name and version lies on the stick",
            where=str(folder),
            hint="move it away, or write to another stick",
        )


def _check_file_system(destination: Path, files: list[Wanted]) -> None:
    """Refuse a file system that cannot hold the largest file, or names longer than 8.3."""
    kind = _file_system(destination)
    largest = max(files, key=lambda file: file.size or 0)
    if kind == "msdos":
        raise HostError(
            "the stick is mounted with short names only",
            where=str(destination),
            hint="mount it with -t vfat",
        )
    if kind == "vfat" and (largest.size or 0) > FAT_MAX_FILE_BYTES:
        raise HostError(
            f"{largest.name} is too large for a FAT32 stick",
            needed=f"{largest.size} bytes",
            hint="format the stick with exFAT or ext4",
        )


def _file_system(path: Path) -> str:
    """The type of the file system a path lies on, as Linux calls it; empty when it does not say."""
    device = path.stat().st_dev
    mine = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
        left, _, right = line.partition(" - ")
        if left.split(" ")[2] == mine:
            return right.split(" ")[0]
    return ""


def _already_there(folder: Path, files: list[Wanted], checker: CopyChecker) -> frozenset[str]:
    """Names of the files that an earlier run wrote completely; read from the stick."""
    seen = look_at((folder,) if folder.exists() else ())
    same = [(f, c) for f, c in copies_to_read(files, seen) if c.size == f.size]
    if not same:
        return frozenset()
    flawed = {flaw.name for flaw in checker.run("compare", same)}
    return frozenset(file.name for file, _ in same) - flawed


def _check_room(destination: Path, folder: Path, jobs: list[Wanted]) -> None:
    """Refuse before the first byte when the stick is too small, and say what would fit."""
    unit = os.statvfs(destination).f_frsize
    needs = {file.name: -(-(file.size or 0) // unit) * unit for file in jobs}
    replaced = [needs[file.name] for file in jobs if (folder / file.name).exists()]
    old = sum((folder / file.name).stat().st_size for file in jobs if (folder / file.name).exists())
    needed = sum(needs.values()) - old + max(replaced, default=0)
    free = free_bytes(destination)
    if needed <= free:
        return
    room = free - sum(needs[file.name] for file in jobs if file.volume is None)
    fitting = []
    for file in jobs:
        if file.volume is not None and needs[file.name] <= room:
            room -= needs[file.name]
            fitting.append(file.volume + 1)
        elif file.volume is not None:
            break
    hint = "take a larger stick"
    if fitting:
        hint += f", or put part of it here: --volumes {fitting[0]}-{fitting[-1]}"
    raise InsufficientError(
        "the stick is too small",
        where=str(destination),
        needed=f"{needed} bytes",
        found=f"{free} bytes free",
        hint=hint,
    )


def _copy_all(
    seen: Seen, contents: Contents | None, folder: Path, jobs: list[Wanted], listener: Listener
) -> None:
    listener(Started("write", sum(file.size or 0 for file in jobs)))
    with ThreadPoolExecutor(1) as hashing:
        for file in jobs:
            source = Path(seen.copies[file.name][0].folder, file.name)
            target = folder / file.name
            temporary = target.with_name(f".{target.name}.tmp")
            try:
                target.parent.mkdir(exist_ok=True)
                _copy_file(source, temporary, file, _Judge(file, contents, hashing), listener)
                temporary.replace(target)
                fsync_directory(target.parent)
            except BaseException as error:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                if isinstance(error, OSError):
                    raise _stick_error(error, target) from error
                raise
    try:
        fsync_directory(folder.parent)
    except OSError as error:
        raise _stick_error(error, folder) from error
    listener(Finished("write", f"{len(jobs)} files"))


class _Judge:
    """Compares a file with the table while it is copied, each block while it is written."""

    def __init__(
        self, file: Wanted, contents: Contents | None, hashing: ThreadPoolExecutor
    ) -> None:
        assert file.digest is not None
        self._file = file
        self._hashing = hashing
        self._whole = new_hasher(file.digest.algorithm)
        self._table = contents.table if contents and file.volume is not None else None

    def begin(self, number: int, block: bytes) -> Callable[[], None]:
        """Start judging a block; the result raises DigestError when it is not what it must be."""
        if self._table is None or self._file.volume is None:
            return self._hashing.submit(self._whole.update, block).result
        blocks = self._table.volumes[self._file.volume].blocks
        found = self._hashing.submit(hash_view, memoryview(block), self._table.algorithm)
        return lambda: self._agree(number < len(blocks) and found.result() == blocks[number])

    def end(self, size: int) -> None:
        """The file ended after `size` bytes. Raises DigestError."""
        assert self._file.digest is not None
        self._agree(size == self._file.size)
        if self._table is None:
            self._agree(self._whole.hexdigest() == self._file.digest.value)

    def _agree(self, good: bool) -> None:
        if not good:
            raise DigestError(
                f"{findings.title(self._file.name)} is damaged in the set you copy from",
                hint="edgekit media check SET",
            )


def _copy_file(source: Path, target: Path, file: Wanted, judge: _Judge, listener: Listener) -> None:
    """Copy in blocks, judged on the way; on the stick and out of the page cache on return.

    Raises OSError and DigestError; the caller removes `target` then.
    """
    mode = 0o755 if file.name == set_files.INSTALLER else 0o644
    written = 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb", buffering=0) as writing:
        for block in _blocks_of(source):
            agreed = judge.begin(written // BLOCK_BYTES, block)
            view = memoryview(block)
            while view:
                view = view[writing.write(view) or 0 :]
            agreed()
            written += len(block)
            if written % SYNC_BYTES == 0:
                os.fdatasync(descriptor)
            listener(Advanced("write", len(block)))
        judge.end(written)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _blocks_of(path: Path) -> Iterator[bytes]:
    """A file in blocks. Raises HostError or PrivilegeError."""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block
    except OSError as error:
        raise translate_os_error(error, f"reading {path}") from error


def _read_back(folder: Path, vouched: Vouched, files: list[Wanted], checker: CopyChecker) -> None:
    """Read everything of the set on the stick and compare. Raises DigestError naming the files."""
    names = {file.name for file in files}
    wanted = files + [file for file in vouched.wanted if file.name not in names]
    seen = look_at((folder,))
    flaws = checker.run("read back", copies_to_read(wanted, seen))
    found = findings.list_findings(wanted, seen, flaws, vouched.contents, partial=True)
    bad = [f for f in found if f.kind != Kind.ELSEWHERE or f.file in names]
    if bad:
        raise DigestError(
            f"{findings.title(bad[0].file)} was written but does not read back as it must",
            where=str(folder),
            found="\n".join(finding.words for finding in bad[:8]),
            hint="do not carry this stick; write the set to another one",
        )


def _stick_error(error: OSError, path: Path) -> EdgekitError:
    """What an OSError on a stick means for a courier."""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return PrivilegeError(
            "the stick cannot be written to",
            where=str(error.filename or path),
            found=reason_of(error),
            hint="look for a write-protect switch; mount it so that you may write",
        )
    return translate_os_error(error, f"writing {path.name}")
