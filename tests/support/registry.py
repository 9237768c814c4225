"""A registry that says whatever a test puts into it, right or wrong, to the real skopeo."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

NAME = "registry.edgekit.internal"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class FakeRegistry:
    """`answers` maps a path below /v2/ to (content type, bytes)."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, tuple[str, bytes]] = {"": ("application/json", b"{}")}
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,),
                                        daemon=True)
        self.config = folder / "fake-registries.conf"
        self.config.write_text(
            "unqualified-search-registries = []\n[[registry]]\n"
            f'prefix = "{NAME}"\nlocation = "127.0.0.1:{self._server.server_address[1]}"\n'
            "insecure = true\n")

    def __enter__(self) -> FakeRegistry:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put_blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Store a blob; returns its descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.answers[f"app/blobs/{digest}"] = ("application/octet-stream", data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def put_manifest(self, document: Any, tag: str | None = "1", media_type: str = MANIFEST) -> str:
        """Store a manifest or index under its digest and a tag; returns the digest."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for reference in (digest, tag):
            if reference:
                self.answers[f"app/manifests/{reference}"] = (media_type, data)
        return digest

    def image(self, arch: str = "amd64", **changes: Any) -> dict[str, Any]:
        """A manifest, not yet stored, whose blobs are."""
        config = {"architecture": arch, "os": "linux", "rootfs": {"type": "layers",
                                                                  "diff_ids": []}}
        return {"schemaVersion": 2, "mediaType": MANIFEST,
                "config": self.put_blob(json.dumps(config).encode(), CONFIG),
                "layers": [self.put_blob(b"layer" + arch.encode(), LAYER)], **changes}


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.removeprefix("/v2/")
        found = self.registry.answers.get(path)
        if found is None:
            body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN",
                                           "message": "manifest unknown"}]}).encode()
            self._send(404, "application/json", body)
        else:
            self._send(200, *found)

    def _send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
