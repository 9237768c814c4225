"""Source archives from a package index, fetched without running anything that lies in them.

pip and uv ask a package's own build scripts for its metadata when they fetch its source. Here the
index's list of files is read (PyPA simple repository API, as JSON or HTML), the one archive of the
pinned version is taken, and it is believed by its SHA-256. Index, certificates and proxy are those
of the user's own pip configuration and environment.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpx2

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Finished, Listener, Started, ignore_events
from edgekit.core.lock import LockedWheel
from edgekit.errors import SourceError, UnreachableError
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.wheels import pip_settings

DEFAULT_INDEX = "https://pypi.org/simple"
MAX_LIST_BYTES = 64 << 20
MAX_ARCHIVE_BYTES = 2 << 30
TIMEOUT_S = 60.0
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file of an index's list: its name, address and SHA-256 (empty when it names none)."""

    name: str
    url: str
    sha256: str


def lock_sdist(
    requirement: str, cache: BlobCache, listener: Listener = ignore_events
) -> LockedWheel:
    """The source archive of an exact requirement (`name==version`); left in the cache.

    Raises SourceError when no index has it, SourceDigestError, UnreachableError, DiskFullError.
    """
    name, _, version = requirement.partition("==")
    filename, digest, size = _take(name, version, cache, listener)
    return LockedWheel(_normalised(name), version, filename, size, digest)


def fetch_sdist(
    locked: LockedWheel, cache: BlobCache, listener: Listener = ignore_events
) -> Path:
    """A locked archive's place in the cache, fetching it when it is not there yet.

    Raises SourceDigestError when other bytes arrive, and as `lock_sdist`.
    """
    if not cache.has(locked.sha256, locked.size):
        _take(locked.name, locked.version, cache, listener, locked.sha256)
    return cache.path(locked.sha256)


def _take(
    name: str, version: str, cache: BlobCache, listener: Listener, expected: Digest | None = None
) -> tuple[str, Digest, int]:
    """The archive into the cache, from a folder of `find-links` or from an index."""
    with cache.scratch() as folder:
        settings = pip_settings(folder)
    for place in settings.get("find-links", "").split():
        for file in sorted(Path(place).glob("*.tar.gz")):
            if _is_archive_of(file.name, name, version):
                digest = cache.add_file(file, expected, where=file.name)
                return file.name, digest, file.stat().st_size
    indexes = _indexes(settings)
    verify = ssl.create_default_context(cafile=settings.get("cert") or None)
    with httpx2.Client(timeout=TIMEOUT_S, follow_redirects=True, verify=verify) as client:
        for index in indexes:
            for listed in _files(index, name, client):
                if _is_archive_of(listed.name, name, version):
                    return (listed.name, *_fetch(listed, client, cache, listener, expected))
    raise SourceError(f"no index has the source of {name} {version}",
                      found=f"{len(indexes)} indexes asked", hint="pip config list")


def _indexes(settings: Mapping[str, str]) -> list[str]:
    if settings.get("no-index", "").lower() in ("1", "true", "yes"):
        return []
    named = [settings.get("index-url", DEFAULT_INDEX), *settings.get("extra-index-url", "").split()]
    return [index for index in named if index.startswith(("https://", "http://"))]


def _files(index: str, name: str, client: httpx2.Client) -> Iterator[_Listed]:
    url = f"{index.rstrip('/')}/{_normalised(name)}/"
    try:
        answer = client.get(url, headers={"Accept": _ACCEPT})
    except httpx2.HTTPError as error:
        raise UnreachableError("the package index cannot be reached", found=str(error)[:300],
                               hint="pip config list; pip index versions pip") from error
    if answer.status_code != 200 or len(answer.content) > MAX_LIST_BYTES:
        return
    if "json" in answer.headers.get("content-type", ""):
        yield from _from_json(answer.content, str(answer.url))
    else:
        parser = _Links(str(answer.url))
        parser.feed(answer.text)
        yield from parser.found


def _from_json(data: bytes, base: str) -> Iterator[_Listed]:
    try:
        files = json.loads(data)["files"]
        for file in files:
            hashes = file.get("hashes", {})
            yield _Listed(str(file["filename"]), urljoin(base, file["url"]),
                          str(hashes.get("sha256", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError("the package index sent a list that cannot be read") from error


class _Links(HTMLParser):
    """The files of an index in HTML: links whose fragment is their hash."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        self.found: list[_Listed] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            parts = urlsplit(urljoin(self._base, href))
            sha256 = parts.fragment.removeprefix("sha256=") if parts.fragment else ""
            name = unquote(parts.path.rpartition("/")[2])
            self.found.append(_Listed(name, parts._replace(fragment="").geturl(), sha256))


def _fetch(
    listed: _Listed, client: httpx2.Client, cache: BlobCache, listener: Listener,
    expected: Digest | None,
) -> tuple[Digest, int]:
    """Take the archive into the cache: (its digest, its size). Checked before it is kept."""
    task = f"fetch {listed.name}"
    wanted = expected or (Digest("sha256", listed.sha256) if listed.sha256 else None)
    if wanted is not None and cache.path(wanted).is_file():
        return wanted, cache.path(wanted).stat().st_size
    try:
        with client.stream("GET", listed.url) as answer:
            if answer.status_code != 200:
                raise SourceError(f"{listed.name} cannot be fetched",
                                  found=f"HTTP status {answer.status_code}")
            length = answer.headers.get("content-length", "")
            listener(Started(task, int(length) if length.isdigit() else None))
            with cache.writer(wanted, max_bytes=MAX_ARCHIVE_BYTES, where=listed.name) as writer:
                for chunk in answer.iter_bytes():
                    writer.write(chunk)
                    listener(Advanced(task, len(chunk)))
                found = writer.digest, writer.size
    except httpx2.HTTPError as error:
        raise UnreachableError(f"{listed.name} cannot be fetched", found=str(error)[:300],
                               hint="run the same command again") from error
    listener(Finished(task))
    return found


def _is_archive_of(filename: str, name: str, version: str) -> bool:
    stem = filename.removesuffix(".tar.gz")
    if stem == filename:
        return False
    found, _, number = stem.rpartition("-")
    return _normalised(found) == _normalised(name) and number == version


def _normalised(name: str) -> str:
    """The name as indexes spell it (PyPA name normalisation)."""
    return re.sub(r"[-_.]+", "-", name).lower()
