"""What the firmware says: machine, virtualisation, secure boot, security chip."""

from __future__ import annotations

from edgekit.core.facts import Fact
from edgekit.system.probe.view import HostView

_DMI, _TREE = "sys/class/dmi/id", "proc/device-tree"
_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_HYPERVISORS = {"KVM": "kvm", "QEMU": "qemu", "VMware": "vmware", "innotek": "virtualbox",
                "Microsoft": "hyper-v", "Xen": "xen", "Amazon": "amazon"}


def probe_machine(view: HostView) -> Fact[str]:
    """DMI vendor and product, or the device tree's model."""
    parts = [view.text(f"{_DMI}/{name}") for name in ("sys_vendor", "product_name")]
    known = " ".join(part for part in parts if part)
    if known:
        return Fact(known[:200], "/sys/class/dmi/id")
    return Fact(view.text(f"{_TREE}/model"), "/proc/device-tree/model")


def probe_virtual(view: HostView) -> Fact[str]:
    """Container or hypervisor by name; empty on bare metal."""
    if view.exists("run/.containerenv"):
        return Fact("podman", "/run/.containerenv")
    if view.exists(".dockerenv"):
        return Fact("docker", "/.dockerenv")
    named = view.text("run/systemd/container")
    if named:
        return Fact(named[:40], "/run/systemd/container")
    vendor = view.text(f"{_DMI}/sys_vendor") or ""
    for word, name in _HYPERVISORS.items():
        if word in vendor:
            return Fact(name, "/sys/class/dmi/id/sys_vendor")
    flags = (view.text("proc/cpuinfo") or "").split()
    return Fact("unknown hypervisor" if "hypervisor" in flags else "", "/proc/cpuinfo")


def probe_secure_boot(view: HostView) -> Fact[bool]:
    """The last byte of the firmware's variable; unknown without UEFI."""
    source = "/sys/firmware/efi/efivars"
    try:
        data = view.path(f"sys/firmware/efi/efivars/{_SECURE_BOOT}").read_bytes()
    except OSError:
        return Fact(None, source)
    return Fact(data[-1:] == b"\x01", source)


def probe_tpm(view: HostView) -> Fact[str]:
    """Major version of the security chip, `2`; unknown when there is none."""
    return Fact(view.text("sys/class/tpm/tpm0/tpm_version_major"), "/sys/class/tpm")
