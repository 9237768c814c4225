"""An engine that is not one: llama.cpp's HTTP answers, byte for byte in shape, from a script.

The shapes were recorded from the real server; the conformance suite runs against both. Prompts that
contain a word of `TRICKS` make it misbehave.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import h11

WORDS = ("edge", "kit", " answers", " in", " words", " é", "✓", ".")
TRICKS = (
    "die-midstream",
    "die-early",
    "die-begun",
    "error-midstream",
    "hang",
    "no-end",
    "not-json",
    "call-a-tool",
    "think-first",
)
THOUGHT = ("let me", " think")
CALL = {"name": "look_up", "arguments": '{"place": "bridge"}'}
CONTEXT = 512


@dataclass
class FakeEngine:
    """One listening engine. `delay_s` is the time per token, `close_after` ends kept connections
    behind each answer, `drop_reused` when their next request has already arrived: both happen."""

    socket_path: str
    delay_s: float = 0.0
    repeat: int = 1
    close_after: bool = False
    drop_reused: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    running: int = 0
    peak: int = 0
    aborted: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self.socket_path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.CancelledError, EOFError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state, served = h11.Connection(h11.SERVER), False
        while True:
            method_target, body = await _read_request(state, reader)
            if self.drop_reused and served:
                return
            served = True
            sender = _Sender(state, writer)
            await self._answer(method_target, body, sender, reader)
            if self.close_after or state.our_state is not h11.DONE:
                return
            state.start_next_cycle()

    async def _answer(
        self, target: str, body: bytes, sender: _Sender, reader: asyncio.StreamReader
    ) -> None:
        if target == "/health":
            await sender.whole(200, {"status": "ok"})
            return
        if target == "/metrics":
            name, count = "llamacpp:tokens_predicted_total", 4 * len(self.requests)
            await sender.whole(200, f"# TYPE {name} counter\n{name} {count}\n".encode())
            return
        request = json.loads(body)
        self.requests.append(request)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            work = asyncio.ensure_future(self._generate(target, request, sender))
            left = asyncio.ensure_future(reader.read(1))
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.aborted += 1
                work.cancel()
                raise EOFError
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            work.result()
        finally:
            self.running -= 1

    async def _generate(self, target: str, request: dict[str, Any], sender: _Sender) -> None:
        if target not in ("/v1/chat/completions", "/v1/completions"):
            make = {"/v1/embeddings": _embedded, "/v1/rerank": _ranked}.get(target)
            await sender.whole(*(make(request) if make else _tokens(target, request)))
            return
        chat = target == "/v1/chat/completions"
        prompt = json.dumps(request["messages"]) if chat else _text(request["prompt"])
        trick = next((word for word in TRICKS if word in prompt), "")
        count = len(prompt.split())
        if count > CONTEXT:
            await sender.whole(
                400,
                {
                    "error": {
                        "code": 400,
                        "message": "request exceeds the available context size",
                        "type": "exceed_context_size_error",
                        "n_prompt_tokens": count,
                        "n_ctx": CONTEXT,
                    }
                },
            )
            return
        if trick == "die-early":
            raise EOFError
        if trick == "hang":
            await asyncio.sleep(3600)
        wanted = request.get("max_tokens", 16)
        words = [WORDS[i % len(WORDS)] for i in range(min(wanted, 16 if wanted > 200 else wanted))]
        if trick == "call-a-tool":
            words = []
        words *= self.repeat
        finish = "length" if len(words) == wanted else "stop"
        for text in request.get("stop", []):
            if text in "".join(words):
                words, finish = ["".join(words).partition(text)[0]], "stop"
        if trick == "call-a-tool":
            finish = "tool_calls"
        ending = {"usage": _usage(count, len(words)), "timings": _timings(count, len(words))}
        if request.get("stream"):
            await self._stream(chat, words, finish, ending, request, trick, sender)
        elif trick == "not-json":
            await sender.whole(200, b"<html>")
        else:
            await asyncio.sleep(self.delay_s * len(words))
            text = "".join(words)
            choice = {"finish_reason": finish, "index": 0}
            choice |= (
                {"message": {"role": "assistant", "content": text, **_extras(trick)}}
                if chat
                else {"text": text, "logprobs": None}
            ) | _probabilities(request, words)
            await sender.whole(200, {**_marks(chat, stream=False), "choices": [choice], **ending})

    async def _stream(
        self,
        chat: bool,
        words: list[str],
        finish: str,
        ending: dict[str, Any],
        request: dict[str, Any],
        trick: str,
        sender: _Sender,
    ) -> None:
        marks = _marks(chat, stream=True)
        await sender.start()
        await sender.part(": a comment\n\n")

        async def chunk(part: dict[str, Any], reason: str | None, more: dict[str, Any]) -> None:
            body = {"delta": part} if chat else {"text": part.get("content", ""), "logprobs": None}
            words = [part["content"]] if part.get("content") else []
            choice = {"finish_reason": reason, "index": 0, **body}
            choice |= _probabilities(request, words)
            await sender.event({"choices": [choice], **marks, **more})

        if chat:
            await chunk({"role": "assistant", "content": None}, None, {})
        if trick == "die-begun":
            raise EOFError
        for piece in _extra_deltas(trick):
            await chunk(piece, None, {})
        for number, word in enumerate(words):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if number == 2 and trick == "die-midstream":
                raise EOFError
            if number == 2 and trick == "error-midstream":
                await sender.event(
                    {"error": {"code": 500, "message": "secret path /x", "type": "server_error"}}
                )
                await sender.part("data: [DONE]\n\n")
                await sender.end()
                return
            await chunk({"content": word}, None, {})
        if trick == "no-end":
            await sender.end()
            return
        await chunk({}, finish, {} if chat else ending)
        if chat and request.get("stream_options", {}).get("include_usage"):
            await sender.event({"choices": [], **marks, **ending})
        await sender.part("data: [DONE]\n\n")
        await sender.end()


VOCABULARY = 1024


def _tokens(target: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """One token for each byte of a text, and one before it; a message costs four more."""
    if target == "/tokenize":
        data = request["content"].encode()
        tokens = [{"id": byte + 1, "piece": chr(byte)} for byte in data]
        first = [{"id": 0, "piece": "<|begin|>"}] if request["add_special"] else []
        return 200, {"tokens": first + tokens}
    if target == "/detokenize":
        if max(request["tokens"], default=0) >= VOCABULARY:
            text = "vector::_M_range_check: __n (which is 70000) >= this->size() (which is 1024)"
            return 500, {"error": {"code": 500, "message": text, "type": "server_error"}}
        return 200, {"content": bytes(token - 1 for token in request["tokens"] if token).decode()}
    count = 1 + sum(4 + len(message["content"] or "") for message in request["messages"])
    return 200, {"input_tokens": count, "object": "response.input_tokens"}


def _probabilities(request: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """Each word is one token, and certain; the alternatives are made up."""
    if not request.get("logprobs") or not words:
        return {}
    top = request["logprobs"]
    if top is True:
        top = request.get("top_logprobs", 0)

    def token(word: str, logprob: float) -> dict[str, Any]:
        return {"id": 1, "token": word, "bytes": list(word.encode()), "logprob": logprob}

    rows = [
        {**token(word, -0.1), "top_logprobs": [token(f"{word}{n}", -0.1 - n) for n in range(top)]}
        for word in words
    ]
    return {"logprobs": {"content": rows}}


def _text(prompt: str | list[str | int]) -> str:
    """The text of a prompt, whose parts may be texts and tokens."""
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))


def _embedded(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Vectors of length 1 that depend on the letters of a text."""
    texts = request["input"]
    longest = max(len(text.split()) for text in texts)
    if longest > CONTEXT:
        return _too_large(longest)
    rows = []
    for index, text in enumerate(texts):
        counts = [1 + text.count(letter) for letter in "aeiou tnsr"]
        length = sum(count * count for count in counts) ** 0.5
        vector = [count / length for count in counts]
        rows.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return 200, {"object": "list", "model": "engine", "data": rows, "usage": usage}


