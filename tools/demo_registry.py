"""A throw-away container registry on loopback, for the demo and the tests.

    with demo_registry(folder) as registry:
        os.environ["CONTAINERS_REGISTRIES_CONF"] = str(registry.config)

Debian's docker-registry serves plain HTTP on a free port; the registries.conf written beside it
maps the name `registry.edgekit.internal` to that port and allows plain HTTP for that name only.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import EngineNotReadyError, MissingToolError

PROGRAM = "docker-registry"
NAME = "registry.edgekit.internal"
START_TIMEOUT_S = 20.0

_SERVER_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_CLIENT_CONFIG = """\
unqualified-search-registries = []

[[registry]]
prefix = "{name}"
location = "127.0.0.1:{port}"
insecure = true
"""


@dataclass(frozen=True, slots=True)
class DemoRegistry:
    """A running registry: its port, the registries.conf that names it, and its storage."""

    port: int
    config: Path
    storage: Path


@contextmanager
def demo_registry(folder: Path) -> Iterator[DemoRegistry]:
    """Serve a registry that keeps everything below `folder` until the block ends.

    Raises MissingToolError without docker-registry, EngineNotReadyError when it does not answer.
    """
    storage = folder / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    server = folder / "registry.yml"
    server.write_text(_SERVER_CONFIG.format(storage=storage, port=port))
    config = folder / "registries.conf"
    config.write_text(_CLIENT_CONFIG.format(name=NAME, port=port))
    with (folder / "registry.log").open("wb") as log:
        process = _start(server, log.fileno())
        try:
            _wait_until_ready(port, process, folder / "registry.log")
            yield DemoRegistry(port, config, storage)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def _start(config: Path, log: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen([PROGRAM, "serve", str(config)], stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log, start_new_session=True)
    except FileNotFoundError as error:
        raise MissingToolError(f"{PROGRAM} is not installed",
                               hint=f"apt-get install {PROGRAM} skopeo") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        with suppress(OSError):
            connection.request("GET", "/v2/")
            if connection.getresponse().status == 200:
                return
        connection.close()
        time.sleep(0.05)
    raise EngineNotReadyError("the demo registry does not answer",
                              found=log.read_text(errors="replace")[-500:])


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    with demo_registry(parser.parse_args().folder) as registry, suppress(KeyboardInterrupt):
        print(f"export CONTAINERS_REGISTRIES_CONF={registry.config}  # port {registry.port}",
              flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
