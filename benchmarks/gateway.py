"""What the gateway costs: `python -m benchmarks.gateway [--rounds N] [--requests N] [--litellm]`.

An engine that costs almost nothing answers on a unix socket. The same load goes to it directly,
through edgekit's gateway (audit on, its own process, keys checked) and, with --litellm, through
LiteLLM's proxy, which gets an environment of its own below .cache/benchmarks; in turn, round after
round, and the medians of the rounds are printed. --real adds llama.cpp's own server.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgekit.core.api_keys import KeyRing, encode_keys, make_api_key
from edgekit.core.appliance import Appliance, EngineSettings, ServedModel, encode_appliance

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache/benchmarks"
WEIGHTS = ROOT / "models/demo/gguf/edgekit-demo-q8_0.gguf"
SLOTS = 64
CONTEXT = 100_000
START_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Contender:
    """Where the load goes."""

    name: str
    address: str
    key: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One contender in one scenario: median first token in ms (None without), and rate per s."""

    scenario: str
    contender: str
    first_ms: float | None
    rate: float
    unit: str


STREAMS: dict[str, tuple[int, int, int, int]] = {
    "1 stream, a token each 5 ms": (1, 10, 5000, 60),
    "64 streams, a token each 5 ms": (64, 200, 5000, 2),
    "64 streams, full speed": (64, 2000, 0, 1),
}
"""Streams, tokens each, microseconds between tokens, bursts."""


def main() -> None:
    """Run, and print the figures."""
    options = _options()
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        work = Path(place)
        contenders, gateway = _start(work, stack, litellm=options.litellm)
        figures = _measure(contenders, options.rounds)
        memory = _memory(contenders[1], gateway, options.requests) if options.requests else []
    if options.real:
        with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
            figures += _real(Path(place), stack, options.rounds)
    table = {
        "figures": [_table(figure, figures) for figure in figures],
        "resident_mib_over_requests": memory,
    }
    print(json.dumps(table, indent=1) if options.json else _render(table))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender")
    parser.add_argument(
        "--requests", type=int, default=100_000, help="for the memory test; 0: none"
    )
    parser.add_argument("--litellm", action="store_true", help="measure LiteLLM's proxy, too")
    parser.add_argument("--real", action="store_true", help="measure llama.cpp's server, too")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    return parser.parse_args()


