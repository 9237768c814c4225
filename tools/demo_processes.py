"""Programs that the demo starts: each in a session of its own, none outlives it.

So Ctrl-C reaches only the demo, which then tells every program once to stop and waits for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools import sealed_host
from tools.demo_story import DemoError, Story

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_S = 20.0


def edgekit(
    *arguments: str, program: Path | None = None, environment: dict[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> str:
    """Run the checkout's edgekit, or the set's `program`; its stdout.

    `on_line` gets each line of its progress. Raises DemoError.
    """
    command = [str(program)] if program else [sys.executable, "-m", "edgekit"]
    errors: list[str] = []
    with tempfile.TemporaryFile("w+") as output, service(
        [*command, *arguments], stdout=output, stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            errors.append(line)
            on_line(line.rstrip())
        if process.wait() != 0:
            raise DemoError(f"edgekit {arguments[0]}, exit code {process.returncode}\n"
                            + "".join(errors[-30:]))
        output.seek(0)
        return output.read()


@contextlib.contextmanager
def service(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that runs no longer than the block, and nothing that it started either."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, text=True,
                               start_new_session=True, **options)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """Ask once, wait, then kill what is left of its process group."""
    if process.poll() is None:
        process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not _ended(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _ended(pid: int) -> bool:
    """Whether a child has ended, without taking its exit status."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


class RootfsBuild:
    """The sealed host's root file system, built by another process beside everything else."""

    def __enter__(self) -> RootfsBuild:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.rootfs", str(sealed_host.default_cache_dir())], cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it when it still runs; it takes back what it has begun."""
        stop(self._process)

    def wait(self, story: Story) -> Path:
        """The finished folder. Raises DemoError."""
        waiting: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if self._process.poll() is None:
            waiting = story.step("host", "building a Debian without Python, once", slow=True)
        with waiting:
            output, errors = self._process.communicate()
        if self._process.returncode != 0:
            raise DemoError(f"the sealed host has no root file system: {errors.strip()}")
        return Path(output.strip())
