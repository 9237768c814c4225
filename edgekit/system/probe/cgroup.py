"""The control groups this process lives in, from its own up to the root, of both versions."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.system.probe.view import HostView


def group_chain(view: HostView) -> Iterator[str]:
    """Folders of this process's cgroup v2 groups, from its own up to the mount point."""
    for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
        if view.exists(f"{mount}/cgroup.controllers"):
            yield from _upwards(mount, _own_group(view, ""))
            return


def legacy_chain(view: HostView, controller: str) -> Iterator[str]:
    """The same for one controller of cgroup v1."""
    mount = f"sys/fs/cgroup/{controller}"
    if view.exists(mount) and not view.exists("sys/fs/cgroup/cgroup.controllers"):
        for folder in _upwards(mount, _own_group(view, controller)):
            if view.exists(folder):  # in a container the path outside is not the path inside
                yield folder


def limits_memory(view: HostView) -> bool | None:
    """Whether units' memory can be limited here; None where no control groups are seen."""
    for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
        controllers = view.text(f"{mount}/cgroup.controllers")
        if controllers is not None:
            legacy = view.exists("sys/fs/cgroup/memory/memory.limit_in_bytes")
            return "memory" in controllers.split() or legacy
    return None


def _own_group(view: HostView, controller: str) -> str:
    for line in (view.text("proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, group = rest.partition(":")
        if controller in names.split(",") and (controller or number == "0"):
            return group.strip("/")
    return ""


def _upwards(mount: str, group: str) -> Iterator[str]:
    parts = [part for part in group.split("/") if part]
    if ".." in parts:
        parts = []
    for length in range(len(parts), 0, -1):
        yield "/".join([mount, *parts[:length]])
    yield mount
