"""Durable appends, for `benchmarks.audit`: a bare loop, edgekit's writer, SQLite.

Every contender makes the same records durable, `group` of them with one sync, for so many seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.auditd.server import SETTLE_S
from edgekit.auditd.writer import Writer
from edgekit.core.audit_capacity import plan_capacity
from edgekit.core.audit_record import check_event
from edgekit.core.site_config import AuditConfig
from edgekit.system.audit_log import open_audit_log, system_times
from edgekit.system.audit_space import Space

GROUPS = (1, 16, 64)
MAX_MIB = 4096
DISTINCT = 512
"""So many different records take turns: making them costs no contender anything."""

Append = Callable[[list[dict[str, Any]]], object]


def event_fields(number: int) -> dict[str, Any]:
    """The request record of a chat, as the gateway sends it."""
    return {
        "type": "request", "unit": "gateway", "request_id": f"req-0198f3c1a2b{number:012x}",
        "actor": "e1a44298", "src": "127.0.0.1:48122", "generation": "demo-small-1.0.0-8ec262a92f",
        "endpoint": "/v1/chat/completions", "model": "edgekit-demo", "engine": "main",
        "weights_digest": "sha384:" + "ab" * 48, "params": {"max_tokens": 256, "top_k": 40},
        "prompt_hmac": "cd" * 48, "text_hmac": "ef" * 48, "hmac_key": "0123456789ab",
        "text_mode": "hash", "bytes_in": 812, "stream": True, "peer_uid": 61234,
    }  # fmt: skip


@contextmanager
def bare_loop(folder: Path) -> Iterator[Append]:
    """JSON lines, each with number, times and the SHA-384 of all before it; nothing else."""
    encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
    descriptor = os.open(folder / "bare.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    chain, seq = hashlib.sha384().digest(), 0

    def append(events: list[dict[str, Any]]) -> None:
        nonlocal chain, seq
        now, lines = system_times(), []
        for event in events:
            seq += 1
            line = encoder.encode({
                **event, "seq": seq, "prev": chain.hex(), "t_utc": now.t_utc,
                "t_boot_ns": now.t_boot_ns, "boot_id": now.boot_id,
            }).encode()  # fmt: skip
            chain = hashlib.sha384(chain + line).digest()
            lines.append(line)
        os.write(descriptor, b"\n".join(lines) + b"\n")
        os.fdatasync(descriptor)

    yield append
    os.close(descriptor)


@contextmanager
def edgekit_log(folder: Path) -> Iterator[Append]:
    """The audit writer's own path behind its socket, its settling once a second included.

    A large batch is durable when the next one was handed over, as in the daemon; every group has
    a sync of its own.
    """
    capacity = plan_capacity(AuditConfig(max_mib=MAX_MIB), 0)
    log = folder / "audit"
    log.mkdir()
    writer = Writer(lambda: open_audit_log(log), Space(log, capacity))
    writer.settle()
    settled, handed, durable = time.monotonic(), 0, 0

    def count(results: Sequence[int | str]) -> None:
        nonlocal durable
        durable = int(results[-1])  # a refusal is no number

    def append(events: list[Any]) -> None:
        nonlocal settled, handed
        handed += len(events)
        writer.commit(events, count)
        if time.monotonic() - settled > SETTLE_S:
            writer.settle()
            settled = time.monotonic()

    yield append
    writer.finish()
    if durable < handed:
        raise SystemExit(f"{handed} records handed over, {durable} durable")
    writer.close()


@contextmanager
def sqlite_wal(folder: Path) -> Iterator[Append]:
    """The same JSON in a table, one transaction for each group; no chain."""
    encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
    database = sqlite3.connect(folder / "audit.sqlite", isolation_level=None)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.execute("create table log (seq integer primary key, line text)")

    def append(events: list[dict[str, Any]]) -> None:
        now = system_times()
        database.execute("begin")
        database.executemany(
            "insert into log (line) values (?)",
            [
                (encoder.encode({**event, "t_utc": now.t_utc, "t_boot_ns": now.t_boot_ns,
                                 "boot_id": now.boot_id}),)
                for event in events
            ],
        )  # fmt: skip
        database.execute("commit")

    yield append
    database.close()


CONTENDERS = {"bare loop": bare_loop, "edgekit": edgekit_log, "SQLite": sqlite_wal}


def rate(name: str, folder: Path, group: int, seconds: float) -> tuple[float, float]:
    """Records per second of one contender in one round, and microseconds of processor for each."""
    events: list[Any] = [event_fields(number) for number in range(DISTINCT)]
    if name == "edgekit":
        events = [check_event(event) for event in events]
    folder.mkdir(parents=True)
    try:
        with CONTENDERS[name](folder) as append:
            append(events[:group])
            count, began, spent_cpu = 0, time.perf_counter(), time.process_time()
            while (spent := time.perf_counter() - began) < seconds:
                start = count % DISTINCT
                append(events[start : start + group])
                count += group
            spent_cpu = time.process_time() - spent_cpu
        return count / spent, spent_cpu / count * 1e6
    finally:
        shutil.rmtree(folder)


Rates = dict[int, dict[str, list[tuple[float, float]]]]


def append_rates(folder: Path, rounds: int, seconds: float) -> Rates:
    """What `rate` found in every round, by group and contender."""
    rates: Rates = {group: {name: [] for name in CONTENDERS} for group in GROUPS}
    for _ in range(rounds):
        for group in GROUPS:
            for name in CONTENDERS:
                rates[group][name].append(rate(name, folder / "append", group, seconds))
    return rates
