"""Profiles and recorded probe reports: hosts that are not here, as facts.

A profile (`profiles/*.toml`) is a named class of target hosts, given by its floor: what every host
of the class has at least. A probe report (`edgekit probe`) taken on a real host can stand in for a
profile everywhere. Schema: docs/reference/profile.md.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any, TypeVar

from edgekit.core.facts import (
    SCHEMA,
    CpuFacts,
    DiskFacts,
    Fact,
    HostReport,
    MemoryFacts,
    SystemFacts,
)
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN
from edgekit.core.recipe import ARCHITECTURES
from edgekit.core.strict_json import parse_strict
from edgekit.core.toml_lines import find_line
from edgekit.errors import EdgekitError, RecipeError

MAX_PROFILE_BYTES = 1 << 20
MAX_REPORT_BYTES = 4 << 20
GIB = 1 << 30
MIB = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Profile:
    """A named class of hosts: who it is for, and the least that each of them has."""

    name: str
    description: str
    report: HostReport


def parse_profile(data: bytes, *, file: str, places: tuple[str, ...]) -> Profile:
    """TOML bytes to a profile; `places` are the folders whose disk the profile's disk stands for.

    Raises RecipeError that names file, key and line.
    """
    if len(data) > MAX_PROFILE_BYTES:
        raise RecipeError("profile is too large", where=file, needed=f"{MAX_PROFILE_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError("profile is not valid TOML", where=file, found=str(error)) from error

    def fail(message: str, path: str) -> EdgekitError:
        return RecipeError(message, where=f"{file}, key {path}, line {find_line(text, path)}")

    return _profile(Fields(table, error=fail), places)


def _profile(fields: Fields, places: tuple[str, ...]) -> Profile:
    fields.integer("format", low=1, high=1)
    name = fields.text("name", pattern=NAME_PATTERN)
    source = f"profile {name}"

    def fact(value: T | None) -> Fact[T]:
        return Fact(value, source)

    description = fields.text("description", max_length=500, default="")
    cores = fields.integer("cores", low=1, high=4096)
    memory = fields.integer("memory_gib", low=1, high=1 << 16) * GIB
    free = fields.integer("available_gib", low=1, high=1 << 16, default=None)
    disk = fields.integer("disk_gib", low=1, high=1 << 20) * GIB
    glibc = fields.text("glibc", pattern=r"[0-9]{1,3}\.[0-9]{1,3}").split(".")
    report = HostReport(
        cpu=CpuFacts(
            arch=fact(fields.text("arch", choices=ARCHITECTURES)),
            name=fact(None),
            flags=fact(fields.texts("cpu_flags", max_items=200, pattern=r"[a-z0-9_]{1,30}")),
            usable_threads=fact(cores),
            physical_cores=fact(cores),
            quota=fact(None),
        ),
        memory=MemoryFacts(
            total=fact(memory),
            available=fact(memory * 9 // 10 if free is None else free * GIB),
            limit=fact(None),
            limit_used=fact(None),
            swap=fact(None),
        ),
        disks=tuple(
            DiskFacts(place, fact(disk), fact(None), fact(False), fact(False)) for place in places
        ),
        system=SystemFacts(
            distribution=fact(None),
            kernel=fact(None),
            glibc=fact((int(glibc[0]), int(glibc[1]))),
            systemd=fact(fields.integer("systemd", low=1, high=10_000)),
            systemd_running=fact(True),
            podman=fact(None),
        ),
    )
    fields.finish()
    return Profile(name, description, report)


def parse_report(data: bytes, *, file: str) -> HostReport:
    """JSON bytes of `edgekit probe` back to the report. Raises FormatError that names the key."""
    fields = Fields(parse_strict(data, max_bytes=MAX_REPORT_BYTES, what=file))
    fields.text("schema", choices=(SCHEMA,))
    report = HostReport(
        cpu=_cpu(fields.table("cpu")),
        memory=_memory(fields.table("memory")),
        disks=tuple(_disk(item) for item in fields.items("disks", max_items=32)),
        system=_system(fields.table("system")),
    )
    fields.finish()
    return report


def _cpu(fields: Fields) -> CpuFacts:
    facts = CpuFacts(
        arch=_text(fields, "arch"),
        name=_text(fields, "name"),
        flags=_texts(fields, "flags"),
        usable_threads=_integer(fields, "usable_threads"),
        physical_cores=_integer(fields, "physical_cores"),
        quota=_integer(fields, "quota"),
    )
    fields.finish()
    return facts


def _memory(fields: Fields) -> MemoryFacts:
    facts = MemoryFacts(
        **{
            name: _integer(fields, name)
            for name in ("total", "available", "limit", "limit_used", "swap")
        }
    )
    fields.finish()
    return facts


def _disk(fields: Fields) -> DiskFacts:
    facts = DiskFacts(
        path=fields.text("path", max_length=4096),
        free=_integer(fields, "free"),
        file_system=_text(fields, "file_system"),
        read_only=_boolean(fields, "read_only"),
        no_exec=_boolean(fields, "no_exec"),
    )
    fields.finish()
    return facts


def _system(fields: Fields) -> SystemFacts:
    facts = SystemFacts(
        distribution=_text(fields, "distribution"),
        kernel=_text(fields, "kernel"),
        glibc=_version(fields, "glibc"),
        systemd=_integer(fields, "systemd"),
        systemd_running=_boolean(fields, "systemd_running"),
        podman=_text(fields, "podman"),
    )
    fields.finish()
    return facts


def _fact(fields: Fields, key: str, kind: type[T]) -> tuple[T | None, str]:
    """(value or None, source) of one fact's table."""
    table = fields.table(key)
    raw: Any = table.take("value", object)
    if raw is not None and (not isinstance(raw, kind) or (kind is int and raw is True)):
        raise table.fail("value", f"expected {kind.__name__} or null")
    source = table.text("source", max_length=200)
    table.finish()
    return raw, source


def _text(fields: Fields, key: str) -> Fact[str]:
    value, source = _fact(fields, key, str)
    return Fact(value[:1000] if value else None, source)


def _integer(fields: Fields, key: str) -> Fact[int]:
    return Fact(*_fact(fields, key, int))


def _boolean(fields: Fields, key: str) -> Fact[bool]:
    return Fact(*_fact(fields, key, bool))


def _texts(fields: Fields, key: str) -> Fact[tuple[str, ...]]:
    value, source = _fact(fields, key, list)
    if value is None:
        return Fact(None, source)
    if len(value) > 1000 or not all(isinstance(item, str) for item in value):
        raise fields.fail(key, "expected at most 1000 strings")
    return Fact(tuple(value), source)


def _version(fields: Fields, key: str) -> Fact[tuple[int, int]]:
    value, source = _fact(fields, key, list)
    if value is None:
        return Fact(None, source)
    if len(value) != 2 or not all(type(item) is int for item in value):
        raise fields.fail(key, "expected two integers")
    return Fact((value[0], value[1]), source)
