"""Operating system facts: distribution, kernel, C library, programs, containers, clock."""

from __future__ import annotations

import os
import platform
import re
import time

from edgekit.core.facts import Fact, SystemFacts
from edgekit.system.probe.engine_devices import probe_engine_devices
from edgekit.system.probe.firmware import probe_machine, probe_secure_boot, probe_tpm, probe_virtual
from edgekit.system.probe.ports import probe_listening
from edgekit.system.probe.view import HostView

PROGRAM_DATE = 1_764_000_000
"""A day before this program was made, in Unix seconds: a clock before it is wrong."""
_SINCE = {"DynamicUser": 235, "LoadCredential": 247, "ProtectProc": 247, "SocketBindDeny": 249,
          "LoadCredentialEncrypted": 250, "RestrictFileSystems": 250, "MemoryZSwapMax": 253,
          "PrivatePIDs": 257}
"""Unit directives that edgekit can use, by the systemd version they came with (its NEWS)."""


def probe_system(view: HostView) -> SystemFacts:
    """Facts about the operating system."""
    systemd, features = _systemd(view)
    return SystemFacts(
        distribution=_distribution(view),
        kernel=Fact(view.call("kernel", platform.release), "uname"),
        glibc=_glibc(view),
        systemd=systemd,
        systemd_running=Fact(view.exists("run/systemd/system"), "/run/systemd/system"),
        systemd_features=features,
        podman=_version_of(view, "podman"),
        docker=_version_of(view, "docker"),
        cdi_devices=_cdi(view),
        machine=probe_machine(view),
        virtual=probe_virtual(view),
        secure_boot=probe_secure_boot(view),
        tpm=probe_tpm(view),
        clock_plausible=_clock_plausible(view),
        clock_synchronised=_clock_synchronised(view),
        compiler=_version_of(view, "cc"),
        python=_python(view),
        listening=probe_listening(view),
        engine_devices=probe_engine_devices(view),
    )


def _distribution(view: HostView) -> Fact[str]:
    text = view.text("etc/os-release") or ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', text, re.MULTILINE)
    return Fact(match.group(1) if match else None, "/etc/os-release")


def _glibc(view: HostView) -> Fact[tuple[int, int]]:
    text = view.call("glibc", lambda: os.confstr("CS_GNU_LIBC_VERSION")) or ""
    match = re.match(r"glibc (\d+)\.(\d+)", text)
    return Fact((int(match.group(1)), int(match.group(2))) if match else None, "confstr")


def _systemd(view: HostView) -> tuple[Fact[int], Fact[tuple[str, ...]]]:
    """The version, and the directives that edgekit can use which this version knows."""
    source = "systemctl --version"
    text = view.command("systemctl-version", ("systemctl", "--version")) or ""
    match = re.match(r"systemd (\d+)", text)
    if match is None:
        return Fact(None, source), Fact(None, source)
    version = int(match.group(1))
    known = tuple(sorted(name for name, since in _SINCE.items() if version >= since))
    return Fact(version, source), Fact(known, source)


def _version_of(view: HostView, program: str) -> Fact[str]:
    """The first line a program prints about its version; unknown when it is not there."""
    text = view.command(f"{program}-version", (program, "--version"))
    return Fact(text.split("\n")[0][:200] if text else None, f"{program} --version")


def _python(view: HostView) -> Fact[str]:
    fact = _version_of(view, "python3")
    return Fact((fact.value or "").removeprefix("Python ") or None, fact.source)


def _cdi(view: HostView) -> Fact[tuple[str, ...]]:
    """Device kinds that a container runtime can be given by name (CDI specifications)."""
    kinds = []
    for folder in ("etc/cdi", "var/run/cdi", "run/cdi"):
        for name in view.names(folder):
            text = view.text(f"{folder}/{name}") or ""
            match = re.search(r'"?kind"?\s*:\s*"?([\w./-]{1,80})', text)
            if match:
                kinds.append(match.group(1))
    return Fact(tuple(sorted(set(kinds))), "/etc/cdi, /var/run/cdi")


def _clock_plausible(view: HostView) -> Fact[bool]:
    text = view.call("time", lambda: str(int(time.time()))) or ""
    return Fact(int(text) >= PROGRAM_DATE if text.isdigit() else None, "time()")


def _clock_synchronised(view: HostView) -> Fact[bool]:
    """Whether systemd-timesyncd has set the clock since the start."""
    if not view.exists("run/systemd/timesync"):
        return Fact(None, "/run/systemd/timesync")
    return Fact(view.exists("run/systemd/timesync/synchronized"), "/run/systemd/timesync")
