"""Facts about a host: what a probe saw, where it saw it, or that it is unknown. Never advice.

`report_table` and `parse_report` are each other's inverse: a report crosses on a stick as JSON and
is the same report on the other side. What each fact means and where it comes from:
docs/reference/probe.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from edgekit.core.fields import Fields
from edgekit.core.strict_json import parse_strict

T = TypeVar("T")
Version = tuple[int, int]

SCHEMA = "edgekit.host/2"
MAX_REPORT_BYTES = 4 << 20
MAX_LISTED = 1000
ADDED = frozenset(("engine_devices",))
"""Facts that reports of earlier releases do not have: unknown there."""
MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """A value and its source (a path or command); `value` is None when it is unknown."""

    value: T | None
    source: str


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """Processor: architecture, kernel-visible flags, cores a process may use and physical cores.

    `performance_cores` and `efficiency_cores` are physical cores of a hybrid processor, `caches`
    texts such as `L3 32768K`, sizes as sysfs spells them.
    """

    arch: Fact[str]
    vendor: Fact[str]
    name: Fact[str]
    flags: Fact[tuple[str, ...]]
    usable_threads: Fact[int]
    logical_cores: Fact[int]
    physical_cores: Fact[int]
    performance_cores: Fact[int]
    efficiency_cores: Fact[int]
    sockets: Fact[int]
    numa_nodes: Fact[int]
    caches: Fact[tuple[str, ...]]
    quota: Fact[int]
    """Hundredths of a CPU that the control groups allow; None when there is no limit."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """Memory in bytes. `limit` is the tightest control-group limit on the way to the root.

    `bandwidth` is bytes per second that all usable cores read together, when it was measured.
    """

    total: Fact[int]
    available: Fact[int]
    limit: Fact[int]
    limit_used: Fact[int]
    swap: Fact[int]
    zram: Fact[int]
    huge_page_bytes: Fact[int]
    huge_pages_free: Fact[int]
    page_bytes: Fact[int]
    bandwidth: Fact[int]

    def usable(self) -> int | None:
        """Bytes that can be had now: MemAvailable, but no more than the groups leave."""
        candidates = [] if self.available.value is None else [self.available.value]
        if self.limit.value is not None:
            candidates.append(max(0, self.limit.value - (self.limit_used.value or 0)))
        return min(candidates) if candidates else None


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """One place edgekit writes to: path asked for, free bytes, file system, and mount flags.

    `speed` is the class of the device: `nvme`, `ssd`, `disk` (it turns), `card`, `virtual`.
    """

    path: str
    free: Fact[int]
    file_system: Fact[str]
    read_only: Fact[bool]
    no_exec: Fact[bool]
    speed: Fact[str]


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One accelerator, or one slice of a partitioned one. Memory in bytes.

    `architecture` is the compute capability (`8.9`) of NVIDIA, the target (`gfx942`) of AMD.
    `driver` is the kernel driver that is bound, `driver_version` its version, `cuda` the newest
    CUDA that the driver runs. An `integrated` one shares the host's memory. `partition` names the
    MIG profile of a slice; `partitioned` is true of the whole that was cut up.
    """

    vendor: Fact[str]
    name: Fact[str]
    identity: Fact[str]
    architecture: Fact[str]
    memory: Fact[int]
    memory_free: Fact[int]
    driver: Fact[str]
    driver_version: Fact[str]
    cuda: Fact[Version]
    integrated: Fact[bool]
    partitioned: Fact[bool]
    partition: Fact[str]


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """Operating system: distribution, kernel, C library, systemd and container runtime versions."""

    distribution: Fact[str]
    kernel: Fact[str]
    glibc: Fact[Version]
    systemd: Fact[int]
    systemd_running: Fact[bool]
    systemd_features: Fact[tuple[str, ...]]
    podman: Fact[str]
    docker: Fact[str]
    cdi_devices: Fact[tuple[str, ...]]
    machine: Fact[str]
    """What the firmware says it is: DMI product or device-tree model."""
    virtual: Fact[str]
    """The container or virtual machine this runs in; empty on bare metal."""
    secure_boot: Fact[bool]
    tpm: Fact[str]
    clock_plausible: Fact[bool]
    """Whether the clock is past the day this program was made."""
    clock_synchronised: Fact[bool]
    compiler: Fact[str]
    python: Fact[str]
    listening: Fact[tuple[str, ...]]
    """Ports that something listens on already, as `127.0.0.1:11434`."""
    engine_devices: Fact[tuple[str, ...]] = Fact(None, "not probed")
    """Devices as an installed llama.cpp names them: `CPU cpu 24102 MiB AMD EPYC`."""


