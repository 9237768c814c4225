"""Malformed requests against a running gateway: `python -m tests.fuzz.gateway [COUNT] [SEED]`.

Every case is wrong in at least one way that is known to be wrong. The gateway must answer 4xx or
close the connection; the engine must never see any of it; memory must not grow; afterwards a good
request is answered and the audit log verifies.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.api_keys import KeyRing, encode_keys
from edgekit.core.appliance import encode_appliance
from edgekit.operations.audit import verify_audit
from tests.gateway.conftest import make_appliance, make_key
from tests.support.daemons import running, running_auditd
from tests.support.fake_engine import FakeEngine

COUNT = 100_000
WORKERS = 24
MAX_GROWTH_BYTES = 24 << 20
ANSWER_TIMEOUT_S = 20.0

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "demo", "prompt": "x", "max_tokens": 3},
    "/v1/responses": {"model": "demo", "input": "x"},
    "/v1/messages": {**CHAT, "max_tokens": 3},
    "/v1/responses/input_tokens": {"model": "demo", "input": "x"},
    "/v1/messages/count_tokens": {"model": "demo", "messages": CHAT["messages"]},
    "/tokenize": {"model": "demo", "prompt": "x"},
    "/detokenize": {"model": "demo", "tokens": [1, 2]},
    "/api/chat": {"model": "demo", "messages": CHAT["messages"]},
    "/api/generate": {"model": "demo", "prompt": "x"},
}
WRONG_VALUES: list[Any] = [
    -1, -(2**63), 2**70, 1e308, -0.5, "", "x", [], {}, [[]], True, "\x00", [None], {"a": {}},
]  # fmt: skip
STRANGE_FIELDS = (
    "n_discard", "prompt_embeds", "chat_template", "chat_template_kwargs", "grammar", "id_slot",
    "cache_prompt", "lora", "samplers", "n_keep", "mm_processor_kwargs", "guided_regex",
    "__proto__", "best_of ", "Temperature", "stream\u0000",
)  # fmt: skip


@dataclass
class Case:
    """Bytes for one connection, whose sending side is then shut."""

    kind: str
    data: bytes


class Maker:
    """Makes cases from one random source; the same seed makes the same cases."""

    def __init__(self, seed: int, port: int, token: str) -> None:
        self._random = random.Random(seed)
        self._port = port
        self._token = token
        self._kinds: list[tuple[str, Callable[[], bytes]]] = [
            (name.removeprefix("_make_"), getattr(self, name))
            for name in sorted(dir(self))
            if name.startswith("_make_")
        ]

    def case(self, number: int) -> Case:
        """Kinds take turns, so that each is there in equal parts."""
        kind, make = self._kinds[number % len(self._kinds)]
        return Case(kind, make())

    def _request(self, path: str, body: bytes, *more: str, length: str | None = None) -> bytes:
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self._port}",
            f"Authorization: Bearer {self._token}",
            *more,
        ]
        if length is None:
            lines.append(f"Content-Length: {len(body)}")
        elif length:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _path(self) -> str:
        return self._random.choice(list(BODIES))

    def _good(self, path: str) -> bytes:
        return json.dumps(BODIES[path]).encode()

    def _json(self, path: str, table: object) -> bytes:
        return self._request(path, json.dumps(table, ensure_ascii=False).encode("utf-8", "replace"))

    # bodies that are JSON, and say what no policy allows

    def _make_wrong_type_of_required_field(self) -> bytes:
        path = self._path()
        table = dict(BODIES[path])
        name = self._random.choice(
            [k for k in table if k in ("model", "messages", "prompt")] or ["model"]
        )
        table[name] = self._random.choice([-1, 2.5, True, {}, [[]], [1], {"a": 1}])
        return self._json(path, table)

    def _make_unknown_field(self) -> bytes:
        path = self._path()
        name = self._random.choice(STRANGE_FIELDS)
        return self._json(path, {**BODIES[path], name: self._random.choice(WRONG_VALUES)})

    def _make_number_out_of_range(self) -> bytes:
        names = ("temperature", "top_p", "top_k", "presence_penalty", "max_tokens", "seed", "min_p")
        name = self._random.choice(names)
        value = self._random.choice([-(2**62), -10.5, 1e300, 2**60, -3, 10**18])
        if name == "seed":
            value = 2**60
        table = {**CHAT, name: value}
        return self._json("/v1/chat/completions", table)

    def _make_option_out_of_range(self) -> bytes:
        name = self._random.choice(("temperature", "top_p", "top_k", "evil"))
        value = self._random.choice([-99, -1e9, 10**12, "x", [], True])
        return self._json("/api/generate", {**BODIES["/api/generate"], "options": {name: value}})

    def _make_media_by_address(self) -> bytes:
        url = self._random.choice(
            (
                "http://169.254.169.254/",
                "file:///etc/passwd",
                "https://x/y.png",
                "gopher://x",
                "//x",
            )
        )
        part = {"type": "image_url", "image_url": {"url": url}}
        table = {**CHAT, "messages": [{"role": "user", "content": [part]}]}
        return self._json("/v1/chat/completions", table)

    # bodies that are not strict JSON

    def _make_bad_utf8(self) -> bytes:
        path = self._path()
        body = bytearray(self._good(path))
        bad = self._random.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8", b"\x80"))
        at = body.index(b"demo") + self._random.randrange(4)
        return self._request(path, bytes(body[:at]) + bad + bytes(body[at:]))

    def _make_duplicate_key(self) -> bytes:
        path = self._path()
        key = self._random.choice(list(BODIES[path]))
        twice = json.dumps({key: BODIES[path][key]})[1:-1].encode()
        return self._request(path, b"{" + twice + b"," + self._good(path)[1:])

    def _make_deep_nesting(self) -> bytes:
        path, depth = self._path(), self._random.choice((33, 100, 5000, 100_000))
        opening, closing = self._random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        deep = opening * depth + b"1" + closing * self._random.choice((depth, 0))
        return self._request(path, self._good(path)[:-1] + b',"x":' + deep + b"}")

    def _make_not_a_number(self) -> bytes:
        word = self._random.choice(
            (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"+1", b".5")
        )
        body = self._good("/v1/chat/completions")[:-1] + b',"temperature":' + word + b"}"
        return self._request("/v1/chat/completions", body)

    def _make_truncated_json(self) -> bytes:
        path = self._path()
        body = self._good(path)
        return self._request(path, body[: self._random.randrange(len(body))])

    def _make_noise(self) -> bytes:
        body = self._random.randbytes(self._random.randrange(1, 300))
        return self._request(self._path(), b"\x01" + body)

    # heads that are not HTTP, or could smuggle a request

    def _make_two_lengths(self) -> bytes:
        path = self._path()
        body = self._good(path)
        other = f"Content-Length: {len(body) + self._random.choice((-1, 1, 50))}"
        return self._request(path, body, other)

    def _make_length_and_chunked(self) -> bytes:
        path = self._path()
        body = self._good(path)
        hidden = b"0\r\n\r\n" + self._request(path, body)
        coding = self._random.choice(("chunked", "Chunked", "identity, chunked", "chunked "))
        return self._request(path, hidden, f"Transfer-Encoding: {coding}", length="5")

    def _make_bad_length(self) -> bytes:
        path = self._path()
        words = ("-1", "+10", "0x10", "1e3", "", "99999999999999999999", "10 10", "10,10", "\u0661")
        length = self._random.choice(words) or " "
        return self._request(
            path, self._good(path), length=length.encode("utf-8").decode("latin-1")
        )

    def _make_bad_chunks(self) -> bytes:
        path = self._path()
        body = self._good(path)
        size = self._random.choice((b"-1", b"zz", b"ffffffffffffffffff", b"0x10", b" 5", b""))
        data = size + b"\r\n" + body + b"\r\n0\r\n\r\n"
        return self._request(path, data, "Transfer-Encoding: chunked", length="")

    def _make_trailers(self) -> bytes:
        path = self._path()
        body = self._good(path)
        data = b"%x\r\n%b\r\n0\r\nHost: evil\r\n\r\n" % (len(body), body)
        return self._request(path, data, "Transfer-Encoding: chunked", length="")

    def _make_bad_header(self) -> bytes:
        path = self._path()
        line = self._random.choice(
            (
                "Bad Name: x",
                "X\x00: y",
                "X: \x00",
                ": x",
                "X",
                "Content-Length : 5",
                "X: a\rb",
                "\x7f: x",
            )
        )
        return self._request(path, self._good(path), line)

    def _make_bad_request_line(self) -> bytes:
        line = self._random.choice(
            (
                b"", b"GET", b"GET / HTTP/9.9", b"get / HTTP/1.1", b"GET  / HTTP/1.1",
                b"GET / HTTP/1.1 x",
                b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.0", b"GET / HTCPCP/1.0",
                b"POST /v1/chat/completions HTTP/1.1\x00", b"G\xc3\x89T / HTTP/1.1",
            )
        )  # fmt: skip
        return line + b"\r\nHost: x\r\n\r\n"

    def _make_huge_head(self) -> bytes:
        path = self._path()
        more = self._random.choice(
            (["X: " + "a" * 20_000], [f"X-{i}: 1" for i in range(200)], ["X" * 20_000 + ": a"])
        )
        return self._request(path, self._good(path), *more)

    def _make_foreign_host(self) -> bytes:
        data = self._request("/v1/chat/completions", self._good("/v1/chat/completions"))
        host = self._random.choice(
            (b"evil.example", b"127.0.0.1:1", b"", b"[::1", b"localhost.evil")
        )
        return data.replace(f"127.0.0.1:{self._port}".encode(), host, 1)

    def _make_bad_key(self) -> bytes:
        path = self._path()
        data = self._request(path, self._good(path))
        token = self._random.choice(
            (b"x", b"", b"ek_00000000_" + b"A" * 43, b"\xff" * 50, b"a" * 9000)
        )
        return data.replace(self._token.encode(), token, 1)

    def _make_cut_off(self) -> bytes:
        path = self._path()
        data = self._request(path, self._good(path))
        return data[: self._random.randrange(1, len(data) - 1)]

    def _make_compressed(self) -> bytes:
        path = self._path()
        coding = self._random.choice(("gzip", "br", "deflate", "zstd", "gzip, identity"))
        return self._request(path, self._good(path), f"Content-Encoding: {coding}")


@dataclass
class Tally:
    """What was planned and what happened."""

    planned: int
    fired: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    engine_requests: int = 0
    resident: list[int] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Why the run is a failure; empty when it is none."""
        found = self.wrong[:10]
        if sum(self.fired.values()) < self.planned:
            found.append(f"fired {sum(self.fired.values())} of {self.planned}")
        if self.engine_requests:
            found.append(f"the engine saw {self.engine_requests} requests")
        if self.resident and self.resident[-1] - self.resident[0] > MAX_GROWTH_BYTES:
            found.append(f"memory grew from {self.resident[0]} to {self.resident[-1]} bytes")
        return found


