"""`edgekit media check` and `edgekit media write`: what is wrong with a set on its medium, and
putting a set on a medium so that nothing is.

`verify` answers whether a host may believe a set and stops at the first problem. A courier asks
something else: which files must be copied again. So `check_media` goes on to the end, needs no
trusted root (and says so when it had none), and cares neither about the host's floor nor about
where the other sticks are. Both operations read past the page cache: what counts is the medium.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import mmap
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial as bind
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgekit.core import findings, set_files, trust
from edgekit.core.digest import Digest, new_hasher
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.findings import Contents, Copy, Finding, Flaw, Kind, Seen, Wanted
from edgekit.core.release import BLOCK_BYTES, parse_manifest, parse_volume_table
from edgekit.core.sshsig import verify_ssh
from edgekit.errors import (
    DigestError,
    EdgekitError,
    FormatError,
    HostError,
    InsufficientError,
    PrivilegeError,
    SetShapeError,
    SignatureError,
)
from edgekit.exit_codes import ExitCode
from edgekit.operations.verify import Trusting, host_trust
from edgekit.system.bundle_set import expected_sums
from edgekit.system.files import free_bytes, fsync_directory, read_bounded, translate_os_error
from edgekit.system.volumes import hash_view, worker_count

DIRECT_ALIGNMENT = 4096
SYNC_BYTES = 64 << 20
"""Written bytes after which the stick is waited for, so that progress is true and Ctrl-C quick."""

FAT_MAX_FILE_BYTES = (4 << 30) - 1


# ---------------------------------------------------------------------------------------- reading


class BlockReader(Protocol):
    """Reads one file of a medium. Offsets are multiples of `DIRECT_ALIGNMENT`."""

    def read_into(self, buffer: memoryview, length: int, offset: int) -> int:
        """Fill `buffer`, which is at least `length` bytes rounded up to the alignment.

        Returns how many of the `length` bytes there are; fewer only at the end of the file. Raises
        OSError. Called from several threads.
        """

    def close(self) -> None:
        """Let go of the file."""


OpenReader = Callable[[Path], BlockReader]


class DirectReader:
    """Reads from the medium itself: O_DIRECT, or else after dropping the page cache of the file."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = os.open(path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._descriptor = os.open(path, flags)
            self._drop_cache()

    def read_into(self, buffer: memoryview, length: int, offset: int) -> int:
        end = -(-length // DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT
        position = 0
        while position < length:
            try:
                count = os.preadv(self._descriptor, [buffer[position:end]], offset + position)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._leave_direct():
                    raise
                continue
            position += count
            if count == 0:
                break
        return min(position, length)

    def close(self) -> None:
        os.close(self._descriptor)

    def _leave_direct(self) -> bool:
        """Go on through the page cache where O_DIRECT opens but does not read; False if it was."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        if not flags & os.O_DIRECT:
            return False
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self._drop_cache()
        return True

    def _drop_cache(self) -> None:
        with suppress(OSError):
            os.fsync(self._descriptor)
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class _Checker:
    """Reads copies of wanted files once, blocks by all cores, and collects every flaw."""

    def __init__(self, contents: Contents | None, listener: Listener, open_reader: OpenReader):
        self._contents = contents
        self._listener = listener
        self._open = open_reader
        self._local = threading.local()

    def run(self, task: str, todo: list[tuple[Wanted, Copy]]) -> list[Flaw]:
        """Flaws of these copies, in the order given. Raises PrivilegeError for unreadable ones."""
        self._listener(Started(task, sum(copy.size or 0 for _, copy in todo)))
        flaws: list[Flaw] = []
        with ThreadPoolExecutor(worker_count()) as pool:
            try:
                for file, copy in todo:
                    flaws += self._check(task, pool, file, copy)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._listener(Finished(task))
        return flaws

    def _check(self, task: str, pool: ThreadPoolExecutor, file: Wanted, copy: Copy) -> list[Flaw]:
        try:
            reader = self._open(Path(copy.folder, file.name))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise translate_os_error(error, f"reading {file.name}") from error
            return [Flaw(file.name, copy.folder, problem=_reason(error))]
        try:
            if file.volume is None or self._contents is None:
                found = [self._whole(reader, task, file, copy)]
            else:
                numbers = self._blocks(file, copy)
                found = list(pool.map(bind(self._block, reader, task, file, copy), numbers))
        finally:
            reader.close()
        return [flaw for flaw in found if flaw is not None]

    def _blocks(self, file: Wanted, copy: Copy) -> list[int]:
        """Numbers of the blocks that are there completely; what is cut off is no flaw."""
        size, there = file.size or 0, copy.size or 0
        count = -(-size // BLOCK_BYTES)
        return [n for n in range(count) if min((n + 1) * BLOCK_BYTES, size) <= there]

    def _block(
        self, reader: BlockReader, task: str, file: Wanted, copy: Copy, number: int
    ) -> Flaw | None:
        assert self._contents is not None
        assert file.volume is not None
        table = self._contents.table
        offset = number * BLOCK_BYTES
        length = min(BLOCK_BYTES, table.volumes[file.volume].size - offset)
        flaw = Flaw(file.name, copy.folder, number, offset, offset + length - 1)
        try:
            view = self._read(reader, length, offset)
        except OSError as error:
            return replace(flaw, problem=_reason(error))
        finally:
            self._listener(Advanced(task, length))
        good = table.volumes[file.volume].blocks[number]
        return None if hash_view(view, table.algorithm) == good else flaw

    def _whole(self, reader: BlockReader, task: str, file: Wanted, copy: Copy) -> Flaw | None:
        """Judge a file by its one digest; the first unreadable place ends it."""
        assert file.digest is not None
        hasher = new_hasher(file.digest.algorithm)
        offset, size = 0, copy.size or 0
        while offset < size:
            try:
                view = self._read(reader, min(BLOCK_BYTES, size - offset), offset)
            except OSError as error:
                return Flaw(file.name, copy.folder, problem=_reason(error))
            if not view:
                break
            hasher.update(view)
            offset += len(view)
            self._listener(Advanced(task, len(view)))
        good = offset == size and hasher.hexdigest() == file.digest.value
        return None if good else Flaw(file.name, copy.folder)

    def _read(self, reader: BlockReader, length: int, offset: int) -> memoryview:
        """Up to `length` bytes, in this thread's own page-aligned buffer."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = mmap.mmap(-1, BLOCK_BYTES)
        view = memoryview(self._local.buffer)
        return view[: reader.read_into(view, length, offset)]


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


# ---------------------------------------------------------------------------------------- looking


def _look(folders: Iterable[Path]) -> Seen:
    """Names and sizes of what lies in the folders, sidecar files left out; nothing is read."""
    copies: dict[str, tuple[Copy, ...]] = {}
    foreign: list[str] = []
    for folder in folders:
        for name, path in _list_folder(folder):
            if set_files.is_sidecar(path.name):
                continue
            if findings.is_set_name(name):
                copies[name] = (*copies.get(name, ()), Copy(str(folder), _regular_size(path)))
            else:
                foreign.append(str(path))
    return Seen(copies, tuple(foreign))


def _list_folder(folder: Path) -> list[tuple[str, Path]]:
    try:
        here = [(path.name, path) for path in sorted(folder.iterdir())]
        for inner in set_files.FOLDERS:
            below = folder / inner
            if below.is_dir() and not below.is_symlink():
                here = [(name, path) for name, path in here if path != below]
                here += [(f"{inner}/{path.name}", path) for path in sorted(below.iterdir())]
    except OSError as error:
        raise translate_os_error(error, f"reading {folder}") from error
    return here


def _regular_size(path: Path) -> int | None:
    try:
        status = path.lstat()
    except OSError as error:
        raise translate_os_error(error, f"looking at {path.name}") from error
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _to_read(wanted: Iterable[Wanted], seen: Seen) -> list[tuple[Wanted, Copy]]:
    """The copies worth reading: of volumes all, of other files those of the right size."""
    return [
        (file, copy)
        for file in wanted
        for copy in seen.copies.get(file.name, ())
        if copy.size is not None
        and file.digest is not None
        and (file.size in (None, copy.size) or file.volume is not None)
    ]


# --------------------------------------------------------------------------------------- vouching


@dataclass(frozen=True, slots=True)
class _Vouched:
    """What the set's own documents say must be there, and who vouches for that.

    `signers` is None when signatures were not checked, for want of a trusted root. `contents` is
    None when nothing says what lies where. When the documents themselves are bad, `stopped` is True
    and `wanted` are those documents alone.
    """

    wanted: tuple[Wanted, ...]
    contents: Contents | None = None
    signers: tuple[str, ...] | None = None
    flaws: tuple[Flaw, ...] = ()
    stopped: bool = False

    @property
    def name(self) -> str:
        """`demo-1.0.0`, or empty."""
        manifest = self.contents and self.contents.manifest
        return f"{manifest.name}-{manifest.version}" if manifest else ""


def _vouch(folders: tuple[Path, ...], seen: Seen, trusting: Trusting | None) -> _Vouched:
    """Steps V1 to V3 and V5 where a root is trusted, else SHA384SUMS taken at its word.

    Raises SetShapeError when the folders hold no set, TrustError, SignatureError when strangers
    signed the set, FormatError.
    """
    if set_files.RELEASE not in seen.copies and set_files.SUMS not in seen.copies:
        raise SetShapeError(
            "no bundle set here",
            where=", ".join(map(str, folders)),
            needed=f"a folder with {set_files.RELEASE} and {set_files.SUMS}",
            hint="give the folder that holds release.json, or all folders of a set on many sticks",
        )
    asked_for = trusting is not None and trusting.fingerprint is not None
    if asked_for and set_files.RELEASE not in seen.copies:
        return _WITHOUT_RELEASE
    root = None if trusting is None else host_trust(trusting, _root_folders(seen)).root
    return _vouch_unsigned(seen) if root is None else _vouch_signed(seen, root)


_WITHOUT_RELEASE = _Vouched((Wanted(set_files.RELEASE),), signers=(), stopped=True)


def _root_folders(seen: Seen) -> tuple[Path, ...]:
    """The folders with the first copy of the release statement and of each root."""
    names = [set_files.RELEASE, *(n for n in seen.copies if n.startswith(f"{set_files.TRUST}/"))]
    folders = (seen.copies[name][0].folder for name in names if name in seen.copies)
    return tuple(Path(folder) for folder in dict.fromkeys(folders))


def _vouch_signed(seen: Seen, root: trust.TrustedRoot) -> _Vouched:
    if set_files.RELEASE not in seen.copies:
        return _WITHOUT_RELEASE
    try:
        root = _extend_root(seen, root)
        statement, release = _statement(seen, root)
    except (FormatError, SignatureError):
        # damage on the way, or strangers? SHA384SUMS, which nobody vouches for, tells them apart
        damaged = _damaged_documents(seen)
        if not damaged:
            raise
        return _Vouched(damaged, signers=(), stopped=True)
    wanted = [Wanted(name, size, Digest("sha384", value)) for name, size, value in statement.files]
    wanted.append(Wanted(set_files.RELEASE, len(release), Digest.of(release)))
    contents = _contents(seen, wanted)
    if contents is None:
        documents = (set_files.RELEASE, set_files.MANIFEST, set_files.VOLUMES)
        only = tuple(file for file in wanted if file.name in documents)
        return _Vouched(only, signers=statement.signers, stopped=True)
    sums = expected_sums(statement, contents.table, release)
    wanted.append(Wanted(set_files.SUMS, len(sums), Digest.of(sums)))
    wanted.append(Wanted(set_files.SUMS_SIGNATURE))
    wanted += _wanted_volumes(contents)
    flaws = _signature_flaws(seen, root, sums)
    return _Vouched(tuple(wanted), contents, statement.signers, flaws)


def _extend_root(seen: Seen, root: trust.TrustedRoot) -> trust.TrustedRoot:
    """Step V2, with the first copy of each root; a set carries at most 256."""
    for _ in range(trust.MAX_ROTATIONS):
        name = f"{set_files.TRUST}/{root.version + 1}.root.json"
        data = next((data for _, data in _readable(seen, name)), None)
        if data is None:
            break
        root = trust.extend_root(root, data)
    return root


def _statement(seen: Seen, root: trust.TrustedRoot) -> tuple[trust.ReleaseStatement, bytes]:
    """Step V3, with the first copy that verifies; the error of the last one otherwise."""
    problem: EdgekitError = FormatError("release.json cannot be read", hint="copy it again")
    for _, data in _readable(seen, set_files.RELEASE):
        try:
            return trust.verify_release(root, data), data
        except (FormatError, SignatureError) as error:
            problem = error
    raise problem


def _damaged_documents(seen: Seen) -> tuple[Wanted, ...]:
    """Release statement and roots that are not what SHA384SUMS says, if it can be read."""
    for _, data in _readable(seen, set_files.SUMS):
        with suppress(FormatError):
            lines = _parse_sums(data)
            return tuple(
                Wanted(name, digest=digest)
                for name, digest in lines.items()
                if (name == set_files.RELEASE or name.startswith(f"{set_files.TRUST}/"))
                and name in seen.copies
                and [Digest.of(d) for _, d in _readable(seen, name)]
                != [digest] * len(seen.copies[name])
            )
    return ()


def _vouch_unsigned(seen: Seen) -> _Vouched:
    for _, data in _readable(seen, set_files.SUMS):
        with suppress(FormatError):
            lines = _parse_sums(data)
            break
    else:
        bad = tuple(Flaw(set_files.SUMS, c.folder) for c in seen.copies.get(set_files.SUMS, ()))
        return _Vouched((Wanted(set_files.SUMS),), flaws=bad, stopped=True)
    wanted = [Wanted(name, digest=digest) for name, digest in lines.items()]
    contents: Contents | None = None
    with suppress(FormatError):  # only where blocks lie is lost; every file has its own digest
        contents = _contents(seen, wanted)
    if contents is not None:
        volumes = _wanted_volumes(contents)
        if {v.name: v.digest for v in volumes} == _only_volumes(lines):
            wanted = [file for file in wanted if not set_files.is_volume(file.name)] + volumes
        else:
            contents = None
    wanted.append(Wanted(set_files.SUMS, len(data), Digest.of(data)))
    wanted.append(Wanted(set_files.SUMS_SIGNATURE))
    bad = _signature_flaws(seen, None, data)
    if bad and (contents is None or not _all_agree(seen, lines)):
        return _sums_in_doubt(seen, bad)
    return _Vouched(tuple(wanted), contents, flaws=bad)


def _all_agree(seen: Seen, lines: dict[str, Digest]) -> bool:
    """True when every small file is there as SHA384SUMS says."""
    return all(
        digest in [Digest.of(data) for _, data in _readable(seen, name)]
        for name, digest in lines.items()
        if not set_files.is_volume(name)
    )


def _sums_in_doubt(seen: Seen, bad: tuple[Flaw, ...]) -> _Vouched:
    """SHA384SUMS fits neither its signature nor the files: it or they are damaged, who knows."""
    flaws = [Flaw(set_files.SUMS, copy.folder) for copy in seen.copies[set_files.SUMS]]
    names = (set_files.SUMS, set_files.SUMS_SIGNATURE)
    return _Vouched(tuple(map(Wanted, names)), flaws=(*flaws, *bad), stopped=True)


def _only_volumes(lines: dict[str, Digest]) -> dict[str, Digest | None]:
    return {name: digest for name, digest in lines.items() if set_files.is_volume(name)}


def _contents(seen: Seen, wanted: Iterable[Wanted]) -> Contents | None:
    """Step V5: manifest and volume table, from copies with the right bytes; None without them."""
    good: dict[str, bytes] = {}
    for file in wanted:
        if file.name in (set_files.MANIFEST, set_files.VOLUMES):
            for _, data in _readable(seen, file.name):
                if Digest.of(data) == file.digest and file.size in (None, len(data)):
                    good[file.name] = data
    if len(good) < 2:
        return None
    manifest = parse_manifest(good[set_files.MANIFEST])
    return Contents(parse_volume_table(good[set_files.VOLUMES]), manifest)


def _wanted_volumes(contents: Contents) -> list[Wanted]:
    return [
        Wanted(volume.name, volume.size, volume.digest, index)
        for index, volume in enumerate(contents.table.volumes)
    ]


def _signature_flaws(seen: Seen, root: trust.TrustedRoot | None, sums: bytes) -> tuple[Flaw, ...]:
    """Copies of SHA384SUMS.sig that are no signature of SHA384SUMS by a signer of the root.

    Without a root any key will do: that says nothing about who signed, but finds damage.
    """
    flaws = []
    for copy, data in _readable(seen, set_files.SUMS_SIGNATURE):
        keys = _key_inside(data) if root is None else trust.ssh_keys(root)
        try:
            verify_ssh(data, sums, keys)
        except SignatureError:
            flaws.append(Flaw(set_files.SUMS_SIGNATURE, copy.folder))
    return tuple(flaws)


def _key_inside(signature: bytes) -> list[Ed25519PublicKey]:
    """The key that an SSHSIG carries: after magic, version and four lengths (PROTOCOL.sshsig)."""
    body = signature.decode("ascii", errors="replace").split("\n")[1:-2]
    try:
        return [Ed25519PublicKey.from_public_bytes(base64.b64decode("".join(body))[33:65])]
    except ValueError:
        return []


def _readable(seen: Seen, name: str) -> list[tuple[Copy, bytes]]:
    """The copies of a small file that can be read, and their bytes. Raises PrivilegeError."""
    found = []
    for copy in seen.copies.get(name, ()):
        limit = set_files.max_bytes_of(name)
        if copy.size is None or copy.size > limit:
            continue
        try:
            found.append((copy, read_bounded(Path(copy.folder, name), limit, name)))
        except PrivilegeError:
            raise
        except HostError:
            continue
    return found


def _parse_sums(data: bytes) -> dict[str, Digest]:
    """SHA384SUMS as this project writes it. Raises FormatError for anything else."""
    lines: dict[str, Digest] = {}
    for line in data.decode("ascii", errors="replace").splitlines():
        value, _, name = line.partition("  ")
        if not findings.is_set_name(name):
            raise FormatError(f"{set_files.SUMS} is damaged", found=repr(line[:120]))
        lines[name] = Digest("sha384", value)
    if set_files.render_sums({name: digest.value for name, digest in lines.items()}) != data:
        raise FormatError(f"{set_files.SUMS} is damaged")
    return lines


# --------------------------------------------------------------------------------------- checking


@dataclass(frozen=True, slots=True)
class MediaReport:
    """What a check found. `signers` is None when signatures were not checked; `stopped` says that
    the volumes were not read, because the documents that describe them are bad."""

    name: str
    findings: tuple[Finding, ...]
    signers: tuple[str, ...] | None
    volumes: tuple[str, ...]
    read_bytes: int
    stopped: bool

    @property
    def exit_code(self) -> ExitCode:
        """0 intact, 13 files missing, foreign or of the wrong size, 22 damage."""
        return findings.exit_code_of(self.findings)

    def table(self) -> dict[str, Any]:
        """The report as plain JSON values (`edgekit.media-check/1`)."""
        return {
            "schema": "edgekit.media-check/1",
            "name": self.name,
            "intact": self.exit_code == ExitCode.OK,
            "signatures_checked": self.signers is not None,
            "signed_by": list(self.signers or ()),
            "volumes_here": list(self.volumes),
            "bytes": self.read_bytes,
            "volumes_read": not self.stopped,
            "copy_again": list(findings.files_to_copy(self.findings)),
            "findings": [finding.table() for finding in self.findings],
        }


def check_media(
    folders: tuple[Path, ...],
    trusting: Trusting | None,
    listener: Listener,
    *,
    partial: bool = False,
    open_reader: OpenReader = DirectReader,
) -> MediaReport:
    """Read a set's files once, from the medium, and list everything that is wrong with them.

    Changes nothing. Signatures are checked where a root is trusted; the host's floor is not asked.
    With `partial` the folders are some sticks of many. Damage is reported, not raised; raises
    SetShapeError when there is no set, SignatureError when strangers signed it, TrustError,
    PrivilegeError and HostError.
    """
    seen = _look(folders)
    vouched = _vouch(folders, seen, trusting)
    todo = _to_read(vouched.wanted, seen)
    flaws = _Checker(vouched.contents, listener, open_reader).run("check", todo)
    flaws += vouched.flaws
    if vouched.stopped:
        names = {file.name for file in vouched.wanted}
        seen = Seen({name: copies for name, copies in seen.copies.items() if name in names})
    found = findings.list_findings(vouched.wanted, seen, flaws, vouched.contents, partial=partial)
    volumes = tuple(sorted(name for name in seen.copies if set_files.is_volume(name)))
    read = sum(copy.size or 0 for _, copy in todo)
    return MediaReport(vouched.name, found, vouched.signers, volumes, read, vouched.stopped)


# ---------------------------------------------------------------------------------------- writing


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
    open_reader: OpenReader = DirectReader,
) -> Written:
    """Copy a set, or these volumes of it, into `destination/NAME-VERSION/` and prove it is there.

    Files go one by one (temporary file, write, fsync, rename, fsync of the folder), `release.json`
    last. When all are written, all are read again from the stick: a stick that claims more room
    than it has shows only then. Files already there and equal are kept, so an interrupted run is
    resumed. Nothing is deleted but what an earlier run left unfinished. Raises SetShapeError,
    DigestError, InsufficientError, DiskFullError, PrivilegeError, HostError and what `check_media`
    raises.
    """
    seen = _look(folders)
    vouched = _vouch(folders, seen, trusting)
    files = _selected(seen, vouched, numbers)
    folder = _check_destination(destination, vouched, files)
    checker = _Checker(vouched.contents, listener, open_reader)
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


