"""The audit writer as a real process: durable answers, group commit, crashes, failing disks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.audit_keys import encode_audit_key
from edgekit.core.audit_record import REKEY, AuditEvent, check_event
from edgekit.errors import (
    AuditAlteredError,
    AuditError,
    AuditMissingError,
    AuditTruncatedError,
    AuditUnavailableError,
)
from edgekit.operations.audit import Brought, tail_audit, verify_audit
from edgekit.system.audit_client import AsyncAuditClient, append_event
from edgekit.system.audit_files import read_head
from edgekit.system.audit_log import AuditLog, LogSettings, open_audit_log
from edgekit.system.audit_secrets import load_mac_key
from tests.support.daemons import running, running_auditd


def only_segment(directory: Path) -> Path:
    (path,) = directory.glob("audit-*.jsonl")
    return path


OF_SIX = 8
"""Records of a log filled with six: its first, five requests, the epoch's end, a checkpoint."""


def filled_log(directory: Path, count: int = 6, **options: object) -> None:
    log = open_audit_log(directory, **options)  # type: ignore[arg-type]
    for number in range(count - 1):
        log.append_batch([check_event({"type": "request", "n": number})])
    log.close()


def append_often(log: AuditLog, event: AuditEvent, count: int) -> None:
    for _ in range(count):
        log.append_batch([event])


def append_until_refused(path: Path) -> int:
    for written in range(50):
        try:
            append_event(str(path), {"type": "x"})
        except AuditUnavailableError:
            return written
    raise AssertionError("never refused")


def test_records_are_numbered_durable_and_name_their_writer(tmp_path: Path) -> None:
    with running_auditd(tmp_path) as daemon:
        path = str(tmp_path / "audit.sock")
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o660
        first = append_event(path, {"type": "config", "peer_uid": 12345})
        assert append_event(path, {"type": "config"}) == first + 1
        assert verify_audit(tmp_path / "audit").records == first + 1  # while it runs
        until = time.monotonic() + 10
        while verify_audit(tmp_path / "audit").unacknowledged:  # the head follows
            assert time.monotonic() < until
            time.sleep(0.02)
        assert daemon.stop() == 0
    records = tail_audit(tmp_path / "audit", 10)
    types = [record["type"] for record in records]
    begin, end = ["segment", "capacity", "start"], ["stop", "epoch", "checkpoint"]
    assert types == [*begin, "config", "config", *end]
    assert records[3]["peer_uid"] == os.getuid()
    closed = verify_audit(tmp_path / "audit")
    assert closed.verdict.signed_to == closed.records - 1
    assert not (tmp_path / "audit.sock").exists()


def test_waiting_records_share_one_commit(tmp_path: Path) -> None:
    async def many(count: int) -> list[int]:
        client = AsyncAuditClient(str(tmp_path / "audit.sock"))
        numbers = await asyncio.gather(
            *(client.append({"type": "request", "request_id": f"r{i}"}) for i in range(count))
        )
        client.close()
        return numbers

    with running_auditd(tmp_path):
        numbers = asyncio.run(many(500))
    assert len(set(numbers)) == 500
    records = tail_audit(tmp_path / "audit", 500)
    # records of one commit share their stamp: far fewer stamps than records
    assert len({record["t_boot_ns"] for record in records}) < 250
    summary = verify_audit(tmp_path / "audit")
    assert (summary.requests, summary.orphans) == (500, 500)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"{",
        b"[]",
        b'{"id":1}',
        b'{"id":-1,"record":{"type":"x"}}',
        b'{"id":1,"record":{"type":"x"},"more":1}',
        b'{"id":1,"record":{"type":"x","seq":1}}',
        b'{"id":1,"record":{"type":"x","a":1.5}}',
        b'{"id":1,"id":2,"record":{"type":"x"}}',
        b'{"id":1,"record":{"type":"' + b"x" * 100_000 + b'"}}',
        b"[" * 60_000,
    ],
)
def test_malformed_datagrams_are_refused_and_the_next_record_is_served(
    tmp_path: Path, datagram: bytes
) -> None:
    with running_auditd(tmp_path) as daemon:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(tmp_path / "audit.sock"))
            sock.settimeout(5)
            sock.send(datagram)
            if datagram:  # an empty one reads as the end of the connection
                assert "error" in json.loads(sock.recv(4096))
        assert append_event(str(tmp_path / "audit.sock"), {"type": "x"}) == 4
        assert daemon.stop() == 0


