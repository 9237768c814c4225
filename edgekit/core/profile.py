"""Profiles and recorded probe reports: hosts that are not here, as facts.

A profile (`profiles/*.toml`) is a named class of target hosts, given by its floor: what every host
of the class has at least. A probe report (`edgekit probe`) taken on a real host can stand in for a
profile everywhere. Schema: docs/reference/profile.md.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from typing import TypeVar

from edgekit.core.facts import (
    CpuFacts,
    DiskFacts,
    Fact,
    GpuFacts,
    HostReport,
    MemoryFacts,
    SystemFacts,
    unknown_facts,
)
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN
from edgekit.core.recipe import ARCHITECTURES
from edgekit.core.toml_lines import find_line
from edgekit.errors import EdgekitError, RecipeError

MAX_PROFILE_BYTES = 1 << 20
GIB = 1 << 30

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Profile:
    """A named class of hosts: who it is for, and the least that each of them has.

    `users` is how many people each of them serves at once, when the profile says it.
    """

    name: str
    description: str
    users: int | None
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
    users = fields.integer("users", low=1, high=10_000, default=None)
    memory = fields.integer("memory_gib", low=1, high=1 << 16) * GIB
    free = fields.integer("available_gib", low=1, high=1 << 16, default=None)
    disk = fields.integer("disk_gib", low=1, high=1 << 20) * GIB
    swap = fields.integer("swap_gib", low=0, high=1 << 16, default=0) * GIB
    report = HostReport(
        cpu=_cpu(fields, source),
        memory=unknown_facts(
            MemoryFacts,
            source,
            total=fact(memory),
            available=fact(memory * 9 // 10 if free is None else free * GIB),
            swap=fact(swap),
        ),
        disks=tuple(
            unknown_facts(
                DiskFacts,
                source,
                path=place,
                free=fact(disk),
                read_only=fact(False),
                no_exec=fact(False),
            )
            for place in places
        ),
        gpus=tuple(
            gpu for item in fields.items("gpu", max_items=64, default=[])
            for gpu in _gpus(item, source)
        ),
        system=unknown_facts(
            SystemFacts,
            source,
            glibc=fact(_pair(fields, "glibc")),
            systemd=fact(fields.integer("systemd", low=1, high=10_000)),
            systemd_running=fact(True),
            podman=fact(fields.text("podman", max_length=60, default=None)),
            python=fact(fields.text("python", max_length=60, default=None)),
        ),
    )
    fields.finish()
    return Profile(name, description, users, report)


def _cpu(fields: Fields, source: str) -> CpuFacts:
    cores = Fact(fields.integer("cores", low=1, high=4096), source)
    return unknown_facts(
        CpuFacts,
        source,
        arch=Fact(fields.text("arch", choices=ARCHITECTURES), source),
        flags=Fact(fields.texts("cpu_flags", max_items=200, pattern=r"[a-z0-9_]{1,30}"), source),
        usable_threads=cores,
        physical_cores=cores,
    )


def _gpus(fields: Fields, source: str) -> list[GpuFacts]:
    """`[[gpu]]`: one kind of accelerator, `count` times."""

    def fact(value: T | None) -> Fact[T]:
        return Fact(value, source)

    memory = fields.integer("memory_gib", low=1, high=1 << 12) * GIB
    count = fields.integer("count", low=1, high=64, default=1)
    gpu = unknown_facts(
        GpuFacts,
        source,
        vendor=fact(fields.text("vendor", choices=("nvidia", "amd", "intel"))),
        name=fact(fields.text("name", max_length=100)),
        architecture=fact(fields.text("architecture", pattern=r"[a-z0-9.]{1,20}", default=None)),
        memory=fact(memory),
        memory_free=fact(memory * 97 // 100),
        driver=fact(fields.text("driver", pattern=r"[a-z0-9_]{1,20}", default=None)),
        driver_version=fact(fields.text("driver_version", max_length=40, default=None)),
        cuda=fact(_pair(fields, "cuda") if "cuda" in fields else None),
        integrated=fact(fields.boolean("integrated", default=False)),
        partitioned=fact(False),
    )
    fields.finish()
    return [replace(gpu, identity=fact(str(number))) for number in range(count)]


def _pair(fields: Fields, key: str) -> tuple[int, int]:
    major, minor = fields.text(key, pattern=r"[0-9]{1,3}\.[0-9]{1,3}").split(".")
    return int(major), int(minor)
