"""A local hub that speaks what the real huggingface_hub client asks for, and can misbehave.

    with LocalHub() as hub:
        commit = hub.commit("org/name", {"model.gguf": data}, branch="main")
        hub.faults.truncate_at = 1000

Each fault is off by default. Counted faults (`cuts`, `busy`) go away when used up.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

LFS_FROM_BYTES = 1024
LFS_SUFFIXES = (".gguf", ".safetensors")


@dataclass
class Faults:
    """What the hub does wrong."""

    truncate_at: int | None = None
    """send only so many bytes of a file, then cut the connection"""
    cuts: int = 0
    """how many times to do that (resumed requests then go through)"""
    busy: list[int] = field(default_factory=list)
    """statuses (429, 503) to answer instead of the next requests, in order"""
    busy_paths: str = "/"
    """only requests whose path holds this text are answered busy"""
    ignore_range: bool = False
    """answer 200 and the whole file to a Range request"""
    wrong_offset: int = 0
    """answer a Range request from so many bytes too early, claiming the offset asked for"""
    other_bytes: dict[str, bytes] = field(default_factory=dict)
    """file name to bytes served instead of the real ones (metadata stays)"""
    unauthorized: bool = False


@dataclass
class _Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)


class LocalHub:
    """The server; `url` is what HF_ENDPOINT must be. `requests` lists (method, path, range)."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.requests: list[tuple[str, str, str | None]] = []
        self.on_request: Callable[[str], None] = lambda _path: None
        self._repositories: dict[str, _Repository] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,),
                                        daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def content_url(self) -> str:
        """Where large files are: another host name, as the client follows redirects within one."""
        return self.url.replace("127.0.0.1", "localhost")

    def __enter__(self) -> LocalHub:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit with exactly these files and move the branch to it."""
        repository = self._repositories.setdefault(name, _Repository())
        seed = json.dumps([name, len(repository.commits), sorted(files)])
        sha = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
        repository.commits[sha] = dict(files)
        repository.branches[branch] = sha
        return sha

    def find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self._repositories.get(name)
        if repository is None:
            return None
        sha = repository.branches.get(revision, revision)
        files = repository.commits.get(sha)
        return None if files is None else (sha, files)

    def knows(self, name: str) -> bool:
        return name in self._repositories


def is_lfs(path: str, data: bytes) -> bool:
    return path.endswith(LFS_SUFFIXES) or len(data) > 10 * LFS_FROM_BYTES


def git_blob_id(data: bytes) -> str:
    header = b"blob %d\0" % len(data)
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


def _sibling(path: str, data: bytes) -> dict[str, object]:
    table: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": git_blob_id(data)}
    if is_lfs(path, data):
        sha256 = hashlib.sha256(data).hexdigest()
        table["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return table


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"hub": hub})


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        self.hub.on_request(path)
        if self.hub.faults.busy and self.hub.faults.busy_paths in path:
            self._plain(self.hub.faults.busy.pop(0), b"busy", {"Retry-After": "0"})
        elif self.hub.faults.unauthorized:
            self._plain(401, b"no", {"X-Error-Message": "Invalid credentials"})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._model_info(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            self._content(match[1], match[2], match[3])
        else:
            self._plain(404, b"", {})

    def _model_info(self, name: str, revision: str) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        sha, files = found
        info = {"id": name, "modelId": name, "sha": sha, "private": False, "tags": [],
                "downloads": 0, "likes": 0,
                "siblings": [_sibling(path, data) for path, data in sorted(files.items())]}
        self._plain(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        sha, files = found
        if path not in files:
            self._plain(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        data = files[path]
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if not is_lfs(path, data):
            headers["ETag"] = f'"{git_blob_id(data)}"'
            self._send(path, data, headers)
            return
        headers["X-Linked-Size"] = str(len(data))
        headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        headers["Location"] = f"{self.hub.content_url}/cdn/{name}/{sha}/{path}"
        self._plain(302, b"", headers)

    def _content(self, name: str, sha: str, path: str) -> None:
        found = self._find(name, sha)
        if found is not None:
            self._send(path, found[1][path], {"ETag": '"cdn"', "Accept-Ranges": "bytes"})

    def _find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        found = self.hub.find(name, revision)
        if found is None:
            code = "RevisionNotFound" if self.hub.knows(name) else "RepoNotFound"
            self._plain(404, b"", {"X-Error-Code": code})
        return found

    def _send(self, path: str, real: bytes, headers: dict[str, str]) -> None:
        data = self.hub.faults.other_bytes.get(path, real)
        status, start = 200, 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if match and not self.hub.faults.ignore_range:
            status, start = 206, int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            shift = min(start, self.hub.faults.wrong_offset)
            body = data[start - shift : len(data) - shift]
        else:
            body = data
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._body(body)

    def _body(self, body: bytes) -> None:
        limit = self.hub.faults.truncate_at
        if limit is not None and self.hub.faults.cuts > 0 and len(body) > limit:
            self.hub.faults.cuts -= 1
            self.wfile.write(body[:limit])
            self.close_connection = True
        else:
            with suppress(ConnectionError):  # a client may hang up on a flood
                self.wfile.write(body)

    def _plain(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
