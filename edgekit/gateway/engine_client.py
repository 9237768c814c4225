"""A lean HTTP client for one engine on a unix socket: one protocol per connection, kept alive.

An engine may close a kept connection at any time. A request that fails on a kept connection before
a byte of the answer arrived is sent once more on a fresh one; nothing else is retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from httptools import HttpParserError, HttpResponseParser

from edgekit.errors import EngineError, EngineNotReadyError

CONNECT_TIMEOUT_S = 5.0
HIGH_WATER_BYTES = 256 << 10
"""Body that may wait for its reader; beyond it the engine has to."""
MAX_ANSWER_BYTES = 32 << 20
MAX_HEADER_BYTES = 64 << 10


class _NothingReceivedError(Exception):
    """The connection ended before the first byte of an answer."""


class EngineResponse:
    """An answer whose body is still to come. Read it to its end or `close` it."""

    def __init__(self, status: int, connection: EngineConnection, done: Callable[[], None]) -> None:
        self.status = status
        self._connection = connection
        self._done = done
        self._ended = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, in pieces as they arrive (several chunks that wait come as one piece).

        Raises EngineError when the engine breaks off.
        """
        while True:
            data, ended = await self._connection.body()
            if data:
                yield data
            if ended:
                self._ended = True  # from here on the connection may carry another answer
                self._done()
                return

    async def read(self) -> bytes:
        """The whole body. Raises EngineError when it breaks off or exceeds 32 MiB."""
        parts, size = [], 0
        async for part in self.chunks():
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise EngineError("the engine's answer is too long")
        return b"".join(parts)

    def close(self) -> None:
        """Cut the connection if the body has not ended: the engine then frees its slot."""
        if not self._ended:
            self._connection.abandon()


class EngineClient:
    """Talks to the engine at one unix socket; keeps at most `max_idle` connections open."""

    def __init__(self, socket_path: str, *, max_idle: int) -> None:
        self._path = socket_path
        self._max_idle = max_idle
        self._idle: list[EngineConnection] = []

    def kept(self) -> EngineConnection | None:
        """A connection that is open already, or None. Who takes one gives it to `request`."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
        return None

    async def connect(self) -> EngineConnection:
        """A fresh connection. Raises EngineNotReadyError when nobody listens.

        Who takes one gives it to `request`, or calls its `abandon`.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_unix_connection(EngineConnection, self._path)
        except OSError as error:
            raise EngineNotReadyError(
                "the engine cannot be reached", where=self._path, found=str(error)
            ) from error
        return connection

    async def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        connection: EngineConnection | None = None,
    ) -> EngineResponse:
        """Send a request; returns when the answer's head is there.

        Raises EngineNotReadyError when nobody listens, EngineError when the engine breaks off.
        """
        connection = connection or self.kept() or await self.connect()
        data = _encode(method, target, body)
        if connection.kept:
            try:
                return await self._send(connection, data)
            except _NothingReceivedError:
                connection = await self.connect()
        try:
            return await self._send(connection, data)
        except _NothingReceivedError as error:
            raise EngineError("the engine closed the connection", where=self._path) from error

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().abandon()

    async def _send(self, connection: EngineConnection, data: bytes) -> EngineResponse:
        try:
            status = await connection.start(data)
        except BaseException:
            connection.abandon()
            raise
        return EngineResponse(status, connection, lambda: self._release(connection))

    def _release(self, connection: EngineConnection) -> None:
        if connection.reusable() and len(self._idle) < self._max_idle:
            connection.kept = True
            self._idle.append(connection)
        else:
            connection.abandon()


class EngineConnection(asyncio.Protocol):
    """One connection: httptools calls the `on_` methods while it is fed."""

    def __init__(self) -> None:
        self.kept = False
        self._closed = False
        self._fault: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = HttpResponseParser(self)
        self._received = 0
        self._status = 0
        self._keep = False
        self._ended = False
        self._parts: list[bytes] = []
        self._waiting_bytes = 0

    async def start(self, request: bytes) -> int:
        """Send a request and wait for the answer's head; its status."""
        if self.kept:
            self._reset()
        self._transport.write(request)
        while not self._status:
            if self._fault or self._closed:
                raise self._broken() if self._received else _NothingReceivedError
            await self._wait()
        return self._status

    async def body(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether it has ended. Raises EngineError."""
        while not (self._parts or self._ended):
            if self._fault or self._closed:
                raise self._broken()
            await self._wait()
        data = b"".join(self._parts) if len(self._parts) != 1 else self._parts[0]
        self._parts.clear()
        if self._waiting_bytes > HIGH_WATER_BYTES:
            self._transport.resume_reading()
        self._waiting_bytes = 0
        return data, self._ended

    def usable(self) -> bool:
        """True when the engine has not closed it in the meantime."""
        return not (self._closed or self._fault or self._transport.is_closing())

    def reusable(self) -> bool:
        """True when it can carry another request."""
        return self._ended and self._keep and self.usable()

    def abandon(self) -> None:
        """Close it, whatever is under way."""
        self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _broken(self) -> EngineError:
        return EngineError("the engine broke off its answer", found=str(self._fault or "closed"))

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse; what was found is picked up by whoever waits."""
        self._received += len(data)
        fault = self._feed(data)
        if fault is not None:
            self._fault = fault
            self._transport.abort()
        if self._waiting_bytes > HIGH_WATER_BYTES:
            self._transport.pause_reading()
        self._wake()

    def _feed(self, data: bytes) -> Exception | None:
        """Why this cannot be part of the answer that was asked for, or None."""
        if self._ended:
            return EngineError("the engine sent more than it was asked for")
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            return error
        if not self._status and self._received > MAX_HEADER_BYTES:
            return EngineError("the head of the engine's answer is too long")
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The engine is gone, or we left it."""
        self._closed = True
        self._wake()

    # httptools' callbacks

    def on_headers_complete(self) -> None:
        """The head is there; 1xx heads are followed by another."""
        status = self._parser.get_status_code()
        self._status = status if status >= 200 else 0
        self._keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._parts.append(data)
        self._waiting_bytes += len(data)

    def on_message_complete(self) -> None:
        """The body has ended."""
        self._ended = bool(self._status)


def _encode(method: str, target: str, body: bytes) -> bytes:
    """A request's bytes; method and target are ours, never a client's."""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode("ascii") + b"\r\n" + body