async def _fire(case: Case, port: int, tally: Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        with suppress(ConnectionError):
            writer.write(case.data)
            writer.write_eof()
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await reader.read(1 << 16)
        tally.fired[case.kind] += 1
    except TimeoutError:
        tally.wrong.append(f"{case.kind}: no answer to {case.data[:300]!r}")
    finally:
        writer.close()
    status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"
    tally.answers[status] += 1
    if status != "closed" and not status.startswith("4"):
        tally.wrong.append(f"{case.kind}: {answer[:200]!r} to {case.data[:300]!r}")


async def _barrage(maker: Maker, count: int, port: int, pid: int, tally: Tally) -> None:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await _fire(maker.case(number), port, tally)
            if number % max(1, count // 20) == count // 20 - 1:
                tally.resident.append(_resident(pid))

    await asyncio.gather(*(work() for _ in range(WORKERS)))


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


async def _good_request(maker: Maker, port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(maker._request("/v1/chat/completions", json.dumps(CHAT).encode()))
    answer = await reader.read(1 << 16)
    writer.close()
    return answer


def run(work: Path, count: int, seed: int) -> Tally:
    """One barrage against a gateway of its own. Raises AssertionError when it is harmed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    key, token = make_key("chat", "embed")
    (work / "keys.json").write_bytes(encode_keys(KeyRing((key,))))
    appliance = make_appliance(work, port, engine_socket=str(work / "engine.sock"))
    (work / "appliance.json").write_bytes(encode_appliance(appliance))
    arguments = ["--appliance", work / "appliance.json", "--keys", work / "keys.json"]
    tally = Tally(count)
    with (
        running_auditd(work),
        running("edgekit.gateway.daemon", arguments, work) as daemon,
    ):
        maker = Maker(seed, port, token)

        async def scene() -> None:
            engine = FakeEngine(str(work / "engine.sock"))
            await engine.start()
            await _barrage(maker, count, port, daemon.process.pid, tally)
            tally.engine_requests = len(engine.requests)
            answer = await _good_request(maker, port)
            assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
            await engine.stop()

        asyncio.run(scene())
        assert daemon.process.poll() is None
    summary = verify_audit(work / "audit")
    # the one request is the good one at the end: nothing malformed came as far as a record
    if (summary.requests, summary.orphans) != (1, 0):
        tally.wrong.append(f"{summary.requests} request records, {summary.orphans} orphans")
    return tally


def main() -> int:
    """Run, print planned and fired, and return 1 when anything is wrong."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    with tempfile.TemporaryDirectory() as place:
        tally = run(Path(place), count, seed)
    print(f"seed {seed}: planned {tally.planned}, fired {sum(tally.fired.values())}")
    print("kinds:", ", ".join(f"{kind} {n}" for kind, n in sorted(tally.fired.items())))
    print("answers:", dict(sorted(tally.answers.items())))
    print("engine requests:", tally.engine_requests)
    print("resident MiB:", [size >> 20 for size in tally.resident])
    for problem in tally.problems():
        print("WRONG:", problem)
    return bool(tally.problems())


if __name__ == "__main__":
    sys.exit(main())
