"""A lean HTTP client for one engine on a unix socket: asyncio streams and h11, kept alive.

An engine may close a kept connection at any time. A request that fails on a kept connection before
a byte of the answer arrived is sent once more on a fresh one; nothing else is retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import h11

from edgekit.errors import EngineError, EngineNotReadyError

CONNECT_TIMEOUT_S = 5.0
READ_BYTES = 64 << 10
MAX_ANSWER_BYTES = 32 << 20
MAX_HEADER_BYTES = 64 << 10


class _NothingReceivedError(Exception):
    """The connection ended before the first byte of an answer."""


class EngineResponse:
    """An answer whose body is still to come. Read it to its end or `close` it."""

    def __init__(self, status: int, connection: _Connection, done: Callable[[], None]) -> None:
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
        self._idle: list[_Connection] = []

    async def request(self, method: str, target: str, body: bytes = b"") -> EngineResponse:
        """Send a request; returns when the answer's head is there.

        Raises EngineNotReadyError when nobody listens, EngineError when the engine breaks off.
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                try:
                    return await self._send(connection, method, target, body)
                except _NothingReceivedError:
                    break
            connection.abandon()
        try:
            return await self._send(await self._connect(), method, target, body)
        except _NothingReceivedError as error:
            raise EngineError("the engine closed the connection", where=self._path) from error

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().abandon()

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise EngineNotReadyError(
                "the engine cannot be reached", where=self._path, found=str(error)
            ) from error
        return _Connection(reader, writer)

    async def _send(
        self, connection: _Connection, method: str, target: str, body: bytes
    ) -> EngineResponse:
        try:
            status = await connection.start(method, target, body)
        except BaseException:
            connection.abandon()
            raise
        return EngineResponse(status, connection, lambda: self._release(connection))

    def _release(self, connection: _Connection) -> None:
        if connection.reset() and len(self._idle) < self._max_idle:
            self._idle.append(connection)
        else:
            connection.abandon()


class _Connection:
    """One connection and its protocol state."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)

    def usable(self) -> bool:
        """True when the engine has not closed it in the meantime."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    async def start(self, method: str, target: str, body: bytes) -> int:
        """Send a request and read the answer's head; its status."""
        headers = [("Host", "localhost"), ("Accept", "*/*")]
        if body:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        data = self._state.send(h11.Request(method=method, target=target, headers=headers)) or b""
        if body:
            data += self._state.send(h11.Data(data=body)) or b""
        data += self._state.send(h11.EndOfMessage()) or b""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise _NothingReceivedError from error
        return await self._head()

    async def _head(self) -> int:
        received = False
        while True:
            event = self._next_event()
            if isinstance(event, h11.Response):
                return event.status_code
            if event is h11.NEED_DATA:
                received = await self._receive(first=not received) or received
            elif not isinstance(event, h11.InformationalResponse):
                raise EngineError("the engine's answer is not HTTP")

    async def body(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether it has ended."""
        parts: list[bytes] = []
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return b"".join(parts), True
            elif parts:
                return b"".join(parts), False
            elif event is h11.NEED_DATA:
                await self._receive(first=False)
            else:
                raise EngineError("the engine broke off its answer")

    def reset(self) -> bool:
        """Make it ready for the next request; False when it cannot carry one."""
        if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE:
            return False
        self._state.start_next_cycle()
        return True

    def abandon(self) -> None:
        """Close it, whatever is under way."""
        if not self._writer.is_closing():
            self._writer.transport.abort()

    def _next_event(self) -> object:
        try:
            return self._state.next_event()
        except h11.RemoteProtocolError as error:
            raise EngineError("the engine broke off its answer", found=str(error)) from error

    async def _receive(self, *, first: bool) -> bool:
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError as error:
            if first:
                raise _NothingReceivedError from error
            raise EngineError("the engine broke off its answer", found=str(error)) from error
        if first and not data:
            raise _NothingReceivedError
        self._state.receive_data(data)
        return True
