"""Records that wait at the same moment travel together, and each has its own answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgekit.auditd.protocol import parse_datagram
from edgekit.core.audit_wire import MAX_LINES, MAX_QUESTIONS_BYTES, join_lines
from edgekit.errors import AuditUnavailableError
from edgekit.system.audit_client import AsyncAuditClient

RECORD = {"type": "request"}


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket that takes records and answers nothing by itself."""
    path = str(tmp_path / "audit.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(path)
        sock.listen()
        yield path, sock


def talk(path: str, work: Callable[[AsyncAuditClient], Awaitable[None]]) -> None:
    async def run() -> None:
        client = AsyncAuditClient(path)
        try:
            async with asyncio.timeout(30):
                await work(client)
        finally:
            client.close()

    asyncio.run(run())


def lines_of(datagram: bytes) -> list[int]:
    return [json.loads(line)["id"] for line in datagram.split(b"\n")]


def test_the_first_record_of_a_turn_goes_alone_and_the_others_together(
    listener: tuple[str, socket.socket],
) -> None:
    path, sock = listener
    got: list[list[int]] = []

    async def work(client: AsyncAuditClient) -> None:
        with suppress(AuditUnavailableError):
            await client.append(RECORD, within_s=0)  # connects
        peer = sock.accept()[0]
        with closing(peer):
            assert lines_of(peer.recv(MAX_QUESTIONS_BYTES)) == [1]
            waiting = [asyncio.create_task(client.append(RECORD)) for _ in range(100)]
            await asyncio.sleep(0.1)
            peer.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    got.append(lines_of(peer.recv(MAX_QUESTIONS_BYTES)))
            for number in range(2, 102):
                peer.send(b'{"id":%d,"seq":%d}\n{"id":9999,"seq":1}' % (number, number + 1000))
            assert await asyncio.gather(*waiting) == list(range(1002, 1102))

    talk(path, work)
    assert got == [[2], list(range(3, 102))]


def test_a_record_that_was_given_up_is_not_sent(listener: tuple[str, socket.socket]) -> None:
    path, sock = listener
    got: list[bytes] = []

    async def work(client: AsyncAuditClient) -> None:
        with suppress(AuditUnavailableError):
            await client.append(RECORD, within_s=0)
        peer = sock.accept()[0]
        with closing(peer):
            peer.recv(MAX_QUESTIONS_BYTES)
            tasks = [asyncio.create_task(client.append(RECORD)) for _ in range(3)]
            # after their first step, before the end of that turn
            asyncio.get_running_loop().call_soon(tasks[1].cancel)
            await asyncio.sleep(0.1)
            peer.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    got.append(peer.recv(MAX_QUESTIONS_BYTES))
            for task in tasks:
                task.cancel()

    talk(path, work)
    assert [number for data in got for number in lines_of(data)] == [2, 4]


def test_a_writer_that_is_behind_gets_all_of_it_later(listener: tuple[str, socket.socket]) -> None:
    path, sock = listener
    large = {"type": "request", "text": "x" * 60_000}
    got: list[int] = []

    async def work(client: AsyncAuditClient) -> None:
        tasks = [asyncio.create_task(client.append(large)) for _ in range(40)]
        await asyncio.sleep(0.1)
        peer = sock.accept()[0]
        with closing(peer):
            peer.setblocking(False)
            while len(got) < 40:
                with suppress(BlockingIOError):
                    number = lines_of(peer.recv(MAX_QUESTIONS_BYTES))[0]
                    got.append(number)
                    peer.send(b'{"id":%d,"seq":%d}' % (number, number))
                await asyncio.sleep(0.002)
            assert await asyncio.gather(*tasks) == list(range(1, 41))

    talk(path, work)
    assert got == list(range(1, 41))


def test_every_line_has_its_own_fate() -> None:
    lines = [b'{"id":1,"record":{"type":"x"}}', b"{", b"", b'{"id":2,"record":{"type":"y"}}']
    first, second, third, last = parse_datagram(b"\n".join(lines), peer_uid=7)
    assert first.event is not None
    assert first.event.fields == {"type": "x", "peer_uid": 7}
    assert (second.number, second.event, third.number, third.event) == (None,) * 4
    assert last.number == 2
    assert last.event is not None


def test_too_many_lines_are_refused_as_one() -> None:
    (wish,) = parse_datagram(b"\n" * MAX_LINES, peer_uid=7)
    assert wish.event is None
    assert "more than" in wish.refusal
    assert len(parse_datagram(b"\n" * (MAX_LINES - 1), peer_uid=7)) == MAX_LINES


@example([b""] * (2 * MAX_LINES + 1), 4096)
@given(
    st.lists(st.binary(max_size=50).map(lambda b: b.replace(b"\n", b".")), max_size=90),
    st.sampled_from((64, 4096)),
)
def test_joined_lines_are_all_there_and_within_the_limit(lines: list[bytes], limit: int) -> None:
    joined = list(join_lines(lines, limit))
    assert [line for _, data in joined for line in data.split(b"\n")] == lines
    assert [count for count, _ in joined] == [len(d.split(b"\n")) for _, d in joined]
    assert all(len(data) <= limit and count <= MAX_LINES for count, data in joined)
