"""Who writes records hears up to where the log has been signed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.auditd.server import Server, listen
from edgekit.auditd.writer import Writer
from edgekit.core.audit_chain import Pace
from edgekit.core.site_config import AuditConfig
from edgekit.system.audit_client import AsyncAuditClient, Signed
from edgekit.system.audit_log import LogSettings, make_log_folder, open_audit_log
from edgekit.system.audit_space import Space, ensure_capacity

RECORD = {"type": "request", "unit": "gateway", "request_id": "req-1"}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Path]:
    """A writer whose epochs have eight records; the path of its socket."""
    folder, path = tmp_path / "audit", tmp_path / "audit.sock"
    make_log_folder(folder)
    capacity, _ = ensure_capacity(folder, AuditConfig())
    settings = LogSettings(pace=Pace(300, records=8))
    made = Writer(lambda: open_audit_log(folder, settings=settings), Space(folder, capacity))
    stopping, stop = socket.socketpair()
    with listen(path) as listener, stopping, stop:
        server = Server(made, listener, stopping, ping=lambda: None, ping_every=None)
        thread = threading.Thread(target=server.run)
        thread.start()
        yield path
        stop.send(b"x")
        thread.join(10)
        server.close()
        made.close()


def test_a_checkpoint_is_told_once_with_the_next_record(writer: Path) -> None:
    began = time.time()

    async def write() -> tuple[list[Signed | None], int]:
        client, heard = AsyncAuditClient(str(writer)), list[Signed | None]()
        last = 0
        for _ in range(10):
            last = await client.append(RECORD)
            heard.append(client.signed)
        await asyncio.sleep(1.5)  # signing waits until nobody has to wait for it
        last = await client.append(RECORD)
        heard.append(client.signed)
        client.close()
        return heard, last

    heard, last = asyncio.run(write())
    assert heard[:7] == [None] * 7
    signed = heard[-1]
    assert signed is not None
    assert 8 <= signed.seq < last
    assert began <= signed.t_utc / 1e6 <= time.time()


def test_an_ack_is_told_to_each_who_writes(writer: Path) -> None:
    async def write() -> Signed | None:
        first, second = AsyncAuditClient(str(writer)), AsyncAuditClient(str(writer))
        for _ in range(10):
            await first.append(RECORD)
        await asyncio.sleep(1.5)
        await second.append(RECORD)
        first.close()
        second.close()
        return second.signed

    assert asyncio.run(write()) is not None
