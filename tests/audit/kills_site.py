"""Engine, audit writer and gateway as processes that are started again whenever they end; clients
that ask, and remember what they were told.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from edgekit.core.api_keys import KeyRing, encode_keys
from edgekit.core.appliance import encode_appliance
from tests.gateway.conftest import make_appliance, make_key
from tests.support.daemons import REPOSITORY

PROGRAM = (sys.executable, "-m")
START_S = 60.0
NAMES = ("engine", "auditd", "gateway")
SHAPES = ("openai", "openai-stream", "ollama", "ollama-stream", "anthropic", "anthropic-stream")


@dataclass
class Kept:
    """A process that is started again by a thread of its own until `stopping`."""

    argv: list[str]
    environment: dict[str, str]
    log: Path
    passes: tuple[int, ...] = ()
    births: int = 0
    process: subprocess.Popen[bytes] | None = None
    stopping: bool = False
    born: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """The thread's work."""
        while not self.stopping:
            with self.log.open("ab") as log, self.born:
                self.process = subprocess.Popen(
                    self.argv, cwd=REPOSITORY, stderr=log, pass_fds=self.passes,
                    env={**os.environ, **self.environment},
                )  # fmt: skip
                self.births += 1
                self.born.notify_all()
            self.process.wait()

    def kill_now(self) -> bool:
        """SIGKILL; whether it ran and this ended it."""
        with self.born:
            assert self.process is not None
            if self.process.poll() is not None:
                return False
            self.process.kill()
            return self.process.wait() == -9

    def kill_young(self, after_s: float) -> bool:
        """SIGKILL, and once more `after_s` seconds into its next life."""
        with self.born:
            births = self.births
        fired = self.kill_now()
        with self.born:
            if not self.born.wait_for(lambda: self.births > births, START_S):
                return False
        time.sleep(after_s)
        return self.kill_now() and fired

    def end(self) -> int:
        """SIGTERM, for good; its exit status."""
        self.stopping = True
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(START_S)


@dataclass(frozen=True)
class KillSite:
    """The running daemons, and how to reach them."""

    work: Path
    url: str
    token: str
    daemons: dict[str, Kept]

    def ready(self) -> bool:
        """Whether everybody takes connections."""
        if not all(_connects(self.work / f"{name}.sock") for name in ("engine", "auditd")):
            return False
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_ready(self) -> None:
        """Until everybody does."""
        deadline = time.monotonic() + START_S
        while not self.ready():
            if time.monotonic() > deadline:
                logs = "".join(f.read_text(errors="replace") for f in self.work.glob("*.log"))
                raise AssertionError(f"not ready within {START_S} s: {logs[-2000:]}")
            time.sleep(0.02)


def _connects(path: Path) -> bool:
    kind = socket.SOCK_SEQPACKET if path.name == "auditd.sock" else socket.SOCK_STREAM
    with socket.socket(socket.AF_UNIX, kind) as sock:
        return sock.connect_ex(str(path)) == 0


@contextlib.contextmanager
def kill_site(work: Path, bug: str) -> Iterator[KillSite]:
    """The three daemons, ready. Killed at the end where they still run."""
    work.mkdir(parents=True)
    key, token = make_key("chat")
    (work / "keys").write_bytes(encode_keys(KeyRing((key,))))
    (work / "state").mkdir()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port = listener.getsockname()[1]
        appliance = make_appliance(work, port, engine_socket=str(work / "engine.sock"))
        data = encode_appliance(appliance).replace(b"/audit.sock", b"/auditd.sock")
        (work / "appliance.json").write_bytes(data)
        arguments = {
            "engine": (work / "engine.sock", work / "seen"),
            "auditd": ("--log", work / "audit", "--socket", work / "auditd.sock"),
            "gateway": ("--appliance", work / "appliance.json", "--keys", work / "keys"),
        }
        state = {"STATE_DIRECTORY": str(work / "state"), "KILLS_LISTENER": str(listener.fileno())}
        daemons = {
            name: Kept(
                [*PROGRAM, f"tests.audit.kills_{name}", bug, *map(str, arguments[name])],
                state if name == "gateway" else {},
                work / f"{name}.log",
                (listener.fileno(),) if name == "gateway" else (),
            )
            for name in NAMES
        }
        threads = [threading.Thread(target=daemon.run) for daemon in daemons.values()]
        for thread in threads:
            thread.start()
        site = KillSite(work, f"http://127.0.0.1:{port}", token, daemons)
        try:
            site.wait_ready()
            yield site
        finally:
            for daemon in daemons.values():
                daemon.stopping = True
                daemon.kill_now()
            for thread in threads:
                thread.join()


@dataclass
class Attempt:
    """One request, and what its client was told. `ended` is true for a whole answer or refusal."""

    number: int
    shape: str
    request_id: str = ""
    status: int = 0
    ended: bool = False
    text: str = ""
    problem: str = ""

    @property
    def prompt(self) -> str:
        """No two attempts ask the same."""
        return f"question number {self.number}"

    @property
    def acknowledged(self) -> bool:
        """Whether the client holds a whole answer."""
        return self.ended and self.status == 200 and not self.problem


def ask(client: httpx.Client, attempt: Attempt) -> None:
    """Make the attempt; whatever happens is written down in it."""
    protocol, _, streams = attempt.shape.partition("-")
    path, body = _REQUESTS[protocol](attempt.prompt)
    body["stream"] = bool(streams)
    data = b""
    try:
        with client.stream("POST", path, json=body) as response:
            attempt.request_id = response.headers.get("x-request-id", "")
            attempt.status = response.status_code
            for piece in response.iter_raw():
                data += piece
        attempt.ended = True
    except httpx.HTTPError as error:
        attempt.problem = type(error).__name__
    _read_answer(attempt, protocol, bool(streams) and attempt.status == 200, data)


def _messages(path: str, **fields: Any) -> Callable[[str], tuple[str, dict[str, Any]]]:
    def make(prompt: str) -> tuple[str, dict[str, Any]]:
        messages = [{"role": "user", "content": prompt}]
        return path, {"model": "demo", "messages": messages, **fields}

    return make


_REQUESTS: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "openai": _messages("/v1/chat/completions", max_tokens=6),
    "ollama": _messages("/api/chat", options={"num_predict": 6}),
    "anthropic": _messages("/v1/messages", max_tokens=6),
}
_LAST = {"openai": b"data: [DONE]", "ollama": b'"done":true', "anthropic": b"event: message_stop"}


def _read_answer(attempt: Attempt, protocol: str, streams: bool, data: bytes) -> None:
    """The text that arrived, and whether the answer is whole by its protocol's own sign."""
    if streams:
        attempt.ended = attempt.ended and _LAST[protocol] in data
        lines = data.decode(errors="replace").splitlines()
        events = [line.removeprefix("data: ") for line in lines if "{" in line]
    else:
        events = [data.decode(errors="replace")] if attempt.ended else []
    for event in events:
        try:
            table = json.loads(event)
        except ValueError:
            continue  # the last line of a stream that was cut
        if "error" in table:
            attempt.problem = json.dumps(table["error"])
        attempt.text += _text_of(protocol, table)


def _text_of(protocol: str, table: dict[str, Any]) -> str:
    if protocol == "openai":
        choice = (table.get("choices") or [{}])[0]
        part = choice.get("delta") or choice.get("message") or {}
        return part.get("content") or ""
    if protocol == "ollama":
        return str(table.get("message", {}).get("content", ""))
    if isinstance(table.get("content"), list):
        return "".join(block.get("text", "") for block in table["content"])
    return str(table.get("delta", {}).get("text", ""))