def test_a_client_that_does_not_read_does_not_stop_the_writer(tmp_path: Path) -> None:
    with running_auditd(tmp_path), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
        deaf.connect(str(tmp_path / "audit.sock"))
        deaf.setblocking(False)
        sent = 0
        try:
            while sent < 20_000:
                deaf.send(b'{"id":1,"record":{"type":"x"}}')
                sent += 1
        except (BlockingIOError, ConnectionError):
            pass
        assert append_event(str(tmp_path / "audit.sock"), {"type": "x"}, timeout_s=20) > 2


@pytest.mark.parametrize(("last", "end"), [("request", "orphaned"), ("response", "response")])
def test_last_words_of_a_client_that_left_count(tmp_path: Path, last: str, end: str) -> None:
    """What it sent and that it is gone are read in one go: a request has one end all the same."""

    def words(kind: str) -> bytes:
        return json.dumps({"id": 1, "record": {"type": kind, "request_id": "r1"}}).encode()

    with running_auditd(tmp_path) as daemon:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(tmp_path / "audit.sock"))
            if last == "response":
                sock.send(words("request"))
                assert b"seq" in sock.recv(4096)
            os.kill(daemon.process.pid, signal.SIGSTOP)
            sock.send(words(last))
        os.kill(daemon.process.pid, signal.SIGCONT)
        append_event(str(tmp_path / "audit.sock"), {"type": "x"})
        assert daemon.stop() == 0
    records = [r for r in tail_audit(tmp_path / "audit", 20) if r.get("request_id") == "r1"]
    assert [r["type"] for r in records] == ["request", end]


def test_memory_under_load_stays_below_the_limit_of_its_unit(tmp_path: Path) -> None:
    unit = (Path(__file__).parents[2] / "systemd/edgekit-auditd.service.in").read_text()
    limit = int(re.search(r"^MemoryMax=(\d+)M$", unit, re.MULTILINE)[1]) << 10  # type: ignore[index]
    record = {"type": "note", **{f"text{n}": "x" * 1000 for n in range(10)}}

    async def flood() -> None:
        clients = [AsyncAuditClient(str(tmp_path / "audit.sock")) for _ in range(8)]
        for _ in range(3):
            await asyncio.gather(
                *(client.append(record, within_s=60) for client in clients for _ in range(150))
            )
        for client in clients:
            client.close()

    with running_auditd(tmp_path) as daemon:
        asyncio.run(flood())
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    peak = int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1])  # type: ignore[index]
    print(f"\npeak {peak >> 10} MiB of {limit >> 10}")
    assert peak < limit * 3 // 4


def test_only_one_writer(tmp_path: Path) -> None:
    with running_auditd(tmp_path):
        with pytest.raises(AuditUnavailableError, match="another audit writer"):
            open_audit_log(tmp_path / "audit")
        assert append_event(str(tmp_path / "audit.sock"), {"type": "x"}) == 4


def test_killed_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = str(tmp_path / "audit.sock")
    with running_auditd(tmp_path) as daemon:
        acknowledged = [append_event(path, {"type": "x", "n": n}) for n in range(20)]
        daemon.process.kill()
    with pytest.raises(AuditUnavailableError):
        append_event(path, {"type": "x"})
    with running_auditd(tmp_path):  # the stale socket is replaced
        append_event(path, {"type": "x"})
    assert verify_audit(tmp_path / "audit").records == acknowledged[-1] + 2


