"""Start edgekit's daemons as real processes, tell when they are ready, and stop them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_WITHIN_S = 30.0
REPOSITORY = Path(__file__).parents[2]


class NotReadyError(AssertionError):
    """The daemon ended or stayed silent instead of getting ready."""


@dataclass
class Daemon:
    """A running daemon and the socket on which it notifies."""

    process: subprocess.Popen[bytes]
    notifications: socket.socket

    def wait_notified(self, wanted: str, timeout_s: float = READY_WITHIN_S) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.notifications.settimeout(0.2)
            try:
                if wanted in self.notifications.recv(4096).decode().splitlines():
                    return
            except TimeoutError:
                if self.process.poll() is not None:
                    raise NotReadyError(f"ended with {self.process.returncode}") from None
        raise NotReadyError(f"no {wanted} within {timeout_s} s")

    def stop(self, timeout_s: float = 15.0) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextmanager
def running(
    module: str,
    arguments: Sequence[str | Path],
    work: Path,
    *,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    wait: bool = True,
) -> Iterator[Daemon]:
    """`python -m module arguments`, ready; killed at the end when still there.

    Standard error goes to `<work>/<module>.log`.
    """
    address = work / f"{module.rpartition('.')[0]}-{os.urandom(3).hex()}.notify"
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notifications.bind(str(address))
    with (work / f"{module}.log").open("ab") as log, notifications:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=REPOSITORY,
            stderr=log,
            env={**os.environ, **(environment or {}), "NOTIFY_SOCKET": str(address)},
            pass_fds=tuple(pass_fds),
        )
        daemon = Daemon(process, notifications)
        try:
            if wait:
                daemon.wait_notified("READY=1")
            yield daemon
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def running_auditd(
    work: Path, *, log: Path | None = None, config: str = ""
) -> Iterator[Daemon]:
    """The audit writer with its log in `<work>/audit` and its socket at `<work>/audit.sock`.

    `config` are lines of the site's configuration.
    """
    arguments: list[str | Path] = ["--log", log or work / "audit", "--socket", work / "audit.sock"]
    if config:
        (work / "edgekit.toml").write_text(f"schema = 1\n{config}\n", "utf-8")
        arguments += ["--config", work / "edgekit.toml"]
    with running("edgekit.auditd.daemon", arguments, work) as daemon:
        yield daemon
