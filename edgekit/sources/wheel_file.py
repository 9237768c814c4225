"""What a wheel file holds, checked member by member and never trusted.

Every member is read once as a stream: its name is checked, its bytes are hashed against RECORD, and
an ELF file's need of the GNU C library is noted. `zipfile` is used for reading members only, never
for extracting. Format: PyPA binary distribution format 1.0.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import mmap
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import BinaryIO

from edgekit.core.elf import is_elf, needed_glibc
from edgekit.core.names import RelPath
from edgekit.errors import FormatError, RefusedContentError
from edgekit.system.files import remove_tree, translate_os_error

MAX_MEMBERS = 200_000
MAX_TOTAL_BYTES = 32 << 30
MAX_TEXT_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20

_FILENAME = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[A-Za-z0-9.+!_]+)(?:-\d\w*)?"
    r"-[\w.]+-[\w.]+-[\w.]+\.whl"
)
_UNHASHED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_HASHES = ("sha256", "sha384", "sha512")
_STARTUP = ("sitecustomize", "usercustomize")
_KNOWN_PTH = {
    # setuptools' own; a vLLM wheelhouse cannot be without it.
    ("distutils-precedence.pth",
     "2638ce9e2500e572a5e0de7faed6661eb569d1b696fcba07b0dd223da5f5d224"),
}


@dataclass(frozen=True, slots=True)
class WheelFacts:
    """What a checked wheel says of itself. `glibc` is None when no ELF file in it needs any.

    `scripts` are the members below `.data/scripts`, all of which the caller allowed.
    """

    name: str
    version: str
    glibc: tuple[int, int] | None
    scripts: tuple[str, ...]
    members: int
    total_bytes: int


def check_wheel(
    path: Path, *, filename: str | None = None, allow_scripts: Collection[str] = ()
) -> WheelFacts:
    """Read all of a wheel and say what it is.

    `filename` is the wheel's own name where `path` has another; `allow_scripts` are the names below
    `.data/scripts` that may be carried. Raises RefusedContentError naming wheel and member for
    anything edgekit does not carry, HostError when `path` cannot be read.
    """
    return _read(path, filename or path.name, allow_scripts, None)


def unpack_wheel(
    path: Path, directory: Path, *, filename: str | None = None,
    allow_scripts: Collection[str] = (),
) -> WheelFacts:
    """Check a wheel and write its files below `directory`, which must not exist yet.

    What belongs to site-packages is written, with mode 0644 or 0755; scripts, headers and data
    outside it are checked and left out. Raises as `check_wheel`, DiskFullError too; on any failure
    `directory` is gone.
    """
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise translate_os_error(error, f"unpacking {path.name}") from error
    try:
        return _read(path, filename or path.name, allow_scripts, directory)
    except BaseException:
        remove_tree(directory)
        raise


def wheel_glibc_floor(path: Path) -> tuple[int, int] | None:
    """The newest GNU C library that any ELF file in the wheel needs. Raises as `check_wheel`."""
    with _opened(path, path.name) as archive:
        members = [m for m in _members(archive, path.name) if not m.is_dir()]
        floors = [_consume(archive, m, path.name, "sha256", None).glibc for m in members]
    return max((floor for floor in floors if floor is not None), default=None)


def split_wheel_name(filename: str) -> tuple[str, str]:
    """Normalised distribution name and version, by the file name. Raises RefusedContentError."""
    match = _FILENAME.fullmatch(filename)
    if match is None:
        raise _refused(filename, "not a wheel's file name")
    return _normal(match["name"]), match["version"].replace("_", "-")


@dataclass(frozen=True, slots=True)
class _Consumed:
    """A member after its bytes went by: digests by algorithm name, size, glibc need."""

    hashes: Mapping[str, bytes]
    size: int
    glibc: tuple[int, int] | None


def _read(
    path: Path, filename: str, allow_scripts: Collection[str], directory: Path | None
) -> WheelFacts:
    name, version = split_wheel_name(filename)
    with _opened(path, filename) as archive:
        members = [member for member in _members(archive, filename) if not member.is_dir()]
        info = _dist_info(members, name, filename)
        _check_metadata(archive, info, name, version, filename)
        record = _record(archive, info, filename)
        _check_places(members, filename)
        seen: dict[str, _Consumed] = {}
        for member in members:
            place = _place(member.filename, filename)
            target = directory.joinpath(*place.parts) if directory and place else None
            recorded = record.get(member.filename, ("sha256", b""))
            seen[member.filename] = _consume(archive, member, filename, recorded[0], target)
            _check_startup(place, seen[member.filename], filename)
        _check_record(record, seen, info, filename)
    floors = [item.glibc for item in seen.values() if item.glibc is not None]
    return WheelFacts(
        name, version, max(floors, default=None), _scripts(members, allow_scripts, filename),
        len(members), sum(item.size for item in seen.values()),
    )


@contextmanager
def _opened(path: Path, filename: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError,
            ) as error:
        raise _refused(filename, f"not a readable archive ({error})") from error
    except OSError as error:
        raise translate_os_error(error, f"reading {filename}") from error


def _members(archive: zipfile.ZipFile, filename: str) -> list[zipfile.ZipInfo]:
    """The archive's directory, with every name and kind checked."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS or sum(m.file_size for m in members) > MAX_TOTAL_BYTES:
        raise _refused(filename, "too many members, or too large")
    names: set[str] = set()
    for member in members:
        name = member.orig_filename.rstrip("/") if member.is_dir() else member.orig_filename
        _check_member(member, name, filename)
        if name.lower() in names:
            raise _refused(filename, f"{name} occurs twice")
        names.add(name.lower())
    return members


