"""Engines that are loaded on demand: whoever asks holds a connection, and with it the engine.

The gateway has no right to start units, and must not: it asks on a socket. `load` is answered with
`ready` when the engine has given right answers, or with why not; the engine then stays as long as
the connection. `settle` is answered with `idle` when none is in memory. The supervisor closes its
end last of all, when the engine's memory is free; it serves one connection at a time, so whoever
gets an answer knows that nothing of an earlier lease is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from edgekit.errors import EdgekitError, EngineError
from edgekit.system.notify import notify, watchdog_interval

LOAD, SETTLE = b"load\n", b"settle\n"
READY, IDLE, REFUSED = b"ready\n", b"idle\n", b"refused "
QUESTION_TIMEOUT_S = 5.0
MAX_QUESTION_BYTES = 16
IDLE_POLL_S = 1.0


class LeaseEndedError(Exception):
    """Whoever asked for the engine does not want it any more."""


class Lease:
    """One connection that asked for the engine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def grant(self) -> None:
        """Say that the engine answers. Raises LeaseEndedError."""
        self._say(READY)

    def refuse(self, error: EdgekitError) -> None:
        """Say why it does not; whoever asked may be gone."""
        with contextlib.suppress(LeaseEndedError):
            self._say(REFUSED + error.slug.encode() + b"\n")

    def check(self) -> None:
        """Raises LeaseEndedError when it has ended."""
        self.wait(0)

    def wait(self, seconds: float) -> None:
        """Wait that long, or raise LeaseEndedError at once when it ends."""
        readable, _, _ = select.select([self._connection], [], [], seconds)
        if readable:  # there is nothing more to say than goodbye
            raise LeaseEndedError

    def _say(self, words: bytes) -> None:
        try:
            self._connection.sendall(words)
        except OSError as error:
            raise LeaseEndedError from error


class Lender:
    """The lease socket of one engine."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108
        try:
            self._listener.bind(self._path)
            self._listener.listen()
        except OSError as error:
            raise EngineError(
                "cannot listen for leases", where=self._path, found=error.strerror
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def next(self, interval: float | None) -> Lease:
        """Wait for the next one that asks to load; the watchdog is fed meanwhile."""
        while True:
            self._listener.settimeout(min(interval or IDLE_POLL_S, IDLE_POLL_S))
            if interval is not None:
                notify("WATCHDOG=1")
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            if _question(connection) == LOAD:
                return Lease(connection)
            connection.close()


def _question(connection: socket.socket) -> bytes:
    """What the other side wants; a `settle` is answered. Strangers' noise is empty."""
    connection.settimeout(QUESTION_TIMEOUT_S)
    try:
        question = connection.recv(MAX_QUESTION_BYTES)
        if question == SETTLE:
            connection.sendall(IDLE)
    except OSError:
        return b""
    return question


@contextmanager
def pinging(lease: Lease | None, limit_s: float) -> Iterator[None]:
    """Feed the watchdog while an engine is loaded on demand, for so long at most.

    Its unit has been READY before, so systemd counts from the first ping on; loading may take
    longer than what a hung engine is given.
    """
    interval = watchdog_interval()
    if lease is None or interval is None:
        yield
        return
    done, end = threading.Event(), time.monotonic() + limit_s

    def ping() -> None:
        while not done.wait(interval) and time.monotonic() < end:
            notify("WATCHDOG=1")

    thread = threading.Thread(target=ping, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
