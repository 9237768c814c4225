"""Disk facts of the places edgekit writes to: free bytes, file system, mount flags, speed class."""

from __future__ import annotations

import re
from pathlib import Path

from edgekit.core.facts import DiskFacts, Fact
from edgekit.system.files import free_bytes
from edgekit.system.probe.view import HostView

_MOUNTS, _QUEUE = "/proc/self/mountinfo", "/sys/block"


def probe_disk(view: HostView, path: Path) -> DiskFacts:
    """Facts about the file system that holds, or will hold, `path`."""
    existing = path
    while view.is_live and not existing.exists():
        existing = existing.parent
    mount = _mount_of(view, existing.resolve() if view.is_live else existing)
    free = view.call(f"free{str(path).replace('/', '-')}", lambda: str(free_bytes(existing))) or ""
    return DiskFacts(
        path=str(path),
        free=Fact(int(free) if free.isdigit() else None, "statvfs"),
        file_system=Fact(mount.kind if mount else None, _MOUNTS),
        read_only=Fact("ro" in mount.options if mount else None, _MOUNTS),
        no_exec=Fact("noexec" in mount.options if mount else None, _MOUNTS),
        speed=Fact(_speed(view, mount.device) if mount else None, _QUEUE),
    )


class _Mount:
    def __init__(self, point: Path, kind: str, options: set[str], device: str) -> None:
        self.point, self.kind, self.options, self.device = point, kind, options, device


def _mount_of(view: HostView, path: Path) -> _Mount | None:
    """The longest mount point that contains `path`, the last where several lie on each other."""
    best: _Mount | None = None
    for line in (view.text("proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 6 or len(rest) < 2:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))
        inside = point == path or point in path.parents
        if inside and (best is None or len(point.parts) >= len(best.point.parts)):
            best = _Mount(point, rest[0], set(fields[5].split(",")), rest[1])
    return best


def _speed(view: HostView, device: str) -> str | None:
    """The class of a block device, by its driver's name and whether it turns."""
    name = device.rpartition("/")[2]
    if not device.startswith("/dev/"):
        return None
    whole = re.sub(r"p?[0-9]+$", "", name) if not name.startswith(("dm-", "zram", "loop")) else name
    for prefix, kind in (("nvme", "nvme"), ("mmcblk", "card"), ("vd|xvd|zram|loop", "virtual")):
        if re.match(prefix, whole):
            return kind
    turns = view.number(f"sys/block/{whole}/queue/rotational")
    return None if turns is None else ("disk" if turns else "ssd")
