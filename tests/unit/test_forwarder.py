"""The forwarder as its own process: every record, in order, however slow the receiver is."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edgekit.core.forward_state import parse_forward_state
from tests.support.audit_logs import Written, start_log, write_requests
from tests.support.daemons import Daemon, running

MODULE = "edgekit.forwarder.daemon"
KIND = re.compile(rb"<(\d+)>1 \S+ \S+ edgekit-audit - (\S+) \[edgekit@32473 seq=\"(\d+)\"")


@pytest.fixture
def log(tmp_path: Path) -> Written:
    return start_log(tmp_path / "audit", segment_bytes=6_000)


def receiver(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(10)
    return sock


def forwarding(work: Path, extra: str = "") -> AbstractContextManager[Daemon]:
    config = work / "edgekit.toml"
    config.write_text(
        f'schema = 1\n[audit]\nforward = "syslog"\nsyslog_socket = "{work}/log"\n{extra}'
    )
    arguments = ("--log", work / "audit", "--config", config)
    return running(MODULE, arguments, work, environment={"STATE_DIRECTORY": str(work)})


def sequence(sock: socket.socket, count: int) -> list[int]:
    seen = []
    for _ in range(count):
        match = KIND.match(sock.recv(1 << 20))
        assert match
        seen.append(int(match[3]))
    return seen


def stopped(daemon: Daemon, work: Path) -> tuple[int, int]:
    """How far it got and what it dropped, once stopped."""
    assert daemon.stop() == 0
    state = parse_forward_state((work / "forward.json").read_bytes())
    return state.seq, state.dropped


def test_every_record_once_across_restarts(tmp_path: Path, log: Written) -> None:
    write_requests(log, 20)
    with receiver(tmp_path / "log") as sock:
        with forwarding(tmp_path) as daemon:
            assert sequence(sock, len(log.lines())) == list(range(1, len(log.lines()) + 1))
            done = len(log.lines())
            assert stopped(daemon, tmp_path) == (done, 0)
        write_requests(log, 20)
        total = len(log.lines())
        with forwarding(tmp_path, 'forward_format = "cef"\n') as daemon:
            message = sock.recv(1 << 20)
            assert f'seq="{done + 1}"'.encode() in message
            assert b"CEF:0|edgekit|edgekit|" in message
            assert sequence(sock, total - done - 1) == list(range(done + 2, total + 1))
            assert stopped(daemon, tmp_path) == (total, 0)


def test_receiver_that_is_stuck_or_gone_is_waited_for(tmp_path: Path, log: Written) -> None:
    write_requests(log, 2_000, batch=50)
    total = len(log.lines())
    with forwarding(tmp_path) as daemon:  # nobody listens yet
        with receiver(tmp_path / "log") as sock:
            time.sleep(3)  # longer than the buffers last
            write_requests(log, 5)  # the writer is not held up
            first = sequence(sock, 100)
        (tmp_path / "log").unlink()  # the receiver restarts; its queue is lost, as syslog's is
        with receiver(tmp_path / "log") as sock:
            (again,) = sequence(sock, 1)
            assert first == list(range(1, 101))
            assert again > first[-1]
            last = len(log.lines())
            assert sequence(sock, last - again) == list(range(again + 1, last + 1))
            assert last > total
            assert stopped(daemon, tmp_path) == (last, 0)


def test_what_retention_removed_first_is_counted(tmp_path: Path, log: Written) -> None:
    write_requests(log, 60)
    segments = log.segments()
    assert len(segments) > 3
    for path in segments[:2]:
        path.unlink()
    gone = int(segments[2].name[6:22]) - 1
    with receiver(tmp_path / "log") as sock, forwarding(tmp_path) as daemon:
        total = len(log.lines())
        assert sequence(sock, total)[0] == gone + 1
        assert stopped(daemon, tmp_path) == (gone + total, gone)
    assert f"dropped {gone} records" in (tmp_path / f"{MODULE}.log").read_text()


def test_switched_off_it_ends_at_once(tmp_path: Path, log: Written) -> None:
    write_requests(log, 1)
    config = tmp_path / "edgekit.toml"
    config.write_text("schema = 1\n")
    with running(MODULE, ("--log", log.directory, "--config", config), tmp_path) as daemon:
        assert daemon.process.wait(10) == 0


def test_damaged_state_is_refused(tmp_path: Path, log: Written) -> None:
    write_requests(log, 1)
    (tmp_path / "forward.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(AssertionError, match="ended with 10"), forwarding(tmp_path):
        pass
