"""The load: `python -m benchmarks.gateway_load streams ADDRESS STREAMS TOKENS PAUSE_US ROUNDS KEY`.

STREAMS clients connect first and then ask all at once, for TOKENS tokens each, ROUNDS times over.
Prints one JSON line with the time to the first token of every answer (ms), the seconds until the
last one ended, summed over the rounds, and the tokens that arrived. ADDRESS is a
socket's path or `host:port`.

`calls ADDRESS CONNECTIONS REQUESTS KEY` asks for whole answers of one token instead.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks.gateway_loop import run

MARK = b'"content":'
"""Once in each event that carries a token, and in the first one that carries none."""


class Client(asyncio.Protocol):
    """One stream."""

    def __init__(self) -> None:
        self.tokens = 0
        self._begin()

    def _begin(self) -> None:
        self.first_s = 0.0
        self.ended = asyncio.get_running_loop().create_future()
        self._marks = 0
        self._tail = b""
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes) -> None:
        """Send the request; the clock of the first token starts now."""
        self._begin()
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count tokens."""
        if len(self._head) < 12:
            self._head += data[:12]
            if not b"HTTP/1.1 200".startswith(self._head):
                raise SystemExit(f"refused: {data!r}")
        data = self._tail + data
        self._marks += data.count(MARK)
        # a mark, or the end, may be cut in two by the pieces in which the stream arrives
        self._tail = data[-(len(MARK) - 1) :]
        if not self.first_s and self._marks > 1:
            self.first_s = time.perf_counter() - self._began
        if data.endswith(b"\r\n0\r\n\r\n") and not self.ended.done():
            self.tokens += self._marks - 1
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """A stream that breaks off is a failure of the run."""
        if not self.ended.done():
            self.ended.set_exception(exc or EOFError("the stream broke off"))


def request_bytes(
    tokens: int, pause_us: int, token: str, host: str, *, stream: bool = True
) -> bytes:
    """A chat request; the engine reads `seed` as its pause."""
    body = json.dumps(
        {
            "model": "demo",
            "messages": [{"role": "user", "content": "What is an edge kit, in one sentence?"}],
            "max_tokens": tokens,
            "seed": pause_us,
            "logit_bias": {"1": -100},  # the demo weights' end of text: answers have full length
            "stream": stream,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def connect(address: str) -> Client:
    """A connected client."""
    loop = asyncio.get_running_loop()
    if "/" in address:
        _, client = await loop.create_unix_connection(Client, address)
    else:
        host, _, port = address.rpartition(":")
        _, client = await loop.create_connection(Client, host, int(port))
    return client


async def measure(
    address: str, streams: int, tokens: int, pause_us: int, rounds: int, token: str
) -> None:
    """Bursts, one after the other, on the same connections."""
    clients = [await connect(address) for _ in range(streams)]
    request = request_bytes(tokens, pause_us, token, address if "/" not in address else "engine")
    firsts: list[float] = []
    seconds = 0.0
    for _ in range(rounds):
        began = time.perf_counter()
        for client in clients:
            client.ask(request)
        await asyncio.gather(*(client.ended for client in clients))
        seconds += time.perf_counter() - began
        firsts += [round(client.first_s * 1000, 3) for client in clients]
    count = sum(client.tokens for client in clients)
    print(json.dumps({"first_ms": firsts, "seconds": seconds, "tokens": count}))


class Caller(asyncio.Protocol):
    """One connection that asks again and again and wants whole answers."""

    def __init__(self, request: bytes, count: int) -> None:
        self._request = request
        self._left = count
        self._data = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Ask again after a whole answer."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"refused: {self._data!r}")
        if len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        self._data = b""
        self._left -= 1
        if self._left:
            self._transport.write(self._request)
        else:
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that breaks off is a failure of the run."""
        if not self.ended.done():
            self.ended.set_exception(exc or EOFError("the connection broke off"))


async def measure_calls(address: str, connections: int, requests: int, token: str) -> None:
    """Whole answers per second."""
    loop = asyncio.get_running_loop()
    local = "/" in address
    request = request_bytes(1, 0, token, "engine" if local else address, stream=False)
    share = requests // connections
    callers = []
    began = time.perf_counter()
    for _ in range(connections):
        if local:
            _, caller = await loop.create_unix_connection(lambda: Caller(request, share), address)
        else:
            host, _, port = address.rpartition(":")
            _, caller = await loop.create_connection(
                lambda: Caller(request, share), host, int(port)
            )
        callers.append(caller)
    await asyncio.gather(*(caller.ended for caller in callers))
    print(json.dumps({"seconds": time.perf_counter() - began, "requests": share * connections}))


if __name__ == "__main__":
    kind_, address_, *rest = sys.argv[1:]
    token_ = rest.pop()
    numbers = [int(number) for number in rest]
    if kind_ == "streams":
        run(measure(address_, *numbers, token_))
    else:
        run(measure_calls(address_, *numbers, token_))
