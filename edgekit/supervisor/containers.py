"""What a supervisor does for an engine in a container: a process of another user, not its child."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgekit.errors import EngineError, HostError
from edgekit.system.files import read_bounded

FOLDER_MODE = 0o2750
"""What is made in it gets its group: the gateway may connect, and change nothing."""
_MAX_STATISTICS = 1 << 16


def hand_over(folder: Path, owner: int, audit_socket: Path) -> None:
    """Give a socket's folder to the engine's user, and to the group that all daemons share.

    That group has a name only while a unit runs that asked for it, so its number is read where the
    audit writer listens. Raises EngineError.
    """
    try:
        os.chown(folder, owner, audit_socket.parent.stat().st_gid)
        folder.chmod(FOLDER_MODE)
    except OSError as error:
        raise EngineError(
            "the socket's folder cannot be handed to the engine", where=str(folder),
            found=error.strerror,
        ) from error


def computed_s(otherwise: Callable[[], float]) -> Callable[[], float]:
    """Processor seconds of this process's whole control group: containers are in it, as no child.

    Where the control group does not tell, the child's own.
    """
    statistics = _statistics_file()

    def read() -> float:
        if statistics is None:
            return otherwise()
        try:
            lines = read_bounded(statistics, _MAX_STATISTICS, "cpu.stat").decode().splitlines()
        except HostError:
            return otherwise()
        values = dict(line.split(" ", 1) for line in lines if " " in line)
        return int(values.get("usage_usec", "0")) / 1e6

    return read


def _statistics_file() -> Path | None:
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                file = Path(root) / path.lstrip("/") / "cpu.stat"
                if file.is_file():
                    return file
    return None
