"""Blocking HTTP over a unix socket: for the supervisor's few requests to its own engine."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

from edgekit.errors import EngineError

MAX_ANSWER_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A response's status and body."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises EngineError."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise EngineError(
                "the engine's answer is not JSON", found=repr(self.body[:80])
            ) from error


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(path: str, target: str, *, timeout_s: float) -> Answer:
    """GET `target` from the server at unix socket `path`. Raises EngineError."""
    return _exchange(path, "GET", target, None, timeout_s)


def post_json(path: str, target: str, body: Any, *, timeout_s: float) -> Answer:
    """POST a JSON body. Raises EngineError when there is no whole answer in time."""
    return _exchange(path, "POST", target, json.dumps(body).encode(), timeout_s)


def _exchange(path: str, method: str, target: str, body: bytes | None, timeout_s: float) -> Answer:
    connection = _UnixConnection(path, timeout_s)
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        content = response.read(MAX_ANSWER_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(
            "the engine does not answer", where=path, found=str(error) or type(error).__name__
        ) from error
    finally:
        connection.close()
    if len(content) > MAX_ANSWER_BYTES:
        raise EngineError("the engine's answer is too long", where=path)
    return Answer(response.status, content)
