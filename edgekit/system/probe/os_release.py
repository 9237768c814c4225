"""Operating system facts: distribution, kernel, C library, systemd, podman."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

from edgekit.core.facts import Fact, SystemFacts
from edgekit.errors import EdgekitError
from edgekit.system.probe.cgroup import read_text
from edgekit.system.process import run


def probe_system(root: Path = Path("/")) -> SystemFacts:
    """Facts about the operating system; `root` replaces `/` for recorded hosts."""
    return SystemFacts(
        distribution=_distribution(root),
        kernel=Fact(platform.release(), "uname"),
        glibc=_glibc(),
        systemd=_systemd_version(),
        systemd_running=Fact((root / "run/systemd/system").is_dir(), "/run/systemd/system"),
        podman=_version_of(("podman", "--version")),
    )


def _distribution(root: Path) -> Fact[str]:
    text = read_text(root / "etc/os-release") or ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', text, re.MULTILINE)
    return Fact(match.group(1) if match else None, "/etc/os-release")


def _glibc() -> Fact[tuple[int, int]]:
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        text = ""
    match = re.match(r"glibc (\d+)\.(\d+)", text)
    return Fact((int(match.group(1)), int(match.group(2))) if match else None, "confstr")


def _systemd_version() -> Fact[int]:
    fact = _version_of(("systemctl", "--version"))
    match = re.match(r"systemd (\d+)", fact.value or "")
    return Fact(int(match.group(1)) if match else None, fact.source)


def _version_of(argv: tuple[str, ...]) -> Fact[str]:
    """The first line a program prints about its version; unknown when it is not there."""
    source = " ".join(argv)
    if shutil.which(argv[0]) is None:
        return Fact(None, source)
    try:
        done = run(list(argv), timeout_s=10)
    except EdgekitError:
        return Fact(None, source)
    return Fact(done.text.strip().split("\n")[0][:200] or None, source)