def _check_member(member: zipfile.ZipInfo, name: str, filename: str) -> None:
    try:
        RelPath(name)
    except FormatError as error:
        raise _refused(filename, f"member {name[:200]!r}: {error.message}") from error
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
        raise _refused(filename, f"{name} is not a regular file")
    if member.flag_bits & 0x1:
        raise _refused(filename, f"{name} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refused(filename, f"{name} has an unknown compression")


def _dist_info(members: list[zipfile.ZipInfo], name: str, filename: str) -> str:
    tops = {member.filename.partition("/")[0] for member in members}
    found = sorted(top for top in tops if top.endswith(".dist-info"))
    if len(found) != 1 or _normal(found[0].removesuffix(".dist-info").partition("-")[0]) != name:
        raise _refused(filename, f"its .dist-info folders are {found}")
    return found[0]


def _check_metadata(
    archive: zipfile.ZipFile, info: str, name: str, version: str, filename: str
) -> None:
    headers = BytesHeaderParser().parsebytes(_small(archive, f"{info}/METADATA", filename))
    _small(archive, f"{info}/WHEEL", filename)
    found = _normal(str(headers["Name"])), str(headers["Version"]).strip()
    if found[0] != name or _loose(found[1]) != _loose(version):
        raise _refused(filename, f"it is {found[0]} {found[1]} by its own METADATA")


def _record(archive: zipfile.ZipFile, info: str, filename: str) -> dict[str, tuple[str, bytes]]:
    """RECORD as member name to (hash name, hash value); entries without a hash are left out."""
    text = _small(archive, f"{info}/RECORD", filename).decode("utf-8", "replace")
    record: dict[str, tuple[str, bytes]] = {}
    for row in csv.reader(io.StringIO(text)):
        if not row:
            continue
        if len(row) != 3:
            raise _refused(filename, f"RECORD has the line {','.join(row)[:100]!r}")
        algorithm, _, value = row[1].partition("=")
        if not row[1] and row[0] in {f"{info}/{name}" for name in _UNHASHED}:
            continue
        if algorithm not in _HASHES or row[0] in record:
            raise _refused(filename, f"RECORD has no usable hash of {row[0]}, or two")
        try:
            digest = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        except ValueError as error:
            raise _refused(filename, f"RECORD has no usable hash of {row[0]}") from error
        record[row[0]] = (algorithm, digest)
    return record


def _check_record(
    record: Mapping[str, tuple[str, bytes]], seen: Mapping[str, _Consumed], info: str, filename: str
) -> None:
    """Every member is recorded with its hash, and nothing else is recorded."""
    exempt = {f"{info}/{name}" for name in _UNHASHED}
    for name, (algorithm, digest) in record.items():
        if name not in seen:
            raise _refused(filename, f"RECORD names {name}, which is not in the archive")
        if seen[name].hashes[algorithm] != digest:
            raise _refused(filename, f"{name} is not what RECORD says")
    for name in seen:
        if name not in record and name not in exempt:
            raise _refused(filename, f"{name} is not in RECORD")


def _place(name: str, filename: str) -> RelPath | None:
    """Where a member lands below site-packages, or None when it belongs elsewhere."""
    parts = RelPath(name).parts
    if not parts[0].endswith(".data"):
        return RelPath(name)
    if len(parts) < 3:
        raise _refused(filename, f"{name} lies outside a folder of .data")
    return RelPath("/".join(parts[2:])) if parts[1] in ("purelib", "platlib") else None


def _check_places(members: list[zipfile.ZipInfo], filename: str) -> None:
    """No two members land on one name, nor one below another, on any file system."""
    places = [place for m in members if (place := _place(m.filename, filename)) is not None]
    names = {place.text.casefold() for place in places}
    if len(names) != len(places):
        raise _refused(filename, "two of its members land on one name")
    for place in places:
        parts = place.text.casefold().split("/")
        if any("/".join(parts[:depth]) in names for depth in range(1, len(parts))):
            raise _refused(filename, f"{place} lands below a file")


def _check_startup(place: RelPath | None, consumed: _Consumed, filename: str) -> None:
    """Refuse what Python would run at every start."""
    if place is None:
        return
    first = place.parts[0]
    if first.partition(".")[0].lower() in _STARTUP:
        raise _refused(filename, f"{place} would run at every start of Python")
    if len(place.parts) == 1 and first.lower().endswith((".pth", ".egg-link", ".start")):
        known = (first, consumed.hashes["sha256"].hex())
        if known not in _KNOWN_PTH:
            raise _refused(filename, f"{place} would run at every start of Python")


def _scripts(
    members: list[zipfile.ZipInfo], allowed: Collection[str], filename: str
) -> tuple[str, ...]:
    """Members below .data/scripts by their own names, all of them allowed."""
    scripts = []
    for member in members:
        parts = member.filename.split("/")
        if len(parts) >= 3 and parts[0].endswith(".data") and parts[1] == "scripts":
            scripts.append("/".join(parts[2:]))
    refused = sorted(set(scripts) - set(allowed))
    if refused:
        raise _refused(filename, f"it brings the scripts {', '.join(refused)[:200]}")
    return tuple(sorted(scripts))


def _consume(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, filename: str, algorithm: str,
    target: Path | None,
) -> _Consumed:
    """Read one member, hash it, note its glibc need, and write it to `target` when given."""
    hashers = {name: hashlib.new(name) for name in {algorithm, "sha256"}}
    size = 0
    with archive.open(member) as source, tempfile.TemporaryFile() as spill, _sink(target) as sink:
        head = source.read(CHUNK_BYTES)
        elf = is_elf(head)
        chunk = head
        while chunk:
            size += len(chunk)
            for hasher in hashers.values():
                hasher.update(chunk)
            if elf:
                spill.write(chunk)
            if sink is not None:
                sink.write(chunk)
            chunk = source.read(CHUNK_BYTES)
        glibc = _glibc(spill, member.filename, filename) if elf else None
    if size != member.file_size:
        raise _refused(filename, f"{member.filename} is not as large as the archive says")
    if target is not None:
        target.chmod(0o755 if (member.external_attr >> 16) & 0o111 else 0o644)
    return _Consumed({name: h.digest() for name, h in hashers.items()}, size, glibc)


def _sink(target: Path | None) -> nullcontext[None] | BinaryIO:
    if target is None:
        return nullcontext()
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.open("xb")


def _glibc(spill: BinaryIO, name: str, filename: str) -> tuple[int, int] | None:
    """The need of an ELF file; one of another word size or byte order cannot load and has none."""
    spill.flush()
    with mmap.mmap(spill.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:6] != b"\x02\x01":
            return None
        try:
            return needed_glibc(data)
        except FormatError as error:
            raise _refused(filename, f"{name}: {error.message} ({error.found})") from error


def _small(archive: zipfile.ZipFile, name: str, filename: str) -> bytes:
    try:
        member = archive.getinfo(name)
    except KeyError as error:
        raise _refused(filename, f"it has no {name}") from error
    if member.file_size > MAX_TEXT_BYTES:
        raise _refused(filename, f"{name} is too large")
    return archive.read(member)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _loose(version: str) -> str:
    """A version as file names spell it: without the characters that escaping changes."""
    return re.sub(r"[-_.]+", ".", version).lower()


def _refused(filename: str, reason: str) -> RefusedContentError:
    return RefusedContentError(f"{filename} is refused: {reason}", where=filename, found=reason)