def _measure(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    figures = []
    for scenario, numbers in STREAMS.items():
        runs = [[_load("streams", c, *numbers) for c in contenders] for _ in range(rounds)]
        figures += _figures(scenario, contenders, runs, "tokens/s")
    calls = [[_load("calls", c, 32, _calls(c)) for c in contenders] for _ in range(rounds)]
    figures += _figures("whole answers, 32 connections", contenders, calls, "requests/s")
    return figures


def _calls(contender: Contender) -> int:
    return 320 if contender.name == "LiteLLM" else 6400


def _figures(
    scenario: str, contenders: Sequence[Contender], runs: list[list[Any]], unit: str
) -> list[Figure]:
    made = []
    for index, contender in enumerate(contenders):
        own = [run[index] for run in runs]
        firsts = [median(run["first_ms"]) for run in own if "first_ms" in run]
        rates = [run.get("tokens", run.get("requests")) / run["seconds"] for run in own]
        first = median(firsts) if firsts else None
        made.append(Figure(scenario, contender.name, first, median(rates), unit))
    return made


def _load(kind: str, contender: Contender, *numbers: int) -> Any:
    argv = [sys.executable, "-m", "benchmarks.gateway_load", kind, contender.address]
    done = subprocess.run(
        [*argv, *map(str, numbers), contender.key],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{contender.name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def _memory(contender: Contender, process: subprocess.Popen[bytes], requests: int) -> list[float]:
    """Resident MiB of the gateway after each tenth of so many requests."""
    sizes = []
    for _ in range(10):
        _load("calls", contender, 32, requests // 10)
        pages = Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1]
        sizes.append(round(int(pages) * 4096 / (1 << 20), 1))
    return sizes


def _start(
    work: Path, stack: ExitStack, *, litellm: bool
) -> tuple[list[Contender], subprocess.Popen[bytes]]:
    engine = work / "engine.sock"
    port = _free_port()
    argv = [sys.executable, "-m", "benchmarks.gateway_engine", str(engine), str(port)]
    stack.enter_context(running(argv, engine.exists))
    edgekit, process = start_edgekit(work, stack, str(engine), slots=SLOTS, context=CONTEXT)
    contenders = [Contender("direct", str(engine), "none"), edgekit]
    if litellm:
        contenders.append(_litellm(work, stack, port))
    return contenders, process


def start_edgekit(
    work: Path, stack: ExitStack, engine: str, *, slots: int, context: int, records: bool = True
) -> tuple[Contender, subprocess.Popen[bytes]]:
    """Audit writer and gateway in front of an engine's socket; without `records`, the gateway alone
    and in one that skips them."""
    port = _free_port()
    key, token = make_api_key(
        secrets.token_bytes(4), secrets.token_bytes(32), scopes=("chat",), note="", created=0
    )
    (work / "keys.json").write_bytes(encode_keys(KeyRing((key,))))
    appliance = _appliance(work, port, engine, slots, context)
    (work / "appliance.json").write_bytes(encode_appliance(appliance))
    audit = work / "audit.sock"
    writer = ["-m", "edgekit", "daemon", "auditd", "--log", str(work / "audit")]
    program = ["-m", "benchmarks.unrecorded"]
    if records:
        argv = [sys.executable, *writer, "--socket", str(audit)]
        stack.enter_context(running(argv, audit.exists))
        program = ["-m", "edgekit", "daemon", "gateway"]
    argv = [sys.executable, *program, "--appliance", str(work / "appliance.json")]
    argv += ["--keys", str(work / "keys.json")]
    process = stack.enter_context(running(argv, lambda: _answers(f"http://127.0.0.1:{port}/")))
    return Contender("edgekit", f"127.0.0.1:{port}", token), process


def _appliance(work: Path, port: int, engine: str, slots: int, context: int) -> Appliance:
    digest = "sha384:" + "00" * 48
    model = ServedModel(
        name="demo", engine="main", digest=digest, size=1, format="gguf", family="llama",
        parameter_size="1", quantization="Q8_0", context=context, license="none", created=0,
    )  # fmt: skip
    settings = EngineSettings(
        name="main", kind="llama.cpp", argv=("none",), environment=(), socket=engine, slots=slots,
        context=context, start_timeout_s=60, weights=(), canaries=(),
    )  # fmt: skip
    return Appliance(
        name="benchmark", version="1", generation="g1", listen=f"127.0.0.1:{port}",
        audit_socket=str(work / "audit.sock"), models=(model,), engines=(settings,),
    )  # fmt: skip


def _litellm(work: Path, stack: ExitStack, engine_port: int) -> Contender:
    """LiteLLM's proxy as its own documentation starts it, one worker, with a key."""
    environment = CACHE / "litellm"
    if not (environment / "bin/litellm").exists():
        print("making an environment for LiteLLM (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [environment / "bin/pip", "install", "-q", "litellm[proxy]"]
        subprocess.run(pip, check=True)
    port, key = _free_port(), "sk-benchmark"
    config = {
        "model_list": [
            {
                "model_name": "demo",
                "litellm_params": {
                    "model": "openai/demo",
                    "api_base": f"http://127.0.0.1:{engine_port}/v1",
                    "api_key": "none",
                },
            }
        ],
        "general_settings": {"master_key": key},
    }
    (work / "litellm.json").write_text(json.dumps(config))  # JSON is YAML
    argv = [str(environment / "bin/litellm"), "--config", str(work / "litellm.json")]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    url = f"http://127.0.0.1:{port}/health/liveliness"
    stack.enter_context(running(argv, lambda: _answers(url)))
    return Contender("LiteLLM", f"127.0.0.1:{port}", key)


def _real(work: Path, stack: ExitStack, rounds: int) -> list[Figure]:
    """llama.cpp's own server with the demo weights: 4 streams, directly and through the gateway."""
    engine = work / "engine.sock"
    argv = [sys.executable, "-m", "edgekit.engines.launchers.llama_cpp_wheel"]
    argv += ["--model", str(WEIGHTS), "--alias", "demo", "--socket", str(engine)]
    argv += ["--ctx-size", "2048", "--parallel", "4", "--threads", "1"]
    argv += ["--batch-size", "512", "--ubatch-size", "512"]
    stack.enter_context(running(argv, engine.exists))
    time.sleep(2)
    edgekit, _ = start_edgekit(work, stack, str(engine), slots=4, context=512)
    contenders = [Contender("direct", str(engine), "none"), edgekit]
    runs = [[_load("streams", c, 4, 400, 0, 1) for c in contenders] for _ in range(rounds)]
    return _figures("4 streams, llama.cpp's server", contenders, runs, "tokens/s")


@contextmanager
def running(argv: Sequence[str], ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ready; ended at the end."""
    quiet = subprocess.DEVNULL
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=quiet, stderr=log, env={**os.environ})
        deadline = time.monotonic() + START_TIMEOUT_S
        try:
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"{argv[:4]} did not start: {log.read()[-2000:].decode()}")
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _table(figure: Figure, figures: list[Figure]) -> dict[str, Any]:
    direct = next(f for f in figures if f.scenario == figure.scenario and f.contender == "direct")
    return {
        "scenario": figure.scenario,
        "contender": figure.contender,
        "first_token_ms": None if figure.first_ms is None else round(figure.first_ms, 2),
        "added_ms": None
        if figure.first_ms is None or direct.first_ms is None
        else round(figure.first_ms - direct.first_ms, 2),
        "rate": round(figure.rate, 1),
        "unit": figure.unit,
        "of_direct": round(figure.rate / direct.rate, 4),
    }


def _render(table: dict[str, Any]) -> str:
    lines = [f"{'':34}{'':10}{'first token':>12}{'added':>9}{'rate':>12}{'':12}{'of direct':>10}"]
    for row in table["figures"]:
        first = "" if row["first_token_ms"] is None else f"{row['first_token_ms']:.2f} ms"
        added = "" if row["added_ms"] is None else f"{row['added_ms']:.2f}"
        lines.append(
            f"{row['scenario']:34}{row['contender']:10}{first:>12}{added:>9}"
            f"{row['rate']:>12,.0f} {row['unit']:11}{row['of_direct']:>10.1%}"
        )
    if table["resident_mib_over_requests"]:
        sizes = ", ".join(map(str, table["resident_mib_over_requests"]))
        lines.append(f"resident MiB after each tenth of the requests: {sizes}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
