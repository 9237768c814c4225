"""How probes see a host: its files, its programs, its system calls; live, or recorded in a folder.

A recorded host is a folder with the files that probes read at their usual paths, the output of
programs in `commands/NAME` and the results of system calls in `calls/NAME`. What was not recorded
is not there, as on a host that does not have it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import EdgekitError
from edgekit.system.process import run

MAX_KERNEL_FILE_BYTES = 4 << 20
COMMAND_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class HostView:
    """One host. `root` is `/` for this one, a folder for a recorded one."""

    root: Path = Path("/")

    @property
    def is_live(self) -> bool:
        """Whether this is the host this process runs on."""
        return self.root == Path("/")

    def path(self, name: str) -> Path:
        """Where a file of the host lies."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """A small file's text, or None when it is not there or not readable."""
        return read_text(self.path(name))

    def number(self, name: str) -> int | None:
        """A small file that holds one number from 0, or None."""
        text = self.text(name) or ""
        return int(text) if text.isdigit() and len(text) < 20 else None

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty when it is not there."""
        try:
            return sorted(path.name for path in self.path(folder).iterdir())
        except OSError:
            return []

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        try:
            return self.path(name).exists()
        except OSError:
            return False

    def command(self, name: str, argv: Sequence[str]) -> str | None:
        """What a program prints; None when it is not installed or fails. `name`: the recording."""
        if not self.is_live:
            return self.text(f"commands/{name}")
        if shutil.which(argv[0]) is None:
            return None
        try:
            return run(argv, timeout_s=COMMAND_TIMEOUT_S).text.strip()
        except EdgekitError:
            return None

    def call(self, name: str, live: Callable[[], str | None]) -> str | None:
        """What a system call says; `name` is the recording."""
        if not self.is_live:
            return self.text(f"calls/{name}")
        try:
            return live()
        except (OSError, ValueError, AttributeError):
            return None


def read_text(path: Path) -> str | None:
    """A small kernel file's text, or None when it is not there or not readable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KERNEL_FILE_BYTES)
            return data.decode("utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return None
