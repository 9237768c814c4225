"""Debian packages that the demo and the tests use: install what is missing, and say so.

Standard library only, and nothing newer than Python 3.11: make_environment.py runs this with
whatever `python3` the machine has.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PYTHON_LIBRARY = f"lib{_PYTHON}.so.1.0"

BUNDLING = {
    "ensurepip": f"{_PYTHON}-venv", _PYTHON_LIBRARY: f"lib{_PYTHON}", "objdump": "binutils",
    "libgomp.so.1": "libgomp1",
}
"""What is needed to Debian package: a program, a library (lib*) or a Python module (ensurepip).

An environment cannot be made without the first; nothing can be frozen without the others, and an
engine frozen without libgomp does not start.
"""

DEMO = {
    **BUNDLING, "systemd-nspawn": "systemd-container", "debootstrap": "debootstrap",
    "skopeo": "skopeo", "docker-registry": "docker-registry", "busybox": "busybox-static",
    "ssh-keygen": "openssh-client",
}
"""And a sealed host to boot, a registry to carry an image from."""

TESTS = {**DEMO, "podman": "podman", "crun": "crun", "strace": "strace", "ps": "procps",
         "file": "file", "softhsm2-util": "softhsm2",
         "chromium": "chromium", "curl": "curl", "node": "nodejs", "npm": "npm",
         "mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs",
         "mkfs.btrfs": "btrfs-progs",
         "libnuma.so.1": "libnuma1", "qemu-system-x86_64": "qemu-system-x86",
         "cmake": "cmake", "ninja": "ninja-build", "c++": "g++"}


def ensure_packages(wanted: dict[str, str], report: Callable[[str], None]) -> list[str]:
    """Install the packages of what is missing; returns what is still missing afterwards.

    Only as root on a machine with apt-get; elsewhere nothing is changed.
    """
    missing = missing_packages(wanted)
    if missing and can_install():
        report(f"installing Debian packages: {' '.join(missing)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
        ):
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, check=False)
            if done.returncode != 0:
                report(f"apt-get {command[1]} failed: {done.stderr.strip()[-600:]}")
    return missing_packages(wanted)


def missing_packages(wanted: dict[str, str]) -> list[str]:
    """The packages of `wanted` that this machine lacks, sorted. Changes nothing."""
    return sorted({package for name, package in wanted.items() if not _has(name)})


def can_install() -> bool:
    """Whether `ensure_packages` may and can install."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_command(packages: list[str]) -> str:
    """What a person types who is not root here."""
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def _has(name: str) -> bool:
    if name == "ensurepip":
        importlib.invalidate_caches()  # apt may just have brought it
        return importlib.util.find_spec(name) is not None
    if name == _PYTHON_LIBRARY:
        return _has_python_library()
    if name.startswith("lib"):
        return ctypes.util.find_library(name.removeprefix("lib").partition(".so")[0]) is not None
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def _has_python_library() -> bool:
    """Debian's Python comes without the shared library that is built beside it."""
    places = (sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib")
    return any((Path(place) / _PYTHON_LIBRARY).exists() for place in places if place)
