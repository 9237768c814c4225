"""Clients of the audit writer's socket: one for asyncio programs, one blocking call.

A record counts only when the writer answered with its number: every failure (writer gone, no answer
in time, refused) is AuditUnavailableError, and the caller does not go on. A slow writer may still
write the record: who gave it up is told, so that it can record that, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.errors import AuditUnavailableError

ANSWER_TIMEOUT_S = 5.0
LOOK_S = 0.1
"""How often records that wait are looked at: one may wait so much longer than it was to."""
MAX_ANSWER_BYTES = 4096
_ENCODER = json.JSONEncoder(allow_nan=False)  # made once: it is not free


def append_event(
    socket_path: str, record: Mapping[str, Any], *, timeout_s: float = ANSWER_TIMEOUT_S
) -> int:
    """Make one record durable and return its number. Raises AuditUnavailableError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(timeout_s)
            sock.connect(socket_path)
            sock.send(_encode(1, record))
            answer = _decode(sock.recv(MAX_ANSWER_BYTES))
    except (OSError, ValueError) as error:
        raise _unavailable(socket_path, str(error)) from error
    if isinstance(answer.result, str):
        raise _unavailable(socket_path, answer.result)
    return answer.result


@dataclass(slots=True)
class LastRecord:
    """The newest record this client made durable: its number, when (monotonic s; None before the
    first), and how long it waited. `failed` says that a later one was not recorded."""

    sequence: int = 0
    at_s: float | None = None
    lag_s: float = 0.0
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Signed:
    """The record up to which a checkpoint signs the log, and when that was (UTC, microseconds)."""

    seq: int
    t_utc: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """The client's number; the record's, or why there is none; what is new about the log."""

    number: int
    result: int | str
    space: str
    signed: Signed | None = None


@dataclass(slots=True)
class _Waiting:
    """A record that was, or will be, sent; until when (monotonic s) its answer is waited for."""

    answer: asyncio.Future[int]
    until_s: float
    sent: bool = False


class AsyncAuditClient:
    """One connection, many records in flight; connects when needed, again after a loss.

    Belongs to the event loop that first uses it.
    """

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._sock: socket.socket | None = None
        self._connecting = asyncio.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._given_up: dict[int, Callable[[], object]] = {}
        self._last = 0
        self._clock: asyncio.TimerHandle | None = None
        self.last = LastRecord()
        self.space = "ok"
        """How full the log is, as the writer said last: ok, warn, alert or full."""
        self.signed: Signed | None = None
        """Up to where the log was signed, as the writer said last; None before it did."""

    async def append(
        self,
        record: Mapping[str, Any],
        *,
        within_s: float = ANSWER_TIMEOUT_S,
        late: Callable[[], object] | None = None,
    ) -> int:
        """Make the record durable and return its number. Raises AuditUnavailableError.

        `late` is called when the record became durable after it was given up: after `within_s`
        seconds, or by a cancelled caller. It is not called when the connection was lost meanwhile:
        then the writer knows by itself that nobody waits.
        """
        began = time.monotonic()
        try:
            sequence = await self._append(record, began + within_s, late)
        except AuditUnavailableError:
            self.last.failed = True
            raise
        now = time.monotonic()
        self.last = LastRecord(sequence, now, now - began)
        return sequence

    async def _append(
        self, record: Mapping[str, Any], until_s: float, late: Callable[[], object] | None
    ) -> int:
        self._last += 1
        number = self._last
        waiting = _Waiting(asyncio.get_running_loop().create_future(), until_s)
        try:
            sock = self._sock or await self._connection(until_s)
            self._waiting[number] = waiting
            self._watch()
            await self._send(sock, _encode(number, record), waiting)
            return await waiting.answer
        except TimeoutError as error:
            raise _unavailable(self._path, "no answer in time") from error
        except (OSError, ValueError) as error:
            self._waiting.pop(number, None)
            self.close()
            raise _unavailable(self._path, str(error)) from error
        finally:
            # still waiting: neither answered nor lost with its connection
            if self._waiting.pop(number, None) and waiting.sent and late is not None:
                self._given_up[number] = late

    def _watch(self) -> None:
        """Have one clock for all records that wait: a timer for each costs more than to send it."""
        if self._clock is None:
            self._clock = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Give up records that waited long enough."""
        self._clock = None
        now = time.monotonic()
        for waiting in self._waiting.values():
            if now >= waiting.until_s and not waiting.answer.done():
                waiting.answer.set_exception(_unavailable(self._path, "no answer in time"))
        if self._waiting:
            self._watch()

    def close(self) -> None:
        """Drop the connection; records in flight fail."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(_unavailable(self._path, "the connection was lost"))
        self._waiting.clear()
        self._given_up.clear()

    async def _connection(self, until_s: float) -> socket.socket:
        async with asyncio.timeout(until_s - time.monotonic()), self._connecting:
            if self._sock is None:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
                try:
                    await asyncio.get_running_loop().sock_connect(sock, self._path)
                except BaseException:
                    sock.close()
                    raise
                asyncio.get_running_loop().add_reader(sock, self._read, sock)
                self._sock = sock
            return self._sock

    async def _send(self, sock: socket.socket, data: bytes, waiting: _Waiting) -> None:
        """Send it, or stop trying when the answer is that it took too long."""
        while not waiting.answer.done():
            try:
                sock.send(data)
            except BlockingIOError:
                # the writer is behind; waiting for it as a writer would clash with other senders
                await asyncio.sleep(0.001)
            else:
                waiting.sent = True
                return

    def _read(self, sock: socket.socket) -> None:
        """Deliver every answer that waits."""
        while True:
            try:
                data = sock.recv(MAX_ANSWER_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            with contextlib.suppress(ValueError):
                answer = _decode(data)
                self.space = answer.space
                self.signed = answer.signed or self.signed
                self._deliver(answer.number, answer.result)

    def _deliver(self, number: int, result: int | str) -> None:
        late = self._given_up.pop(number, None)
        if late is not None and isinstance(result, int):
            late()
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.answer.done():
            return
        if isinstance(result, str):
            waiting.answer.set_exception(_unavailable(self._path, result))
        else:
            waiting.answer.set_result(result)


def _encode(number: int, record: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode({"id": number, "record": record}).encode()


def _decode(data: bytes) -> _Answer:
    """An answer of the writer. Raises ValueError."""
    table = json.loads(data) if data else None
    if not isinstance(table, dict):
        raise ValueError("the audit writer closed the connection")  # noqa: TRY004
    number, seq, signed = table.get("id"), table.get("seq"), table.get("signed")
    if not isinstance(number, int):
        number = 0
    if not isinstance(seq, int):
        return _Answer(number, str(table.get("error", "malformed answer")), "full")
    news = Signed(**signed) if isinstance(signed, dict) else None
    return _Answer(number, seq, str(table.get("space", "ok")), news)


def _unavailable(path: str, reason: str) -> AuditUnavailableError:
    return AuditUnavailableError("the audit writer cannot record", where=path, found=reason)
