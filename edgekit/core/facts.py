"""Facts about a host: what a probe saw, where it saw it, or that it is unknown. Never advice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SCHEMA = "edgekit.host/1"


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """A value and its source (a path or command); `value` is None when it is unknown."""

    value: T | None
    source: str


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """Processor: architecture, kernel-visible flags, cores a process may use and physical cores."""

    arch: Fact[str]
    name: Fact[str]
    flags: Fact[tuple[str, ...]]
    usable_threads: Fact[int]
    physical_cores: Fact[int]
    quota: Fact[int]
    """Hundredths of a CPU that the control groups allow; None when there is no limit."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """Memory in bytes. `limit` is the tightest control-group limit on the way to the root."""

    total: Fact[int]
    available: Fact[int]
    limit: Fact[int]
    limit_used: Fact[int]
    swap: Fact[int]

    def usable(self) -> int | None:
        """Bytes that can be had now: MemAvailable, but no more than the groups leave."""
        candidates = [] if self.available.value is None else [self.available.value]
        if self.limit.value is not None:
            candidates.append(max(0, self.limit.value - (self.limit_used.value or 0)))
        return min(candidates) if candidates else None


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """One place edgekit writes to: path asked for, free bytes, file system, and mount flags."""

    path: str
    free: Fact[int]
    file_system: Fact[str]
    read_only: Fact[bool]
    no_exec: Fact[bool]


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """Operating system: distribution, kernel, C library, systemd and container runtime versions."""

    distribution: Fact[str]
    kernel: Fact[str]
    glibc: Fact[tuple[int, int]]
    systemd: Fact[int]
    systemd_running: Fact[bool]
    podman: Fact[str]


@dataclass(frozen=True, slots=True)
class HostReport:
    """Everything `edgekit probe` saw."""

    cpu: CpuFacts
    memory: MemoryFacts
    disks: tuple[DiskFacts, ...]
    system: SystemFacts

    def disk(self, path: str) -> DiskFacts:
        """Facts about one of the probed places."""
        return next(disk for disk in self.disks if disk.path == path)


def report_table(report: HostReport) -> dict[str, Any]:
    """The report as plain JSON values."""
    return {"schema": SCHEMA, **asdict(report)}
