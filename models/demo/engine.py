"""llama.cpp's own HTTP server on a unix socket, in a process of its own.

Run as a program (`engine.py MODEL SOCKET SLOTS`) it serves until its standard input closes.
"""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
REQUEST_SECONDS = 60.0
STOP_SECONDS = 5.0
SLOT_CONTEXT = 1024  # tokens per slot


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=REQUEST_SECONDS)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host and port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Engine:
    """A client of one running server; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def post(self, where: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one JSON request; `RuntimeError` unless the status is 200."""
        # A new connection each time: the server closes kept ones when it likes.
        connection = UnixConnection(self.path)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", where, json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{where} answered {response.status}: {content[:200]!r}")
        answer: dict[str, Any] = json.loads(content)
        return answer


@contextmanager
def running_engine(model: Path, slots: int) -> Iterator[Engine]:
    """Start the server on a GGUF file, wait until it listens, and end it afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgekit-demo-") as folder:
        path = Path(folder) / "engine.sock"
        command = [sys.executable, __file__, str(model), str(path), str(slots)]
        with (Path(folder) / "engine.log").open("w+") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
            try:
                if not _ready(process):
                    log.seek(0)
                    raise RuntimeError(f"the engine did not start:\n{log.read()[-2000:]}")
                yield Engine(path)
            finally:
                _stop(process)


def _ready(process: subprocess.Popen[str]) -> bool:
    """True once the child has said that it listens; False if it ended or took too long."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        # One line when it listens; an empty read when it has died.
        return bool(selector.select(START_SECONDS)) and bool(process.stdout.readline())


def _stop(process: subprocess.Popen[str]) -> None:
    # The server's own shutdown can hang when the machine is busy, so it is never waited for long.
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve(model: str, path: str, slots: int) -> None:
    """Serve MODEL on the unix socket at `path` until standard input closes."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = [path]
    params.n_parallel = slots
    params.n_ctx = slots * SLOT_CONTEXT
    params.cpuparams.n_threads = 1  # a small model gains nothing from more, and waits less
    params.fit_params = False  # the sizes above are decided; the engine must not guess
    params.cache_ram_mib = 0
    params.warmup = False
    server = xllamacpp.Server(params)  # returns once the model is loaded and the socket listens
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
