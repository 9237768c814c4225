"""Bugs put into edgekit on purpose: a suite that does not see the bug it is there for is broken.

Each function changes this process's edgekit; it is called in a process that ends afterwards.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from edgekit.core import floor, trust
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import InstallPlan
from edgekit.errors import DigestError, DiskFullError, HostError
from edgekit.exit_codes import ExitCode
from edgekit.operations import host_records, installation
from edgekit.system import files, generations, trust_store


def _everywhere(name: str, function: Callable[..., object], *modules: ModuleType) -> None:
    for module in (files, *modules):
        setattr(module, name, function)


def write_in_place() -> None:
    """Files are overwritten where they lie, without a temporary file and a rename."""

    def durable_write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)

    _everywhere("durable_write", durable_write, generations, host_records, installation,
                trust_store)


def switch_first() -> None:
    """`current` is switched before the generation is there."""
    build = generations.build_generation

    def build_generation(plan: InstallPlan, documents: dict[str, bytes]) -> None:
        HostLayout(plan.layout.root).opt.mkdir(parents=True, exist_ok=True)
        generations.switch_current(plan.layout, plan.generation)
        build(plan, documents)

    generations.build_generation = build_generation


def swallow_errors() -> None:
    """A write or fsync that fails is passed over."""
    fsync = os.fsync

    def deaf(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            fsync(descriptor)

    os.fsync = deaf  # type: ignore[assignment]


def retry_fsync() -> None:
    """A failed fsync is tried once more."""
    fsync = os.fsync

    def stubborn(descriptor: int) -> None:
        try:
            fsync(descriptor)
        except OSError:
            fsync(descriptor)

    os.fsync = stubborn  # type: ignore[assignment]


def one_write() -> None:
    """A short write is taken for a whole one."""

    def write_all(descriptor: int, data: bytes | memoryview) -> None:
        os.write(descriptor, data)

    def pwrite_all(descriptor: int, data: memoryview, offset: int) -> None:
        os.pwrite(descriptor, data, offset)

    for function in (write_all, pwrite_all):
        for module in _users_of(function.__name__):
            setattr(module, function.__name__, function)


def full_is_success() -> None:
    """A command that found no room says that all went well."""
    DiskFullError.exit_code = ExitCode.OK


def lost_is_success() -> None:
    """A command whose medium went says that all went well."""
    DigestError.exit_code = HostError.exit_code = ExitCode.OK


def no_fsync() -> None:
    """Nothing is ever made durable."""
    os.fsync = os.fdatasync = lambda _descriptor: None  # type: ignore[assignment]


def no_folder_sync() -> None:
    """Bytes are made durable, and names are not."""
    for module in _users_of("fsync_directory"):
        module.fsync_directory = lambda _path: None  # type: ignore[attr-defined]


def no_lock() -> None:
    """Commands do not exclude each other."""

    @contextlib.contextmanager
    def exclusive_lock(_path: Path, _what: str) -> object:  # type: ignore[misc]
        yield

    for module in _users_of("exclusive_lock"):
        module.exclusive_lock = exclusive_lock  # type: ignore[attr-defined]


def _users_of(name: str) -> list[ModuleType]:
    return [module for path, module in sys.modules.items()
            if path.startswith("edgekit.") and hasattr(module, name)]


def clock_decides() -> None:
    """What the wall clock says is believed, whatever the signed dates say."""
    floor.trust_time = trust.trust_time = lambda _floor, now: floor.TrustedTime(now, "believed")


SABOTAGES: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (
        write_in_place, switch_first, swallow_errors, retry_fsync, one_write, full_is_success,
        lost_is_success,
        no_fsync, no_folder_sync, no_lock, clock_decides)
}
