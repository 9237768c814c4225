"""Which accelerators of a host an engine pack can use, and why not the others. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.engine_pack import EnginePack
from edgekit.core.facts import GpuFacts, HostReport, Version
from edgekit.core.planning.values import MIB

HEADROOM_PERCENT = 10
"""Of the host's memory, what is left to others."""
DEVICE_HEADROOM_PERCENT = 5
VLLM_MIN_GLIBC = (2, 28)
VLLM_MIN_CAPABILITY = 75
VLLM_MIN_DEVICE_BYTES = 8 << 30
"""At or below this, an engine with graphs and a compiler leaves too little for the model."""
_NAMES = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan"}
_VENDORS = {"cuda": ("nvidia",), "rocm": ("amd",), "vulkan": ("nvidia", "amd", "intel")}


@dataclass(frozen=True, slots=True)
class Device:
    """A usable accelerator: the engine's name for it, identity, bytes that may be used."""

    name: str
    identity: str
    model: str
    capability: int
    budget: int
    total: int
    integrated: bool


@dataclass(frozen=True, slots=True)
class Usable:
    """The devices a pack can use, or why there are none."""

    devices: tuple[Device, ...]
    reason: str = ""


def pack_problem(pack: EnginePack, report: HostReport) -> str | None:
    """Why this pack cannot run on this host at all; None when it can."""
    missing = sorted(set(pack.cpu_flags) - set(report.cpu.flags.value or ()))
    if missing:
        return f"needs processor instructions {', '.join(missing)}"
    glibc = report.system.glibc.value
    if pack.glibc > (0, 0) and (glibc is None or glibc < pack.glibc):
        return f"needs glibc {_dotted(pack.glibc)}, found {_dotted(glibc) if glibc else 'unknown'}"
    if pack.provider == "image" and report.system.podman.value is None:
        return f"needs podman, found none ({report.system.podman.source})"
    if pack.python and not (report.system.python.value or "").startswith(pack.python):
        return f"needs Python {pack.python}, found {report.system.python.value or 'none'}"
    return None


def usable_devices(pack: EnginePack, report: HostReport) -> Usable:
    """What the pack's accelerator can drive here; a slice of a card is a device of its own."""
    if pack.accelerator == "cpu":
        return Usable((), "this pack is for the processor")
    if not report.gpus:
        return Usable((), "no accelerator found")
    devices: list[Device] = []
    problems: list[str] = []
    for gpu in report.gpus:
        problem = _device_problem(pack, gpu)
        if problem is not None:
            problems.append(f"{gpu.name.value or 'accelerator'}: {problem}")
            continue
        devices.append(_device(pack, gpu, len(devices)))
        if gpu.partition.value:  # a process sees one slice only
            break
    return Usable(tuple(devices), "; ".join(dict.fromkeys(problems)) if not devices else "")


def _device_problem(pack: EnginePack, gpu: GpuFacts) -> str | None:
    if gpu.vendor.value not in _VENDORS[pack.accelerator]:
        return f"not driven by {_NAMES[pack.accelerator]}"
    if gpu.driver.value is None:
        return "no driver"
    if gpu.partitioned.value:
        return "cut into slices"
    if not gpu.memory.value:
        return "its memory is unknown"
    if pack.accelerator == "cuda":
        return _cuda_problem(pack, gpu)
    if pack.accelerator == "vulkan" and gpu.integrated.value:
        return "shares the host's memory and gains nothing over the processor"
    return None


def _cuda_problem(pack: EnginePack, gpu: GpuFacts) -> str | None:
    runs = gpu.cuda.value
    if runs is None:
        return "the CUDA version of its driver is unknown"
    if runs[0] < pack.cuda[0]:
        driver = gpu.driver_version.value or "unknown"
        return f"driver {driver} runs CUDA {_dotted(runs)}, the pack needs CUDA {pack.cuda[0]}"
    capability = capability_of(gpu)
    if capability is None:
        return "its compute capability is unknown"
    if pack.capabilities and not any(
        built <= capability and built // 10 == capability // 10 for built in pack.capabilities
    ):
        built = ", ".join(_capability_text(number) for number in pack.capabilities)
        return f"compute capability {_capability_text(capability)}, the pack has {built}"
    return None


def _device(pack: EnginePack, gpu: GpuFacts, number: int) -> Device:
    total = gpu.memory.value or 0
    free = total if gpu.memory_free.value is None else min(total, gpu.memory_free.value)
    name = str(number) if pack.kind == "vllm" else f"{_NAMES[pack.accelerator]}{number}"
    return Device(
        name=name,
        identity=gpu.identity.value or name,
        model=gpu.name.value or "accelerator",
        capability=capability_of(gpu) or 0,
        budget=free * (100 - DEVICE_HEADROOM_PERCENT) // 100,
        total=total,
        integrated=bool(gpu.integrated.value),
    )


def capability_of(gpu: GpuFacts) -> int | None:
    """Compute capability as one number: 89 for 8.9; None when it is unknown or another kind."""
    major, _, minor = (gpu.architecture.value or "").partition(".")
    return int(major) * 10 + int(minor) if major.isdigit() and minor.isdigit() else None


def vllm_problem(report: HostReport, usable: Usable) -> str | None:
    """Why vLLM is not for these devices (docs/reference/planner.md); None when it is."""
    devices = usable.devices
    if not devices:
        return usable.reason
    if any(device.integrated for device in devices):
        return "the accelerator shares the host's memory"
    weak = min(device.capability for device in devices)
    if weak < VLLM_MIN_CAPABILITY:
        return f"needs compute capability 7.5, found {_capability_text(weak)}"
    if len({(device.model, device.total) for device in devices}) > 1:
        return "the accelerators differ: " + ", ".join(sorted({d.model for d in devices}))
    if devices[0].total <= VLLM_MIN_DEVICE_BYTES:
        return f"needs more than 8 GiB on the accelerator, found {devices[0].total // MIB} MiB"
    glibc = report.system.glibc.value
    if glibc is not None and glibc < VLLM_MIN_GLIBC:
        return f"needs glibc {_dotted(VLLM_MIN_GLIBC)}, found {_dotted(glibc)}"
    return None


def serving_threads(report: HostReport) -> int:
    """Physical cores, the fast ones of a hybrid, but no more than this process may use."""
    cpu = report.cpu
    limits = [cpu.usable_threads.value or 1]
    cores = cpu.performance_cores.value or cpu.physical_cores.value
    if cores:
        limits.append(cores)
    if cpu.quota.value:
        limits.append(max(1, cpu.quota.value // 100))
    return min(limits)


def _capability_text(number: int) -> str:
    return f"{number // 10}.{number % 10}"


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
