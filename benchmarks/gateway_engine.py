"""An engine that costs almost nothing: `python -m benchmarks.gateway_engine SOCKET PORT`.

It answers every request with llama.cpp's stream. The request says how: `max_tokens` events, and the
time between them as `seed` in microseconds (0 for as fast as the socket takes them). Both fields
pass the gateway's policy unchanged, so the same body works directly and through it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

from benchmarks.gateway_loop import run

TURN = 8
"""Events, each written alone, after which the next stream has its turn at full speed."""

HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
    b"Keep-Alive: timeout=5, max=100\r\nTransfer-Encoding: chunked\r\n\r\n"
)
MARKS = {
    "created": 1_700_000_000,
    "id": "chatcmpl-Vb9PqXQzJtWlQ2DqYrO8pK3vTn5aXc1f",
    "model": "demo",
    "system_fingerprint": "b11549-0c1e570",
    "object": "chat.completion.chunk",
}


def event(delta: dict[str, object], reason: str | None = None) -> bytes:
    """One event as llama.cpp's server frames it: one chunk each."""
    choice = {"finish_reason": reason, "index": 0, "delta": delta}
    return chunk(b"data: " + json.dumps({"choices": [choice], **MARKS}).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last(tokens: int) -> bytes:
    """What follows the last token."""
    usage = {"completion_tokens": tokens, "prompt_tokens": 10, "total_tokens": tokens + 10}
    body = json.dumps({"choices": [], **MARKS, "usage": usage}).encode()
    done = chunk(b"data: " + body + b"\n\n") + chunk(b"data: [DONE]\n\n")
    return event({}, "stop") + done + b"0\r\n\r\n"


ROLE = event({"role": "assistant", "content": None})
TOKEN = event({"content": " word"})
WHOLE = json.dumps(
    {
        "choices": [
            {
                "finish_reason": "stop",
                "index": 0,
                "message": {"role": "assistant", "content": " word"},
            }
        ],
        **MARKS,
        "object": "chat.completion",
        "usage": {"completion_tokens": 1, "prompt_tokens": 10, "total_tokens": 11},
    }
).encode()


class Engine(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._data = b""
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        """The reader is behind."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._can_write.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Stop generating."""
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """Collect one request, then answer it."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        if head.startswith(b"GET"):
            self._data = body
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"status":"ok"}'
            )
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._data = b""
        request = json.loads(body)
        if not request.get("stream"):
            length_line = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
            self._transport.write(length_line + str(len(WHOLE)).encode() + b"\r\n\r\n" + WHOLE)
            return
        work = self._stream(request["max_tokens"], request.get("seed", 0) / 1e6)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stream(self, tokens: int, pause_s: float) -> None:
        self._transport.write(HEAD + ROLE)
        if pause_s:
            loop = asyncio.get_running_loop()
            due = loop.time()
            for _ in range(tokens):
                self._transport.write(TOKEN)
                due += pause_s
                await asyncio.sleep(max(0.0, due - loop.time()))
        else:
            for number in range(tokens):
                self._transport.write(TOKEN)
                if number % TURN == 0:
                    await self._can_write.wait()
                    await asyncio.sleep(0)
        self._transport.write(last(tokens))


async def serve(path: str, port: int) -> None:
    """Listen on both until the process ends."""
    loop = asyncio.get_running_loop()
    await loop.create_unix_server(Engine, path, backlog=1024)
    server = await loop.create_server(Engine, "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    with suppress(asyncio.CancelledError):
        await server.serve_forever()


if __name__ == "__main__":
    run(serve(sys.argv[1], int(sys.argv[2])))
