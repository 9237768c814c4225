"""A disk that is full, a disk that fails, a writer that dies: 503 within a second, and no answer
without its record."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edgekit.core.events import ignore_events
from edgekit.core.host_layout import HostLayout
from edgekit.operations.audit import tail_audit, verify_audit
from edgekit.operations.audit_export import Wanted, export_audit
from edgekit.system.audit_client import append_event
from tests.gateway.conftest import Site, running_site
from tests.support.fake_engine import FakeEngine
from tests.support.tiny_disk import tiny_disk

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
OPENAI = "/v1/chat/completions"


@pytest.fixture
def small_site(tmp_path: Path) -> Iterator[Site]:
    """A gateway whose audit log lies on a disk of 8 MiB, 4 of them its reserve."""
    engine = FakeEngine(str(tmp_path / "engine.sock"))
    with tiny_disk(tmp_path / "disk", 8) as disk:
        log = disk / "audit"
        with running_site(tmp_path, engine, engine.socket_path, log=log) as site:
            yield site


def fill(disk: Path, leave: int) -> Path:
    """Take all of a disk's free space but `leave` bytes."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave)
    return filler


def host_of(site: Site) -> HostLayout:
    """The site's log and socket where a host has them."""
    host = HostLayout(site.work / "host")
    for path, target in (
        (host.audit, site.work / "disk/audit"),
        (host.audit_socket(), site.work / "audit.sock"),
    ):
        path.parent.mkdir(parents=True)
        path.symlink_to(target)
    return host


def refused_within_a_second(site: Site) -> None:
    asked, began = len(site.engine.requests), time.monotonic()
    response = site.post(OPENAI, CHAT)
    assert time.monotonic() - began < 1
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "audit_unavailable"
    assert int(response.headers["retry-after"]) > 0
    assert len(site.engine.requests) == asked


def until_refused(site: Site) -> None:
    """The last block of the log may have room for another record or two."""
    for _ in range(10):
        if site.post(OPENAI, CHAT).status_code != 200:
            return
    raise AssertionError("never refused")


def serves_again(site: Site, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while site.post(OPENAI, CHAT).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("leave", [0, 4096, 600_000])
def test_full_disk_refuses_records_its_end_and_serves_again_when_there_is_room(
    small_site: Site, leave: int
) -> None:
    site, disk = small_site, small_site.work / "disk"
    assert site.post(OPENAI, CHAT).status_code == 200
    filler = fill(disk, leave)
    if leave == 600_000:
        time.sleep(1.5)  # the writer notices by itself: there is room, but less than it must keep
    until_refused(site)
    refused_within_a_second(site)
    assert httpx.get(f"{site.url}/readyz").status_code == 503
    kinds = [record["type"] for record in tail_audit(disk / "audit", 30)]
    assert "audit_full" in kinds
    # what an operator does to make room is recorded all the same
    done = export_audit(host_of(site), site.work / "stick", Wanted(), (), ignore_events)
    assert verify_audit(done.folder).records == done.manifest.last
    filler.unlink()
    serves_again(site)
    summary = verify_audit(disk / "audit")
    assert summary.orphans == summary.requests - summary.responses <= 1
    assert tail_audit(disk / "audit", 30)[-1]["type"] == "response"


def test_log_that_reaches_its_planned_size_warns_alerts_and_refuses(tmp_path: Path) -> None:
    engine = FakeEngine(str(tmp_path / "engine.sock"))
    config = "[audit]\nmax_mib = 1"
    with running_site(tmp_path, engine, engine.socket_path, config=config) as site:
        path = str(tmp_path / "audit.sock")
        for percent in (80, 94, 100):
            while _size(tmp_path / "audit") < percent * (1 << 20) // 100:
                append_event(path, {"type": "note", **{f"text{n}": "x" * 1000 for n in range(8)}})
            time.sleep(1.2)  # the writer looks once a second
        response = site.post(OPENAI, CHAT)
        health = httpx.get(f"{site.url}/readyz").json()
    records = tail_audit(tmp_path / "audit", 5000)
    levels = [r["level"] for r in records if r["type"] in ("capacity", "audit_full")]
    assert levels == ["planned", "warn", "alert", "full"]
    assert response.status_code == 503
    assert health["parts"]["audit_space"] is False
    assert verify_audit(tmp_path / "audit").requests == 0


def test_disk_that_fails_ends_the_writer_and_every_answer(site: Site) -> None:
    if shutil.which("strace") is None:
        pytest.skip("cannot run here: no strace")
    assert site.post(OPENAI, CHAT).status_code == 200
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO",
         "-p", str(site.auditd.process.pid)],
        stderr=subprocess.PIPE,
    )
    try:
        while b"TracerPid:\t0\n" in _status(site):
            time.sleep(0.01)
        refused_within_a_second(site)
        assert site.auditd.process.wait(5) == 64
        refused_within_a_second(site)
    finally:
        tracer.kill()
        tracer.communicate()
    summary = verify_audit(site.work / "audit")
    assert summary.responses == 1


def test_writer_killed_between_records_means_503_within_a_second(site: Site) -> None:
    assert site.post(OPENAI, CHAT).status_code == 200
    os.kill(site.auditd.process.pid, signal.SIGKILL)
    refused_within_a_second(site)
    summary = verify_audit(site.work / "audit")
    assert (summary.requests, summary.responses) == (1, 1)


def _size(log: Path) -> int:
    return sum(path.stat().st_size for path in log.glob("audit-*.jsonl"))


def _status(site: Site) -> bytes:
    return Path(f"/proc/{site.auditd.process.pid}/status").read_bytes()
