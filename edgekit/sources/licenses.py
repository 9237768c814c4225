"""Licence texts: those that wheels carry, and those that a recipe names as a model's terms.

Wheels come from the cache, where only checked ones are (`edgekit/sources/wheel_file.py`). Texts are
carried as they are; what licence a wheel names is taken from its METADATA (PEP 639, and what was
used before it).
"""

from __future__ import annotations

import importlib.metadata
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path, PurePosixPath

from edgekit.core.digest import Digest
from edgekit.core.names import RelPath
from edgekit.errors import FormatError, RefusedContentError
from edgekit.sources.blob_cache import BlobCache
from edgekit.system.files import read_bounded, translate_os_error

MAX_TEXT_BYTES = 1 << 20
MAX_TEXTS = 200
MAX_LICENSE_CHARS = 100

_FILE = re.compile(
    r"[^/]+\.dist-info/(?P<name>licenses/.+|(?:LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*)",
    re.IGNORECASE,
)
_SDIST_TEXT = re.compile(
    r"LICEN[CS]E[^/]*|vendor/[^/]+/(?:LICEN[CS]E[^/]*|licenses/[^/]+|vendor/.+/LICEN[CS]E[^/]*)"
)
"""Of a source archive: its own text, and those of the project and libraries that it vendors."""
_OSI = "License :: OSI Approved :: "


@dataclass(frozen=True, slots=True)
class LicenseText:
    """A licence text in the cache: its name below the folder of its owner, digest, and place."""

    name: RelPath
    digest: Digest
    place: Path


@dataclass(frozen=True, slots=True)
class WheelLicense:
    """What a wheel says about its licence; `name` is an SPDX expression, free text, or empty."""

    name: str
    texts: tuple[LicenseText, ...]


def read_wheel_license(wheel: Path, filename: str, cache: BlobCache) -> WheelLicense:
    """The licence that a checked wheel names and the texts in its .dist-info, sorted by name.

    Raises RefusedContentError naming the wheel for texts over the limits.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.filename)
            metadata = next(m for m in members if m.filename.endswith(".dist-info/METADATA"))
            name = _named(BytesHeaderParser().parsebytes(_text(archive, metadata, filename)))
            found = [
                (match["name"].removeprefix("licenses/"), _text(archive, member, filename))
                for member in members
                if not member.is_dir() and (match := _FILE.fullmatch(member.filename))
            ]
    except (zipfile.BadZipFile, zlib.error, EOFError, StopIteration) as error:
        raise _refused(filename, "its licence files cannot be read") from error
    except OSError as error:
        raise translate_os_error(error, f"reading {filename}") from error
    return _wheel_license(name, found, filename, cache)


def read_sdist_license(archive: Path, filename: str, cache: BlobCache) -> WheelLicense:
    """The same of a source archive: its PKG-INFO, its own texts and those of what it vendors.

    Raises RefusedContentError naming the archive.
    """
    found: list[tuple[str, bytes]] = []
    headers = Message()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                inside = member.name.partition("/")[2]
                wanted = _SDIST_TEXT.fullmatch(inside)
                if not member.isreg() or not (wanted or inside == "PKG-INFO"):
                    continue
                if member.size > MAX_TEXT_BYTES:
                    raise _refused(filename, f"{inside} is over {MAX_TEXT_BYTES} bytes")
                stream = tar.extractfile(member)
                data = stream.read() if stream else b""
                if wanted:
                    found.append((inside, data))
                else:
                    headers = BytesHeaderParser().parsebytes(data)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _refused(filename, "its licence files cannot be read") from error
    except OSError as error:
        raise translate_os_error(error, f"reading {filename}") from error
    return _wheel_license(_named(headers), sorted(found), filename, cache)


def read_installed_license(
    distribution: importlib.metadata.Distribution, cache: BlobCache
) -> WheelLicense:
    """The same of an installed distribution. Raises RefusedContentError and HostError."""
    where = distribution.name
    found = []
    for file in sorted(distribution.files or (), key=str):
        match = _FILE.fullmatch(file.as_posix())
        if match:
            place = Path(str(distribution.locate_file(file)))
            data = read_bounded(place, MAX_TEXT_BYTES, f"licence of {where}")
            found.append((match["name"].removeprefix("licenses/"), data))
    headers = BytesHeaderParser().parsebytes((distribution.read_text("METADATA") or "").encode())
    return _wheel_license(_named(headers), found, where, cache)


def read_terms(path: Path, where: str, cache: BlobCache) -> LicenseText:
    """A model's terms, a UTF-8 text file of at most 1 MiB, taken into the cache.

    `where` names it in messages. Raises RefusedContentError when it is no text, HostError when it
    cannot be read.
    """
    data = read_bounded(path, MAX_TEXT_BYTES, where)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(where, "not a text in UTF-8") from error
    if not text.strip() or "\0" in text:
        raise _refused(where, "empty, or not a text")
    try:
        return _stored(path.name, data, cache)
    except FormatError as error:
        raise _refused(where, error.message) from error


def _wheel_license(
    name: str, found: list[tuple[str, bytes]], where: str, cache: BlobCache
) -> WheelLicense:
    if len(found) > MAX_TEXTS:
        raise _refused(where, f"more than {MAX_TEXTS} licence files")
    # A wheel may carry one text in the old place and in the new one.
    texts = {path.casefold(): (path, data) for path, data in reversed(found)}
    folders = {str(parent) for path in texts for parent in PurePosixPath(path).parents}
    return WheelLicense(
        name,
        tuple(
            _stored(path, data, cache)
            for key, (path, data) in sorted(texts.items())
            if key not in folders
        ),
    )


def _named(headers: Message) -> str:
    """The licence by METADATA: SPDX expression, else a short `License`, else a classifier."""
    for key in ("License-Expression", "License"):
        value = str(headers.get(key, "")).strip()
        if value and value.isprintable() and len(value) <= MAX_LICENSE_CHARS:
            return value
    classifiers = [str(value) for value in headers.get_all("Classifier", [])]
    approved = [value.removeprefix(_OSI) for value in classifiers if value.startswith(_OSI)]
    return approved[0][:MAX_LICENSE_CHARS] if len(approved) == 1 else ""


def _text(archive: zipfile.ZipFile, member: zipfile.ZipInfo, filename: str) -> bytes:
    if member.file_size > MAX_TEXT_BYTES:
        raise _refused(filename, f"{member.filename} is over {MAX_TEXT_BYTES} bytes")
    return archive.read(member)


def _stored(name: str, data: bytes, cache: BlobCache) -> LicenseText:
    path = RelPath(name)
    with cache.writer(max_bytes=MAX_TEXT_BYTES) as writer:
        writer.write(data)
    digest = Digest.of(data, "sha256")
    return LicenseText(path, digest, cache.path(digest))


def _refused(where: str, why: str) -> RefusedContentError:
    return RefusedContentError(f"licence text refused: {why}", where=where)
