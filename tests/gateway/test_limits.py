"""What one connection may cost: heads, headers, trailers, upgrades, waiting and not reading."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from edgekit.gateway import protocol
from tests.gateway.conftest import Site

BODY = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "x"}]}).encode()


@pytest.fixture
def raw(site: Site) -> Iterator[socket.socket]:
    """A bare connection to the gateway."""
    with socket.create_connection(address(site)) as sock:
        sock.settimeout(10)
        yield sock


def address(site: Site) -> tuple[str, int]:
    return ("127.0.0.1", int(site.url.rpartition(":")[2]))


def head(site: Site, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    port = address(site)[1]
    start = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"x-api-key: {site.token}"]
    return "\r\n".join([*start, *lines, "", ""]).encode()


def to_the_end(sock: socket.socket) -> bytes:
    return sock.makefile("rb").read()


def test_head_over_the_limit_is_431_and_ends_the_connection(site: Site, raw: socket.socket) -> None:
    raw.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * (protocol.MAX_HEADER_BYTES + 1))
    assert to_the_end(raw).startswith(b"HTTP/1.1 431 ")


def test_too_many_headers_are_431(site: Site, raw: socket.socket) -> None:
    lines = [f"X-{number}: 1" for number in range(protocol.MAX_HEADERS)]
    raw.sendall(head(site, *lines, "Content-Length: 0"))
    assert to_the_end(raw).startswith(b"HTTP/1.1 431 ")


def test_trailers_are_refused_and_change_nothing(site: Site, raw: socket.socket) -> None:
    raw.sendall(head(site, "Transfer-Encoding: chunked"))
    raw.sendall(b"%x\r\n%b\r\n0\r\nx-api-key: other\r\n\r\n" % (len(BODY), BODY))
    assert to_the_end(raw) == b""
    assert not site.engine.requests


@pytest.mark.parametrize("pieces", [1, 3])
def test_offer_to_upgrade_is_answered_as_plain_http(
    site: Site, raw: socket.socket, pieces: int
) -> None:
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"Content-Length: {len(BODY)}")
    data = head(site, *fields) + BODY
    size = len(data) // pieces + 1
    for _ in range(2):
        for start in range(0, len(data), size):
            raw.sendall(data[start : start + size])
            time.sleep(0.02)
        answer = b""
        while b'"usage"' not in answer:
            answer += raw.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(site.engine.requests) == 2


@pytest.mark.parametrize("method", ["CONNECT x:1 HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n"])
def test_other_protocols_are_refused(site: Site, raw: socket.socket, method: str) -> None:
    raw.sendall(method.encode() + b"Host: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")
    assert to_the_end(raw)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 403 ", b"")


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
def test_head_that_does_not_come_ends_the_connection(
    site: Site, raw: socket.socket, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    with socket.create_connection(address(site)) as slow:
        slow.settimeout(5)
        slow.sendall(sent)
        began = time.monotonic()
        answer = to_the_end(slow)
        assert 0.1 < time.monotonic() - began < 3
    assert answer.startswith(b"HTTP/1.1 408 ") if sent else answer == b""


def test_second_head_has_a_clock_of_its_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    with socket.create_connection(address(site)) as sock:
        sock.settimeout(5)
        sock.sendall(head(site, f"Content-Length: {len(BODY)}") + BODY)
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.4)  # idle, which is allowed
        sock.sendall(b"GET / HT")
        assert b"HTTP/1.1 408 " in to_the_end(sock)


def test_crowd_is_told_to_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 1)
    with socket.create_connection(address(site)), socket.create_connection(address(site)) as second:
        second.settimeout(5)
        answer = to_the_end(second)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in answer


def test_client_that_reads_nothing_frees_the_engine(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STALL_TIMEOUT_S", 0.3)
    site.engine.repeat = 4000
    body = json.dumps({**json.loads(BODY), "stream": True, "max_tokens": 16}).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(address(site))
        sock.sendall(head(site, f"Content-Length: {len(body)}") + body)
        record = site.wait_for_record("response", timeout_s=15)
    assert record["error"] == "client_gone"
    assert site.engine.running == 0


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: xchunked",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length : 5",),
        (" Content-Length: 5",),
        ("X: a\x00b",),
    ],
)
def test_framing_that_could_smuggle_a_request_is_refused(
    site: Site, raw: socket.socket, fields: tuple[str, ...]
) -> None:
    raw.sendall(head(site, *fields) + b"0\r\n\r\nGET /api/tags HTTP/1.1\r\n\r\n")
    answer = to_the_end(raw)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not site.engine.requests