@pytest.mark.parametrize("torn", [b'{"boot_id":"half a rec', b"\0" * 4096, b"\0\0\nxx\n{}\n"])
def test_torn_tail_is_kept_aside_and_recorded(tmp_path: Path, torn: bytes) -> None:
    filled_log(tmp_path)
    with only_segment(tmp_path).open("ab") as file:
        file.write(torn)
    open_audit_log(tmp_path).close()
    (aside,) = tmp_path.glob("*.torn")
    assert aside.read_bytes() == torn
    (record, *_) = tail_audit(tmp_path, 3)
    assert (record["type"], record["torn_bytes"]) == ("recovered", len(torn))
    assert verify_audit(tmp_path).records == OF_SIX + 3


def test_unacknowledged_whole_record_stays(tmp_path: Path) -> None:
    filled_log(tmp_path)
    head = (tmp_path / "head.json").read_bytes()
    log = open_audit_log(tmp_path)
    log.append_batch([check_event({"type": "x"})])
    log.close()
    (tmp_path / "head.json").write_bytes(head)  # as if the crash came before the head moved
    assert verify_audit(tmp_path).unacknowledged == 3
    log = open_audit_log(tmp_path)
    assert log.append_batch([check_event({"type": "x"})]) == [OF_SIX + 4]
    log.close()
    assert verify_audit(tmp_path).unacknowledged == 0


@pytest.mark.parametrize("cut", [1, 200, 700])
def test_cut_log_is_refused_by_reader_and_writer(tmp_path: Path, cut: int) -> None:
    filled_log(tmp_path)
    os.truncate(only_segment(tmp_path), only_segment(tmp_path).stat().st_size - cut)
    with pytest.raises(AuditTruncatedError):
        verify_audit(tmp_path)
    with pytest.raises(AuditTruncatedError):
        open_audit_log(tmp_path)


def test_edited_log_is_refused_by_reader_and_writer(tmp_path: Path) -> None:
    filled_log(tmp_path)
    segment = only_segment(tmp_path)
    segment.write_bytes(segment.read_bytes().replace(b'"n":2', b'"n":3'))
    with pytest.raises(AuditAlteredError, match="changed") as caught:
        verify_audit(tmp_path)
    offset = segment.read_bytes().index(b"\n", segment.read_bytes().index(b'"n":1')) + 1
    assert caught.value.where == f"{segment.name}: record 4 at byte {offset}"
    with pytest.raises(AuditAlteredError):
        open_audit_log(tmp_path)


def test_segments_rotate_and_every_loss_is_named(tmp_path: Path) -> None:
    filled_log(tmp_path, 20, settings=LogSettings(segment_bytes=2000))
    segments = sorted(tmp_path.glob("audit-*.jsonl"))
    assert len(segments) > 3
    whole = verify_audit(tmp_path)
    assert whole.requests == 19
    assert [r["n"] for r in tail_audit(tmp_path, 9) if "n" in r][-5:] == [14, 15, 16, 17, 18]
    for index, expected in (
        (0, AuditMissingError),
        (1, AuditMissingError),
        (len(segments) - 1, AuditTruncatedError),
    ):
        content = segments[index].read_bytes()
        segments[index].unlink()
        with pytest.raises(expected):
            verify_audit(tmp_path)
        segments[index].write_bytes(content)
    filled_log(tmp_path, 3, settings=LogSettings(segment_bytes=2000))
    assert verify_audit(tmp_path).requests == 21


def test_missing_head_is_an_error_even_for_the_writer(tmp_path: Path) -> None:
    filled_log(tmp_path)
    (tmp_path / "head.json").unlink()
    for check in (verify_audit, open_audit_log):
        with pytest.raises(AuditMissingError):
            check(tmp_path)


