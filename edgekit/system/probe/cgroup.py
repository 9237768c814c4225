"""The control groups this process lives in, innermost first, and reading small kernel files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MAX_KERNEL_FILE_BYTES = 4 << 20


def read_text(path: Path) -> str | None:
    """A small kernel file's text, or None when it is not there or not readable."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_KERNEL_FILE_BYTES).decode("utf-8", errors="replace").strip()
    except OSError:
        return None


def group_chain(root: Path) -> Iterator[Path]:
    """Folders of this process's cgroup v2 groups, from its own up to the mount point."""
    own = ""
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            own = line[3:].strip("/")
    for mount in (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"):
        if (mount / "cgroup.controllers").exists():
            group = mount / own
            while group != mount and mount in group.parents:
                yield group
                group = group.parent
            yield mount
            return