def _too_large(tokens: int) -> tuple[int, dict[str, Any]]:
    text = f"input ({tokens} tokens) is too large to process. increase the physical batch "
    text += f"size (current batch size: {CONTEXT})"
    return 500, {"error": {"code": 500, "message": text, "type": "server_error"}}


def _ranked(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Documents score by the words of the query in them; best first, as the engine sorts them."""
    words = set(request["query"].lower().split())
    longest = max(len(text.split()) for text in request["documents"])
    if longest > CONTEXT:
        return _too_large(longest)
    if "not-json" in words:
        return 200, {"results": [{"index": 0}]}
    scored = [
        {"index": index, "relevance_score": float(len(words & set(text.lower().split())))}
        for index, text in enumerate(request["documents"])
    ]
    scored.sort(key=lambda row: -row["relevance_score"])
    tokens = sum(len(text.split()) for text in request["documents"])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    table = {"object": "list", "model": "engine", "usage": usage, "results": scored}
    return 200, table


def _extras(trick: str) -> dict[str, Any]:
    """What a whole message has beside its text."""
    if trick == "think-first":
        return {"reasoning_content": "".join(THOUGHT)}
    if trick == "call-a-tool":
        return {"tool_calls": [{"type": "function", "function": CALL, "id": "fake1"}]}
    return {}


def _extra_deltas(trick: str) -> list[dict[str, Any]]:
    """The same as the engine streams it: name first, then the arguments in pieces."""
    if trick == "think-first":
        return [{"reasoning_content": text} for text in THOUGHT]
    if trick != "call-a-tool":
        return []
    first = {"name": CALL["name"], "arguments": ""}
    text = CALL["arguments"]
    calls: list[dict[str, Any]] = [
        {"index": 0, "id": "fake1", "type": "function", "function": first},
        {"index": 0, "function": {"arguments": text[:9]}},
        {"index": 0, "function": {"arguments": text[9:]}},
    ]
    return [{"tool_calls": [call]} for call in calls]


class _Sender:
    def __init__(self, state: h11.Connection, writer: asyncio.StreamWriter) -> None:
        self._state = state
        self._writer = writer

    async def whole(self, status: int, body: object) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._write(
            h11.Response(
                status_code=status,
                headers=[("Content-Type", "application/json"), ("Content-Length", str(len(data)))],
            )
        )
        self._write(h11.Data(data=data))
        await self.end()

    async def start(self) -> None:
        self._write(
            h11.Response(
                status_code=200,
                headers=[("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")],
            )
        )

    async def event(self, body: object) -> None:
        await self.part(f"data: {json.dumps(body, ensure_ascii=False)}\n\n")

    async def part(self, text: str) -> None:
        self._write(h11.Data(data=text.encode()))
        await self._writer.drain()

    async def end(self) -> None:
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    def _write(self, event: Any) -> None:
        self._writer.write(self._state.send(event) or b"")


async def _read_request(state: h11.Connection, reader: asyncio.StreamReader) -> tuple[str, bytes]:
    target, parts = "", []
    while True:
        event = state.next_event()
        if event is h11.NEED_DATA:
            state.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            target = event.target.decode()
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return target, b"".join(parts)
        else:
            raise EOFError


def _marks(chat: bool, *, stream: bool) -> dict[str, Any]:
    kind = "text_completion"
    if chat:
        kind = "chat.completion.chunk" if stream else "chat.completion"
    return {
        "created": int(time.time()),
        "id": "chatcmpl-engine",
        "model": "/secret/path.gguf",
        "system_fingerprint": "b0-fake",
        "object": kind,
    }


def _usage(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    return {
        "completion_tokens": tokens_out,
        "prompt_tokens": tokens_in,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _timings(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    return {
        "cache_n": 0,
        "prompt_n": tokens_in,
        "prompt_ms": 0.1,
        "predicted_n": tokens_out,
        "predicted_ms": 0.2,
    }


async def _serve_forever(socket_path: str, delay_s: float) -> None:
    await FakeEngine(socket_path, delay_s).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    import sys

    asyncio.run(_serve_forever(sys.argv[1], float(sys.argv[2])))