@pytest.mark.parametrize("calls_before_failure", range(3))
def test_failed_sync_is_final(tmp_path: Path, calls_before_failure: int) -> None:
    left = 0

    def sync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, "Input/output error")
        os.fdatasync(descriptor)

    filled_log(tmp_path, 1)
    left += 100
    log = open_audit_log(tmp_path, sync=sync)
    left = calls_before_failure
    event = check_event({"type": "x"})
    with pytest.raises(AuditUnavailableError):
        append_often(log, event, 3)
    left = 100
    with pytest.raises(AuditUnavailableError, match="closed"):
        log.append_batch([event])
    log.close()
    open_audit_log(tmp_path).close()  # what is on disk is a log all the same
    verify_audit(tmp_path)


def test_disk_that_refuses_ends_the_writer_with_its_code(tmp_path: Path) -> None:
    filled_log(tmp_path / "audit", 1)
    limit = only_segment(tmp_path / "audit").stat().st_size + 3000
    program = (
        "import resource,sys;from edgekit.auditd import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE,({limit},{limit}));"
        f"sys.exit(main(['--log','{tmp_path}/audit','--socket','{tmp_path}/audit.sock']))"
    )
    assert resource.RLIMIT_FSIZE >= 0
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    try:
        path = tmp_path / "audit.sock"
        while not path.exists():
            assert child.poll() is None
        written = append_until_refused(path)
        assert child.wait(10) == 64
        assert b"cannot write the audit log" in (child.stderr.read() if child.stderr else b"")
    finally:
        child.kill()
        child.wait()
        if child.stderr:
            child.stderr.close()
    assert written > 0
    open_audit_log(tmp_path / "audit").close()
    assert verify_audit(tmp_path / "audit").records >= written + 2


def test_damaged_log_keeps_the_writer_from_starting(tmp_path: Path) -> None:
    filled_log(tmp_path / "audit")
    segment = only_segment(tmp_path / "audit")
    segment.write_bytes(segment.read_bytes().replace(b'"n":2', b'"n":3'))
    arguments = ["--log", tmp_path / "audit", "--socket", tmp_path / "audit.sock"]
    with running("edgekit.auditd.daemon", arguments, tmp_path, wait=False) as daemon:
        assert daemon.process.wait(20) == 60


def test_watchdog_is_pinged(tmp_path: Path) -> None:
    arguments = ["--log", tmp_path / "audit", "--socket", tmp_path / "audit.sock"]
    environment = {"WATCHDOG_USEC": "400000"}
    with running("edgekit.auditd.daemon", arguments, tmp_path, environment=environment) as daemon:
        for _ in range(3):
            daemon.wait_notified("WATCHDOG=1", 5)


def test_client_errors_are_audit_errors(tmp_path: Path) -> None:
    with pytest.raises(AuditError):
        append_event(str(tmp_path / "nobody.sock"), {"type": "x"})


def test_the_running_writer_takes_a_new_key_for_root_alone(tmp_path: Path) -> None:
    asked = {"type": REKEY, "reason": "a test"}
    with running_auditd(tmp_path):
        path = str(tmp_path / "audit.sock")
        log_id = read_head(tmp_path / "audit").log_id
        old = load_mac_key(tmp_path / "audit", log_id)
        number = append_event(path, asked)
        new = load_mac_key(tmp_path / "audit", log_id)
        assert old is not None
        assert new is not None
        assert new.epoch > old.epoch
        assert new != old.at(new.epoch)
        assert append_event(path, {"type": "config"}) > number + 1
        if os.geteuid() == 0:
            for folder in (tmp_path, *tmp_path.parents[:2]):
                folder.chmod(0o755)
            Path(path).chmod(0o666)
            assert _as_nobody(lambda: append_event(path, {"type": "config"}))
            assert not _as_nobody(lambda: append_event(path, asked))
        assert load_mac_key(tmp_path / "audit", log_id) == new
    key = tmp_path / "new.key"
    key.write_bytes(encode_audit_key(new))
    first = tmp_path / "old.key"
    first.write_bytes(encode_audit_key(old))
    summary = verify_audit(tmp_path / "audit", Brought(keys=(first, key)))
    assert summary.verdict.sealed_from == 1


def _as_nobody(call: Callable[[], object]) -> bool:
    """Whether this user of the host may."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            call()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0
