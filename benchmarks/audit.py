"""What the audit log costs: `python -m benchmarks.audit [NAME ...] [--rounds N] [--json]`.

append
    Durable records per second, one sync for each 1, 16 and 64 of them: a bare loop that writes the
    same fields as JSON lines under a SHA-384 chain, edgekit's writer, and SQLite (WAL,
    synchronous=FULL). All in turn, then all again; ratios are within a round.
request
    What the records add to a request: through the gateway as it is, and through one that records
    nothing, one request after the other; in turn, in blocks. And how long a request waits for its
    503 while the writer is stopped.
verify
    Records per second of `edgekit audit verify`, every MAC and checkpoint included.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.audit_append import append_rates
from benchmarks.gateway import Contender, running, start_edgekit
from edgekit.core.audit_keys import encode_audit_key
from edgekit.core.audit_record import check_event
from edgekit.operations.audit import Brought, verify_audit
from edgekit.system.audit_files import public_half_path, read_head
from edgekit.system.audit_log import open_audit_log
from edgekit.system.audit_secrets import load_mac_key

WORK = Path(__file__).resolve().parents[1] / ".cache/benchmarks"
REQUESTS = 300
"""In each block of `request`."""
BATCH = 64
Table = dict[str, Any]


def append(work: Path, options: argparse.Namespace) -> list[Table]:
    """Rates by group and contender; the ratio is to the bare loop in the same round."""
    rows = []
    for group, rates in append_rates(work, options.rounds, options.seconds).items():
        bare = [rate for rate, _ in rates["bare loop"]]
        for name, pairs in rates.items():
            found, cpu = [rate for rate, _ in pairs], [cpu for _, cpu in pairs]
            ratios = [rate / other for rate, other in zip(found, bare, strict=True)]
            rows.append({
                "group": group, "contender": name, "records_per_s": round(median(found)),
                "ratio": round(median(ratios), 3), "from": round(min(ratios), 2),
                "to": round(max(ratios), 2), "cpu_us": round(median(cpu), 1),
            })  # fmt: skip
    return rows


def request(work: Path, options: argparse.Namespace) -> list[Table]:
    """Medians of a request's time, in ms, and the longest wait for a 503."""
    with ExitStack() as stack:
        engine = work / "engine.sock"
        argv = [sys.executable, "-m", "benchmarks.gateway_engine", str(engine), "0"]
        stack.enter_context(running(argv, engine.exists))
        contenders = {}
        for name, records in (("without records", False), ("edgekit", True)):
            folder = work / name.replace(" ", "-")
            folder.mkdir()
            contenders[name], _ = start_edgekit(
                folder, stack, str(engine), slots=4, context=4096, records=records
            )
        blocks: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, contender in contenders.items():
                blocks[name].append(median(_ask(contender, 200) for _ in range(REQUESTS)))
        refusals = _stopped(contenders["edgekit"], work / "edgekit/audit")
    added = [a - b for a, b in zip(blocks["edgekit"], blocks["without records"], strict=True)]
    rows: list[Table] = [
        {"what": f"a request, {name}", "ms": round(median(found), 3)}
        for name, found in blocks.items()
    ]
    rows.append({
        "what": "added by its records", "ms": round(median(added), 3),
        "from": round(min(added), 3), "to": round(max(added), 3),
    })  # fmt: skip
    return [*rows, {"what": "longest of 5 refusals, writer stopped", "ms": round(max(refusals), 1)}]


_CONNECTIONS: dict[str, http.client.HTTPConnection] = {}


