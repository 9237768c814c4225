"""Debian packages that the demo and the tests use: install what is missing, and say so."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

DEMO = {
    "systemd-nspawn": "systemd-container", "debootstrap": "debootstrap", "skopeo": "skopeo",
    "docker-registry": "docker-registry", "busybox": "busybox-static", "ssh-keygen":
    "openssh-client",
}
"""Program to Debian package: a sealed host to boot, a registry to carry an image from."""

TESTS = {**DEMO, "podman": "podman", "crun": "crun", "strace": "strace"}


def ensure_packages(wanted: dict[str, str], report: Callable[[str], None]) -> list[str]:
    """Install the packages whose programs are missing; returns what is still missing afterwards.

    Only as root on a machine with apt-get; elsewhere nothing is changed.
    """
    missing = sorted({package for program, package in wanted.items() if not _has(program)})
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        report(f"installing Debian packages: {' '.join(missing)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
        ):
            done = subprocess.run(command, env=environment, capture_output=True, text=True,
                                  check=False)
            if done.returncode != 0:
                report(f"{command[1]} failed: {done.stderr.strip()[-300:]}")
    return sorted({package for program, package in wanted.items() if not _has(program)})


def _has(program: str) -> bool:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None
