"""A set made by `edgekit bundle`, and an appliance installed from it in a private root."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

MODEL = "edgekit-demo"
READY_TIMEOUT_S = 60


@dataclass(frozen=True)
class DemoSet:
    """A set's folder, its root's fingerprint, and the keys that signed it."""

    folder: Path
    fingerprint: str
    signer: Path
    root: Path

    @property
    def program(self) -> str:
        """The installer on the stick: frozen, as a host without Python would run it."""
        return str(self.folder / "edgekit")


def free_port() -> int:
    """A loopback port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_installer(
    demo_set: DemoSet, *arguments: str, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the stick's program with an empty environment, as on a bare host."""
    return subprocess.run(
        [demo_set.program, *arguments], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, check=False, timeout=timeout_s,
    )


@dataclass
class RunningAppliance:
    """An installation below `root`, its port, its first API key, and the serving process."""

    demo_set: DemoSet
    root: Path
    port: int
    api_key: str = ""
    service: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The API's base address."""
        return f"http://127.0.0.1:{self.port}"

    def edgekit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the installer against this root."""
        return run_installer(self.demo_set, *arguments, "--root", str(self.root))

    def trust(self) -> None:
        """Import the set's root, as the operator does."""
        done = self.edgekit(
            "trust", "import", str(self.demo_set.folder / "trust/1.root.json"), "--fingerprint",
            self.demo_set.fingerprint, "--insecure-developer-root",
        )
        assert done.returncode == 0, done.stderr

    def install(self) -> None:
        """Trust, install, keep the key that is shown once."""
        self.trust()
        done = self.edgekit("install", str(self.demo_set.folder), "--listen",
                            f"127.0.0.1:{self.port}")
        assert done.returncode == 0, done.stderr
        line = next(line for line in done.stdout.splitlines() if line.startswith("api key"))
        self.api_key = line.split()[-1]

    def serve(self) -> None:
        """Start the foreground service and wait until it says that it serves."""
        self.service = subprocess.Popen(
            [self.demo_set.program, "serve", "--root", str(self.root)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={"PATH": "/usr/bin:/bin"},
        )
        assert self.service.stdout is not None
        line = self.service.stdout.readline()
        assert line.startswith("serving on"), (line, self._stderr())

    def stop(self) -> None:
        """Stop the service and collect it."""
        if self.service is None:
            return
        self.service.terminate()
        self.service.communicate(timeout=60)
        self.service = None

    def _stderr(self) -> str:
        assert self.service is not None
        self.service.kill()
        return self.service.communicate()[1]


def tree_state(root: Path) -> dict[str, tuple[int, int]]:
    """Every path below a root with size and modification time: what "nothing changed" compares.

    The lock file below run/ is left out: it is opened by every command and holds nothing.
    """
    state = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith("run"):
            continue
        status = path.lstat()
        state[name] = (status.st_size, status.st_mtime_ns) if path.is_file() else (0, 0)
    return state