def _selected(seen: Seen, vouched: _Vouched, numbers: frozenset[int] | None) -> list[Wanted]:
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
    _, data = _readable(seen, file.name)[0]
    return replace(file, size=size, digest=Digest.of(data))


def _check_destination(destination: Path, vouched: _Vouched, files: list[Wanted]) -> Path:
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
        _check_owner(folder, _look((folder,)), vouched, files)
    return folder


def _prepare(folder: Path) -> None:
    """Make the set's folder, and remove what an interrupted run left in it."""
    try:
        (folder / set_files.TRUST).mkdir(parents=True, exist_ok=True)
        for path in map(Path, _look((folder,)).foreign):
            path.unlink()  # nothing but unfinished copies, see _check_owner
    except OSError as error:
        raise _stick_error(error, folder) from error


def _check_owner(folder: Path, seen: Seen, vouched: _Vouched, files: list[Wanted]) -> None:
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
        for _, data in _readable(seen, name)
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


def _already_there(folder: Path, files: list[Wanted], checker: _Checker) -> frozenset[str]:
    """Names of the files that an earlier run wrote completely; read from the stick."""
    seen = _look((folder,) if folder.exists() else ())
    same = [(f, c) for f, c in _to_read(files, seen) if c.size == f.size]
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


def _read_back(folder: Path, vouched: _Vouched, files: list[Wanted], checker: _Checker) -> None:
    """Read everything of the set on the stick and compare. Raises DigestError naming the files."""
    names = {file.name for file in files}
    wanted = files + [file for file in vouched.wanted if file.name not in names]
    seen = _look((folder,))
    flaws = checker.run("read back", _to_read(wanted, seen))
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
            found=_reason(error),
            hint="look for a write-protect switch; mount it so that you may write",
        )
    return translate_os_error(error, f"writing {path.name}")
