"""Small ASGI helpers: headers as a table, bounded bodies, whole answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from edgekit.gateway.body import MAX_BODY_BYTES
from edgekit.gateway.problems import ApiError, Surface, render_problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S = 60.0
MAX_HEADER_BYTES = 16 << 10
DRAIN_BYTES = 4 * MAX_BODY_BYTES
"""A body over the limit is read and dropped up to here, so that its sender gets to see the 413."""
JSON = "application/json"


class ClientGoneError(Exception):
    """The client closed its connection."""


def header_table(scope: Scope) -> dict[str, str]:
    """Headers by lower-case name; of a repeated header the last one counts. Raises ApiError 431."""
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise ApiError(
            431, "headers_too_large", f"the request headers are over {MAX_HEADER_BYTES} bytes"
        )
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }


async def read_body(headers: dict[str, str], receive: Receive) -> bytes:
    """The request's body. Raises ApiError 413 over 4 MiB, 408 when it does not arrive in time."""
    if headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "unsupported_encoding", "compressed request bodies are not accepted")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > DRAIN_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _collect(receive)
    except TimeoutError as error:
        raise ApiError(408, "request_timeout", "the request did not arrive in time") from error


async def _collect(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        ended = not message.get("more_body", False)
        if size > DRAIN_BYTES or (ended and size > MAX_BODY_BYTES):
            raise _too_large()
        if ended:
            return b"".join(parts)


def _too_large() -> ApiError:
    return ApiError(413, "request_too_large", f"the request body is over {MAX_BODY_BYTES} bytes")


async def start_answer(
    send: Send,
    status: int,
    content_type: str,
    request_id: str,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send the head of an answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type.encode()),
                (b"x-request-id", request_id.encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                *extra,
            ],
        }
    )


async def answer(
    send: Send,
    status: int,
    body: bytes,
    request_id: str,
    *,
    content_type: str = JSON,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await start_answer(send, status, content_type, request_id, (length, *extra))
    await send({"type": "http.response.body", "body": body})


async def answer_problem(send: Send, error: ApiError, request_id: str, surface: Surface) -> None:
    """Send a refusal in its surface's shape."""
    extra: list[tuple[bytes, bytes]] = []
    if error.retry_after is not None:
        extra.append((b"retry-after", str(error.retry_after).encode()))
    if error.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if error.status in (408, 413):
        extra.append((b"connection", b"close"))  # the rest of the body is never read
    await answer(send, error.status, render_problem(error, surface), request_id, extra=extra)
