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
import struct
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
from edgekit.sources.wheel_scripts import entry_point_problem
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
_SCHEMES = ("purelib", "platlib", "scripts", "headers", "data")
_SLACK_BYTES = 70_000
"""What may lie between members: an extra field of at most 64 KiB and a data descriptor."""
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

    `filename` is the wheel's own name where `path` has another; `allow_scripts` are the names of
    scripts, below `.data/scripts` or made by entry points, that may be carried. Raises
    RefusedContentError naming wheel and member for anything edgekit does not carry, HostError when
    `path` cannot be read.
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
        _check_layout(archive, path, filename)
        info = _dist_info(members, name, version, filename)
        _check_metadata(archive, info, name, version, filename)
        _check_entry_points(archive, info, name, allow_scripts, filename)
        record = _record(archive, info, filename)
        _check_places(members, info, filename)
        seen: dict[str, _Consumed] = {}
        for member in members:
            place = _place(member.filename, filename)
            target = directory.joinpath(*place.parts) if directory and place else None
            recorded = record.get(member.filename)
            algorithm = recorded.algorithm if recorded else "sha256"
            seen[member.filename] = _consume(archive, member, filename, algorithm, target)
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
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError,
            NotImplementedError, OverflowError, RuntimeError, UnicodeError) as error:
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
        if not member.filename:
            raise _refused(filename, "a member without a name")
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


def _check_layout(archive: zipfile.ZipFile, path: Path, filename: str) -> None:
    """One member after another from the first byte, then the directory, and nothing else.

    Readers disagree about the rest: data before, between or behind may be another archive.
    """
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    offsets = [member.header_offset for member in members]
    if not members or offsets[0] != 0 or archive.comment:
        raise _refused(filename, "data that is no member, before or behind its members")
    with path.open("rb") as file:
        if file.seek(-22, 2) >= 0 and file.read(4) != b"PK\5\6":
            raise _refused(filename, "data behind its directory")
    for member, after in zip(members, [*offsets[1:], archive.start_dir], strict=True):
        least = 30 + len(member.orig_filename.encode("utf-8", "replace")) + member.compress_size
        if member.header_offset + least > after:
            raise _refused(filename, f"{member.filename} overlaps another member")
        if member.header_offset + least + _SLACK_BYTES < after:
            raise _refused(filename, f"data that is no member, behind {member.filename}")


def _dist_info(
    members: list[zipfile.ZipInfo], name: str, version: str, filename: str
) -> str:
    tops = {member.filename.partition("/")[0] for member in members}
    found = sorted(top for top in tops if top.lower().endswith(".dist-info"))
    stem, _, told = found[0].removesuffix(".dist-info").partition("-") if found else ("", "", "")
    if len(found) != 1 or _normal(stem) != name or _loose(told) != _loose(version):
        raise _refused(filename, f"its .dist-info folders are {found}")
    return found[0]


def _check_metadata(
    archive: zipfile.ZipFile, info: str, name: str, version: str, filename: str
) -> None:
    headers = _headers(archive, f"{info}/METADATA", ("Name", "Version"), filename)
    found = _normal(headers["Name"]), headers["Version"].strip()
    if found[0] != name or _loose(found[1]) != _loose(version):
        raise _refused(filename, f"it is {found[0]} {found[1]} by its own METADATA")
    wheel = _headers(archive, f"{info}/WHEEL", ("Wheel-Version",), filename)
    if wheel["Wheel-Version"].strip().partition(".")[0] != "1":
        raise _refused(filename, f"its format is {wheel['Wheel-Version'][:20]!r}, not 1")


def _headers(
    archive: zipfile.ZipFile, name: str, wanted: tuple[str, ...], filename: str
) -> dict[str, str]:
    """Headers that have to be there, once."""
    found = BytesHeaderParser().parsebytes(_small(archive, name, filename))
    values = {header: found.get_all(header, []) for header in wanted}
    for header, given in values.items():
        if len(given) != 1:
            raise _refused(filename, f"{name} has {len(given)} headers {header}")
    return {header: str(given[0]) for header, given in values.items()}


def _check_entry_points(
    archive: zipfile.ZipFile, info: str, name: str, allowed: Collection[str], filename: str
) -> None:
    place = f"{info}/entry_points.txt"
    if place not in archive.namelist():
        return
    try:
        text = _small(archive, place, filename).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(filename, "its entry_points.txt is not UTF-8") from error
    problem = entry_point_problem(text, name, allowed)
    if problem is not None:
        raise _refused(filename, problem)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A line of RECORD: name of the hash, its value, size in bytes when given."""

    algorithm: str
    digest: bytes
    size: int | None


def _record(archive: zipfile.ZipFile, info: str, filename: str) -> dict[str, _Recorded]:
    """RECORD by member name; its own line and those of signatures are left out."""
    text = _small(archive, f"{info}/RECORD", filename).decode("utf-8", "replace")
    record: dict[str, _Recorded] = {}
    for row in _rows(text, filename):
        if not row:
            continue
        if len(row) != 3:
            raise _refused(filename, f"RECORD has the line {','.join(row)[:100]!r}")
        if not row[1] and row[0] in {f"{info}/{name}" for name in _UNHASHED}:
            continue
        if row[0] in record:
            raise _refused(filename, f"RECORD has {row[0][:200]} twice")
        record[row[0]] = _recorded(row, filename)
    return record


def _rows(text: str, filename: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise _refused(filename, f"RECORD cannot be read ({error})") from error


def _recorded(row: list[str], filename: str) -> _Recorded:
    algorithm, _, value = row[1].partition("=")
    if algorithm not in _HASHES or (row[2] and not re.fullmatch(r"[0-9]{1,15}", row[2])):
        raise _refused(filename, f"RECORD has no usable hash and size of {row[0][:200]}")
    try:
        digest = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except ValueError as error:
        raise _refused(filename, f"RECORD has no usable hash of {row[0][:200]}") from error
    return _Recorded(algorithm, digest, int(row[2]) if row[2] else None)


def _check_record(
    record: Mapping[str, _Recorded], seen: Mapping[str, _Consumed], info: str, filename: str
) -> None:
    """Every member is recorded with its hash, and nothing else is recorded."""
    exempt = {f"{info}/{name}" for name in _UNHASHED}
    for name, line in record.items():
        if name not in seen:
            raise _refused(filename, f"RECORD names {name[:200]}, which is not in the archive")
        if seen[name].hashes[line.algorithm] != line.digest:
            raise _refused(filename, f"{name} is not what RECORD says")
        if line.size not in (None, seen[name].size):
            raise _refused(filename, f"{name} is not as large as RECORD says")
    for name in seen:
        if name not in record and name not in exempt:
            raise _refused(filename, f"{name} is not in RECORD")


def _place(name: str, filename: str) -> RelPath | None:
    """Where a member lands below site-packages, or None when it belongs elsewhere."""
    parts = RelPath(name).parts
    if not parts[0].lower().endswith(".data"):
        return RelPath(name)
    if len(parts) < 3:
        raise _refused(filename, f"{name} lies outside a folder of .data")
    return RelPath("/".join(parts[2:])) if parts[1] in ("purelib", "platlib") else None


def _check_places(members: list[zipfile.ZipInfo], info: str, filename: str) -> None:
    """No two members land on one name, nor one below another, on any file system."""
    data = f"{info.removesuffix('.dist-info')}.data"
    for member in members:
        top, _, rest = member.filename.partition("/")
        if top.lower().endswith(".data") and (
            top != data or rest.partition("/")[0] not in _SCHEMES
        ):
            raise _refused(filename, f"{member.filename} lies in no folder of its own .data")
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
