"""The real engine on generated models: what it says it allocated, and what it holds."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.carried_model import CarriedVariant
from edgekit.core.launch import serving_arguments
from edgekit.core.names import RelPath
from edgekit.core.planning.engine_report import Buffer, parse_buffers
from edgekit.core.planning.llama_memory import llama_need
from edgekit.core.planning.llama_shape import LlamaShape
from edgekit.core.planning.values import MemoryNeed, Serving
from edgekit.engines.launchers import __file__ as launchers
from edgekit.system.weights import check_weights
from tests.support.model_shapes import ModelShape, write_model

LAUNCHER = Path(launchers).parent / "llama_cpp_wheel.py"
START_S = 120


@dataclass(frozen=True)
class Case:
    """A shape, and how it is served."""

    shape: ModelShape
    context: int
    slots: int
    kv_type: str
    batch: int = 512
    flash: bool = True


@dataclass(frozen=True)
class Measured:
    """What was planned, what the engine printed, and the most it held, in bytes."""

    case: Case
    variant: CarriedVariant
    need: MemoryNeed
    buffers: tuple[Buffer, ...]
    log: str
    peak: int

    def found(self, kind: str) -> int:
        return sum(buffer.size for buffer in self.buffers if buffer.kind == kind)


class _UnixHttp(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=START_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(START_S)
        self.sock.connect(self._path)


def carried(shape: ModelShape, path: Path) -> CarriedVariant:
    """The variant as a manifest would describe it."""
    header = check_weights("gguf", {RelPath(path.name): path})
    facts = tuple(sorted(header.shape.items()))
    size = path.stat().st_size
    return CarriedVariant("gguf", shape.weights.upper(), (RelPath(path.name),), size, facts)


def measure(case: Case, *, ask: bool = False) -> Measured:
    """Start the launcher as a plan would; with `ask` everybody fills the whole context twice."""
    with tempfile.TemporaryDirectory(prefix="edgekit-shape-") as name:
        folder = Path(name)
        path = write_model(case.shape, folder)
        variant = carried(case.shape, path)
        serving = Serving(case.slots, case.context, 2, case.batch, case.kv_type)
        log = folder / "log"
        with log.open("wb") as output:
            engine = subprocess.Popen(
                [sys.executable, str(LAUNCHER), "--model", str(path), "--alias", "m",
                 "--socket", str(folder / "e.sock"), *serving_arguments(serving),
                 "--flash-attn", "on" if case.flash else "off"],
                stdout=output, stderr=output)
        try:
            _wait(engine, folder / "e.sock", log)
            if ask:
                for seed in (1, 2):
                    _ask_all(folder / "e.sock", case.slots, case.context - 8, seed)
            status = Path(f"/proc/{engine.pid}/status").read_text("utf-8")
        finally:
            engine.kill()
            engine.wait()
        text = log.read_text("utf-8", errors="replace")
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    need = llama_need(
        LlamaShape(variant, case.shape.arch), context=case.context, slots=case.slots,
        batch=case.batch, kv_type=case.kv_type, flash=case.flash)
    return Measured(
        case, variant, need, parse_buffers(text.splitlines()), text, int(match[1]) * 1024)


def _wait(engine: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert engine.poll() is None, log.read_text("utf-8", errors="replace")[-3000:]
        try:
            connection = _UnixHttp(path)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"no engine after {START_S} s")


def _ask_all(path: Path, people: int, tokens: int, seed: int) -> None:
    """Everybody at once sends a prompt of their own."""

    def ask(number: int) -> None:
        prompt = [5 + (seed * 31 + number * 7 + k * (seed + 1)) % 200 for k in range(tokens)]
        connection = _UnixHttp(path)
        body = json.dumps({"prompt": prompt, "n_predict": 4, "temperature": 0})
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)

    statuses: list[int] = []
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * people
