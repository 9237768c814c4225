"""The room an audit log has on its disk: the plan, the reserve, and how full it is."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.core.audit_capacity import (
    MAX_CAPACITY_BYTES,
    Capacity,
    Level,
    encode_capacity,
    parse_capacity,
    plan_capacity,
)
from edgekit.core.site_config import AuditConfig
from edgekit.system.audit_files import unavailable
from edgekit.system.audit_keyring import give_to_owner
from edgekit.system.files import durable_write, free_bytes, read_bounded

RESERVE_NAME = "reserve"
CAPACITY_NAME = "capacity.json"


def ensure_capacity(directory: Path, config: AuditConfig) -> tuple[Capacity, bool]:
    """The log's room, and whether it was planned just now. A site's own size counts before a plan.

    Raises HostError, DiskFullError, FormatError.
    """
    path = directory / CAPACITY_NAME
    planned = not path.exists()
    if planned:
        durable_write(path, encode_capacity(plan_capacity(config, free_bytes(directory))))
        give_to_owner(directory, path)
    kept = parse_capacity(read_bounded(path, MAX_CAPACITY_BYTES, "audit capacity"))
    return (plan_capacity(config, 0) if config.max_mib else kept), planned


def read_space(directory: Path, config: AuditConfig) -> Space:
    """The room of a log, for who may read its folder; changes nothing. Before the writer's first
    start it is what would be planned now. Raises HostError, FormatError.
    """
    path = directory / CAPACITY_NAME
    if config.max_mib or not path.exists():
        return Space(directory, plan_capacity(config, free_bytes(directory)))
    kept = parse_capacity(read_bounded(path, MAX_CAPACITY_BYTES, "audit capacity"))
    return Space(directory, kept)


class Space:
    """Measures one log folder and holds its reserve."""

    def __init__(self, directory: Path, capacity: Capacity) -> None:
        self._directory = directory
        self._reserve = directory / RESERVE_NAME
        self.capacity = capacity

    def used_bytes(self) -> int:
        """Bytes of the log's files, the reserve left out. Raises AuditUnavailableError."""
        try:
            with os.scandir(self._directory) as entries:
                return sum(
                    entry.stat(follow_symlinks=False).st_size
                    for entry in entries
                    if entry.name != RESERVE_NAME and entry.is_file(follow_symlinks=False)
                )
        except OSError as error:
            raise unavailable("cannot measure the audit log", self._directory, error) from error

    def level(self) -> Level:
        """How full the log is now."""
        return self.capacity.level(self.used_bytes(), free_bytes(self._directory))

    def take_reserve(self) -> bool:
        """Occupy the reserve, once; False when the disk has no room for it."""
        size = self.capacity.reserve_bytes
        if size == 0 or (self._reserve.exists() and self._reserve.stat().st_size == size):
            return True
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._reserve, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
            give_to_owner(self._directory, self._reserve)
        except OSError:
            self.give_reserve()
            return False
        return True

    def give_reserve(self) -> None:
        """Give the reserve's space back to the disk. Raises OSError."""
        self._reserve.unlink(missing_ok=True)
