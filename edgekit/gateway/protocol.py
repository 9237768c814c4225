"""Uvicorn's HTTP protocol with the limits it does not have.

A head has 16 KiB and 10 seconds, a connection between requests 60 seconds, a client that stops
reading 60 seconds. Trailers, upgrades and whatever llhttp calls malformed end the connection; no
byte of it reaches the application, and nothing is written to the log at a stranger's pace.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgekit.gateway.problems import ApiError, Surface, render_problem

MAX_CONNECTIONS = 1024
MAX_HEADER_BYTES = 16 << 10
MAX_HEADERS = 100
HEAD_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 60
STALL_TIMEOUT_S = 60.0

_PHRASES = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}

# made anew each time: an exception that is raised again keeps the traces of all its raises


def _malformed() -> ApiError:
    return ApiError(400, "malformed_request", "this is not a well-formed HTTP request")


def _large_head() -> ApiError:
    return ApiError(
        431,
        "headers_too_large",
        f"the request's head is over {MAX_HEADER_BYTES} bytes or {MAX_HEADERS} headers",
    )


def _slow_head() -> ApiError:
    return ApiError(408, "request_timeout", "the request did not arrive in time")


def _crowded() -> ApiError:
    return ApiError(503, "too_many_connections", "too many connections are open", retry_after=5)


class _Corked:
    """A transport that sends what is written in one turn of the loop as one piece.

    A head and the first piece of its body then cost one system call and, with TLS, one record.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what is left, then close."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send what is left now."""
        parts, self._parts = self._parts, []
        if parts:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class LimitedProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._head_bytes = 0
        self._head = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first head."""
        self._corked = _Corked(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._corked))
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(_crowded())
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock."""
        self._stop_clock()
        self.resume_writing()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client sends nothing more and is taken for gone; what was answered still goes out."""
        self._corked.flush()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, within the limits."""
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            self._head += data
            if self._deadline is None:
                self._start_clock()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._go_on_without_upgrade()
            return
        except httptools.HttpParserError as error:
            self._refuse(error.__context__ if isinstance(error.__context__, ApiError) else None)
            return
        if self._in_head and self._head_bytes > MAX_HEADER_BYTES:
            self._refuse(_large_head())

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Refuses trailers and too many of them."""
        if not self._in_head:
            raise _malformed()
        if len(self.headers) >= MAX_HEADERS:
            raise _large_head()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: the application starts."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_clock()
        if not self.parser.should_upgrade():
            self._head = b""
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there; the next byte begins another head."""
        if not self.parser.should_upgrade():
            super().on_message_complete()
        self._in_head = True

    def _go_on_without_upgrade(self) -> None:
        """Answer as plain HTTP: llhttp has dropped the body of a request that offers to upgrade.

        Java's own client offers HTTP/2 with every first request and means it as an offer only.
        """
        first, found, rest = self._head.partition(b"\r\n\r\n")
        lines = first.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"upgrade:")]
        self._head = b""
        if not found or len(kept) != len(lines) - 1 or not kept[0].endswith(b" HTTP/1.1"):
            self._refuse(None)  # CONNECT, or behind another request in one piece
            return
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(kept) + found + rest)

    def pause_writing(self) -> None:
        """The client is behind."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up, or is gone."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _start_clock(self) -> None:
        self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self._head_bytes:
            self._refuse(_slow_head())
        else:
            self.transport.close()  # it never asked for anything

    def _refuse(self, error: ApiError | None) -> None:
        """End the connection, with an answer when no other answer is under way."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        error = error or _malformed()
        body = render_problem(error, Surface.OPENAI)
        lines = [
            b"HTTP/1.1 %d %b" % (error.status, _PHRASES[error.status]),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        if error.retry_after is not None:
            lines.append(b"retry-after: %d" % error.retry_after)
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()