def _ask(contender: Contender, status: int) -> float:
    """Milliseconds until the whole answer of one token is there."""
    connection = _CONNECTIONS.setdefault(
        contender.address, http.client.HTTPConnection(contender.address, timeout=30)
    )
    body = {"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    body["seed"] = 0  # the measuring engine's pause between tokens
    headers = {"Authorization": f"Bearer {contender.key}", "Content-Type": "application/json"}
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    response.read()
    if response.status != status:
        raise SystemExit(f"{contender.name}: {response.status} instead of {status}")
    return (time.perf_counter() - began) * 1000


def _stopped(contender: Contender, log: Path) -> list[float]:
    """Waits for a 503 while the process that holds the log is stopped."""
    done = subprocess.run(
        ["pgrep", "-f", f"auditd --log {log}"], capture_output=True, text=True, check=True
    )
    process = int(done.stdout.split()[0])
    os.kill(process, signal.SIGSTOP)
    try:
        return [_ask(contender, 503) for _ in range(5)]
    finally:
        os.kill(process, signal.SIGCONT)


def verify(work: Path, options: argparse.Namespace) -> list[Table]:
    """Records per second over a log of `--records`, held against its first MAC key."""
    folder, key = work / "audit", work / "first.key"
    events = [
        check_event({**fields, "request_id": f"r{number}"})
        for number, fields in enumerate(_pair() * (BATCH // 2))
    ]
    log = open_audit_log(folder, sync=lambda _: None)
    first = load_mac_key(folder, log.head.log_id)
    assert first is not None
    key.write_bytes(encode_audit_key(first))
    while log.head.seq < options.records:
        log.append_batch(events)
    log.close()
    brought = Brought(public_half_path(folder, read_head(folder).log_id), (key,))
    rates, cpu, summary = [], [], None
    for _ in range(options.rounds):
        began, spent = time.perf_counter(), _processor_s()
        summary = verify_audit(folder, brought)
        rates.append(summary.records / (time.perf_counter() - began))
        cpu.append((_processor_s() - spent) / summary.records * 1e6)
    assert summary is not None
    assert summary.verdict.sealed_from == 1
    return [{
        "records": summary.records, "checkpoints": summary.verdict.checkpoints,
        "bytes": sum(path.stat().st_size for path in folder.glob("audit-*.jsonl")),
        "records_per_s": round(median(rates)), "from": round(min(rates)), "to": round(max(rates)),
        "cpu_us": round(median(cpu), 2),
    }]  # fmt: skip


def _processor_s() -> float:
    """Of this process and of those that it waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _pair() -> list[Table]:
    """The two records of a request."""
    who = {
        "unit": "gateway", "actor": "e1a44298", "src": "127.0.0.1:48122", "model": "edgekit-demo",
        "generation": "demo-small-1.0.0-8ec262a92f", "hmac_key": "0123456789ab",
        "text_mode": "hash", "peer_uid": 61234,
    }  # fmt: skip
    begin = {
        "type": "request", "endpoint": "/v1/chat/completions", "engine": "main", "bytes_in": 812,
        "weights_digest": "sha384:" + "ab" * 48, "params": {"max_tokens": 256, "top_k": 40},
        "prompt_hmac": "cd" * 48, "text_hmac": "ef" * 48, "stream": True,
    }  # fmt: skip
    end = {
        "type": "response", "status": 200, "finish_reason": "stop", "tokens_in": 31,
        "tokens_out": 211, "aborted": False, "error": None, "ttft_ms": 41, "latency_ms": 2204,
        "output_hmac": "01" * 48,
    }  # fmt: skip
    return [{**who, **begin}, {**who, **end}]


BENCHMARKS: dict[str, Callable[[Path, argparse.Namespace], list[Table]]] = {
    "append": append,
    "request": request,
    "verify": verify,
}


def main() -> None:
    """Run the named ones, or all, and print their rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each append run")
    parser.add_argument("--records", type=int, default=1_000_000, help="size of the log to verify")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    options = parser.parse_args()
    names = options.names or list(BENCHMARKS)
    if set(names) - BENCHMARKS.keys() or options.rounds < 1:
        parser.error(f"unknown name, or no rounds (names: {', '.join(BENCHMARKS)})")
    WORK.mkdir(parents=True, exist_ok=True)  # a real disk: what is measured is syncing to it
    tables = {}
    for name in names:
        with tempfile.TemporaryDirectory(dir=WORK) as work:
            tables[name] = BENCHMARKS[name](Path(work), options)
        if not options.json:
            print(name, *map(_line, tables[name]), sep="\n", flush=True)
    if options.json:
        print(json.dumps(tables, indent=1))


def _line(row: Table) -> str:
    cells = (f"{value:,}" if isinstance(value, int | float) else value for value in row.values())
    return "  " + ", ".join(f"{key} {cell}" for key, cell in zip(row, cells, strict=True))


if __name__ == "__main__":
    main()