@dataclass(frozen=True, slots=True)
class HostReport:
    """Everything `edgekit probe` saw."""

    cpu: CpuFacts
    memory: MemoryFacts
    disks: tuple[DiskFacts, ...]
    gpus: tuple[GpuFacts, ...]
    system: SystemFacts

    def disk(self, path: str) -> DiskFacts:
        """Facts about one of the probed places."""
        return next(disk for disk in self.disks if disk.path == path)


def unknown_facts(kind: type[T], source: str, **known: Any) -> T:
    """A group of facts of which nothing is known beside `known`; for hosts that are not here."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: known.get(name, Fact(None, source)) for name in names})


def without_containers(report: HostReport, why: str) -> HostReport:
    """The same host where no container may be used; `why` becomes the fact's source."""
    return replace(report, system=replace(report.system, podman=Fact(None, why)))


def report_table(report: HostReport) -> dict[str, Any]:
    """The report as plain JSON values."""
    return {"schema": SCHEMA, **asdict(report)}


def parse_report(data: bytes, *, file: str) -> HostReport:
    """JSON bytes of `edgekit probe` back to the report. Raises FormatError that names the key."""
    table = Fields(parse_strict(data, max_bytes=MAX_REPORT_BYTES, what=file))
    table.text("schema", choices=(SCHEMA,))
    report = HostReport(
        cpu=_group(CpuFacts, table.table("cpu")),
        memory=_group(MemoryFacts, table.table("memory")),
        disks=tuple(_group(DiskFacts, item) for item in table.items("disks", max_items=32)),
        gpus=tuple(_group(GpuFacts, item) for item in table.items("gpus", max_items=128)),
        system=_group(SystemFacts, table.table("system")),
    )
    table.finish()
    return report


def _group(kind: Callable[..., T], table: Fields) -> T:
    """One dataclass of facts, each read by what its annotation says it is."""
    values: dict[str, Any] = {}
    for name, annotation in _annotations(kind).items():
        if name in ADDED and name not in table:
            continue
        if get_origin(annotation) is Fact:
            values[name] = _fact(table.table(name), get_args(annotation)[0])
        else:
            values[name] = table.text(name, max_length=4096)
    table.finish()
    return kind(**values)


@cache
def _annotations(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _fact(table: Fields, kind: Any) -> Fact[Any]:
    raw = table.take("value", object)
    source = table.text("source", max_length=200)
    table.finish()
    if raw is None:
        return Fact(None, source)
    return Fact(_READERS[kind](table, raw), source)


def _plain(kind: type[T]) -> Callable[[Fields, object], T]:
    def read(table: Fields, raw: object) -> T:
        if type(raw) is not kind:  # bool is not int
            raise table.fail("value", f"expected {kind.__name__} or null")
        return raw

    return read


def _whole(table: Fields, raw: object) -> int:
    if type(raw) is not int or raw < 0:
        raise table.fail("value", "expected a number from 0 or null")
    return raw


def _text(table: Fields, raw: object) -> str:
    if not isinstance(raw, str) or len(raw) > MAX_TEXT:
        raise table.fail("value", f"expected at most {MAX_TEXT} characters or null")
    return raw


def _texts(table: Fields, raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or len(raw) > MAX_LISTED:
        raise table.fail("value", f"expected at most {MAX_LISTED} texts or null")
    return tuple(_text(table, item) for item in raw)


def _version(table: Fields, raw: object) -> Version:
    if not isinstance(raw, list) or len(raw) != 2 or not all(type(n) is int for n in raw):
        raise table.fail("value", "expected two integers or null")
    return raw[0], raw[1]


_READERS: dict[Any, Callable[[Fields, object], Any]] = {
    int: _whole,
    str: _text,
    bool: _plain(bool),
    tuple[str, ...]: _texts,
    Version: _version,
}
