"""Source archives from a real HTTP index: as JSON, as HTML, from a folder, and lied about."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.lock import LockedWheel
from edgekit.errors import SourceDigestError, SourceError, UnreachableError
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.sdists import fetch_sdist, lock_sdist

ARCHIVE = b"what the author published"
NAME = "some_engine-1.0.tar.gz"
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


class Index(ThreadingHTTPServer):
    """An index that speaks JSON or HTML and sends what it is told to."""

    body = ARCHIVE
    speaks_json = True
    served: list[str]

    def page(self) -> tuple[str, bytes]:
        if self.speaks_json:
            names = ("some_engine-0.9.tar.gz", "some_engine-1.0-py3-none-any.whl", NAME)
            files = [{"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": SHA256}}
                     for name in names]
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()
        links = f'<a href="../../files/{NAME}#sha256={SHA256}">{NAME}</a>'
        return "text/html", f"<html><body><a href='/x'>other</a>{links}</body></html>".encode()


class Handler(BaseHTTPRequestHandler):
    server: Index

    def log_message(self, *args: object) -> None:
        return

    def do_GET(self) -> None:
        self.server.served.append(self.path)
        kind, body = "application/gzip", self.server.body
        if self.path == "/simple/some-engine/":
            kind, body = self.server.page()
        elif not self.path.endswith(NAME):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with Index(("127.0.0.1", 0), Handler) as server:
        server.served = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache")


@pytest.mark.parametrize("speaks_json", [True, False])
def test_the_one_archive_of_the_version_is_taken(
    index: Index, cache: BlobCache, speaks_json: bool
) -> None:
    index.speaks_json = speaks_json
    locked = lock_sdist("Some.Engine==1.0", cache)
    assert (locked.name, locked.version, locked.filename) == ("some-engine", "1.0", NAME)
    assert (locked.size, locked.sha256.value) == (len(ARCHIVE), SHA256)
    before = len(index.served)
    assert fetch_sdist(locked, cache).read_bytes() == ARCHIVE
    assert len(index.served) == before  # nothing is fetched twice
    cache.remove(locked.sha256)
    assert fetch_sdist(locked, cache).read_bytes() == ARCHIVE


def test_other_bytes_than_the_index_names_are_refused(index: Index, cache: BlobCache) -> None:
    index.body = b"what a stranger sends"
    with pytest.raises(SourceDigestError):
        lock_sdist("some-engine==1.0", cache)
    assert not [path for path in (cache.directory / "tmp").iterdir() if path.is_file()]


def test_other_bytes_than_the_lock_names_are_refused(index: Index, cache: BlobCache) -> None:
    locked = LockedWheel("some-engine", "1.0", NAME, 5, Digest("sha256", "0" * 64))
    with pytest.raises(SourceDigestError):
        fetch_sdist(locked, cache)


def test_a_version_that_is_not_there_and_an_index_that_is_not(
    index: Index, cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match=r"no index has the source of some-engine 2\.0"):
        lock_sdist("some-engine==2.0", cache)
    with pytest.raises(SourceError, match="no index has"):
        lock_sdist("unknown==1.0", cache)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UnreachableError):
        lock_sdist("some-engine==1.0", cache)


def test_a_folder_of_archives_does_without_an_index(
    index: Index, cache: BlobCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / NAME).write_bytes(ARCHIVE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    assert lock_sdist("some-engine==1.0", cache).sha256.value == SHA256
    assert index.served == []
