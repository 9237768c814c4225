"""The one door to other processes: start, wait, time out, and say it without secrets."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgekit.errors import EdgekitError, HostError, MissingToolError, PrivilegeError

MAX_OUTPUT_IN_ERRORS = 2000
_PR_SET_PDEATHSIG = 1
_FIRST_PASSED_DESCRIPTOR = 3  # sd_listen_fds(3)
_SECRET = re.compile(
    r"(?i)((?:password|passwd|token|secret|api[-_]?key|pin)[=:\s]+)\S+|(://[^/@\s:]+:)[^@\s]+(?=@)"
    r"|\b(ek|hf|ghp)_[A-Za-z0-9_-]{8,}"
)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left: exit status (negative: killed by that signal) and output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", errors="replace")


def redact(text: str) -> str:
    """The text with anything that looks like a secret replaced, for messages and logs."""
    return _SECRET.sub(lambda found: (found[1] or found[2] or "") + "[redacted]", text)


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return its output.

    `env` replaces the whole environment; None keeps this process's. Raises
    MissingToolError when it is not installed, HostError when it takes longer than `timeout_s`
    seconds (it is killed) or, with `check`, when its status is not zero.
    """
    with _translated(argv):
        try:
            done = subprocess.run(
                list(argv),
                input=stdin,
                capture_output=True,
                timeout=timeout_s,
                cwd=cwd,
                env=None if env is None else dict(env),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise HostError(
                f"{argv[0]} took too long",
                where=redact(" ".join(argv)),
                found=f"no end after {timeout_s:g} s",
            ) from error
    if check and done.returncode != 0:
        tail = (done.stderr or done.stdout).decode(errors="replace")[-MAX_OUTPUT_IN_ERRORS:]
        raise HostError(
            f"{argv[0]} failed with status {done.returncode}",
            where=redact(" ".join(argv)),
            found=redact(tail.strip()) or None,
        )
    return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)


class Child:
    """A program running beside this one, in its own process group."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""
        return self._process.pid

    def status(self) -> int | None:
        """Its exit status (negative: killed by that signal), or None while it runs."""
        return self._process.poll()

    def processor_s(self) -> float:
        """Processor seconds that the processes of its group have used so far (proc(5), stat)."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, ValueError, IndexError):
                # after the name, which may hold anything: state, ppid, pgrp, ... utime, stime
                values = path.read_text("utf-8").rpartition(")")[2].split()
                if int(values[2]) == self._process.pid:
                    ticks += int(values[11]) + int(values[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self, grace_s: float) -> int:
        """End the whole group: SIGTERM, then SIGKILL after `grace_s` seconds; its exit status."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        # whatever the program itself did, nothing it started may outlive it
        self._signal(signal.SIGKILL)
        return self._process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    listen_descriptor: int | None = None,
    log: Path | None = None,
    output: int | None = None,
) -> Child:
    """Start a program in its own process group with exactly this environment.

    `listen_descriptor` is handed over as systemd does it: descriptor 3 and LISTEN_FDS=1. Its
    output goes to the descriptor `output`, to the file `log`, or where this process's goes. It is
    killed when the thread that calls this ends (call from the main thread). Raises
    MissingToolError or HostError.
    """
    # loaded before the fork: between fork and exec only the bare call is safe
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()
    variables = dict(env)
    passed: tuple[int, ...] = ()
    if listen_descriptor is not None:
        variables["LISTEN_FDS"] = "1"
        passed = (_FIRST_PASSED_DESCRIPTOR,)

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the request took hold
            os._exit(1)
        if listen_descriptor is not None:
            os.dup2(listen_descriptor, _FIRST_PASSED_DESCRIPTOR)

    with _translated(argv), _output(log) as file:
        return Child(
            subprocess.Popen(
                list(argv),
                stdout=file if output is None else output,
                stderr=file if output is None else output,
                env=variables,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=passed,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - only bare calls, see above
            )
        )


@contextmanager
def _output(log: Path | None) -> Iterator[IO[bytes] | None]:
    """The log to append to, or None for this process's own streams."""
    if log is None:
        yield None
        return
    with log.open("ab") as file:
        yield file


@contextmanager
def _translated(argv: Sequence[str]) -> Iterator[None]:
    """Operating-system refusals as edgekit errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingToolError(
            f"{argv[0]} is not installed", hint=f"install {Path(argv[0]).name}"
        ) from error
    except PermissionError as error:
        raise PrivilegeError(f"may not run {argv[0]}", found=error.strerror) from error
    except EdgekitError:
        raise
    except OSError as error:
        raise HostError(f"cannot run {argv[0]}", found=error.strerror) from error
