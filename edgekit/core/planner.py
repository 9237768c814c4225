"""From facts to a decision: which variant, how many slots, how much context, and does it fit.

Pure. Every candidate that was looked at is in the result with its memory sum and the reason it was
chosen or rejected. Formulas: research/serving.md section 3.1 (llama.cpp, dense attention, CPU).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.core.facts import HostReport
from edgekit.core.release import CarriedModel, CarriedVariant, EnginePack, Manifest
from edgekit.errors import IncompatibleHostError, InsufficientError

MIB = 1 << 20
CONTEXT_FLOOR = 256
CONTEXT_STEP = 256
MAX_SLOTS = 16
BATCH_TOKENS = 512
PROCESS_BYTES = 150 * MIB
"""What llama.cpp's server needs beside weights, cache and graphs (research: serving, 3.1)."""
HEADROOM_PERCENT = 10


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """A memory sum by its terms, in bytes."""

    weights: int
    kv_cache: int
    compute: int
    output: int
    process: int

    @property
    def total(self) -> int:
        """The sum of the terms, in bytes."""
        return self.weights + self.kv_cache + self.compute + self.output + self.process


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to serve a model. `context` is in tokens per slot; `reason` explains the verdict."""

    model: str
    engine: str
    provider: str
    quantization: str
    format: str
    slots: int
    context: int
    threads: int
    need: MemoryNeed | None
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The decision for one model, and everything that was looked at on the way."""

    model: CarriedModel
    pack: EnginePack
    variant: CarriedVariant
    chosen: Candidate
    candidates: tuple[Candidate, ...]


def memory_need(variant: CarriedVariant, *, context: int, slots: int) -> MemoryNeed:
    """Bytes llama.cpp needs on a CPU for `slots` streams of `context` tokens each (f16 cache).

    K and V per layer: kv_heads * width * 2 bytes * cells * streams; cells are padded to 256. The
    compute buffer is that of flash attention: ubatch * (2 * cells + 4 * max(3 * ffn + 5 * width,
    2 * heads * key_width + 5 * width)); the output buffer is 4 bytes per vocabulary entry and slot.
    """
    shape = dict(variant.shape)
    cells = -(-context // 256) * 256
    per_cell = shape["kv_heads"] * (shape["key_width"] + shape["value_width"]) * 2
    widest = max(
        3 * shape["ffn"] + 5 * shape["width"],
        2 * shape["heads"] * shape["key_width"] + 5 * shape["width"],
    )
    return MemoryNeed(
        weights=variant.bytes,
        kv_cache=shape["layers"] * per_cell * cells * slots,
        compute=BATCH_TOKENS * (2 * cells + 4 * widest),
        output=4 * shape["vocabulary"] * slots,
        process=PROCESS_BYTES,
    )


def check_compatible(manifest: Manifest, report: HostReport) -> None:
    """Refuse a host the set is not for. Raises IncompatibleHostError with found and needed."""
    needed = manifest.requirements
    system, cpu = report.system, report.cpu
    if cpu.arch.value != needed.arch:
        raise IncompatibleHostError(
            "this set is for another processor architecture",
            found=str(cpu.arch.value),
            needed=needed.arch,
            hint="ask the packager for a set for this architecture",
        )
    if system.glibc.value is None or system.glibc.value < needed.glibc:
        found = system.glibc.value
        raise IncompatibleHostError(
            "this set needs a newer C library",
            needed=f"glibc {needed.glibc[0]}.{needed.glibc[1]}",
            found=f"glibc {found[0]}.{found[1]}" if found else "unknown",
            hint="ask the packager for a set built on an older distribution",
        )
    missing = sorted(set(needed.cpu_flags) - set(cpu.flags.value or ()))
    if missing:
        raise IncompatibleHostError(
            "this processor lacks instructions that the engine uses",
            found=cpu.name.value,
            needed=", ".join(missing),
            hint="ask the packager for an engine for older processors",
        )


def select_all(manifest: Manifest, report: HostReport) -> tuple[Selection, ...]:
    """Decide for every model in the set; models share the memory in manifest order.

    Raises InsufficientError (by how much, and what would fit) or IncompatibleHostError.
    """
    usable = report.memory.usable()
    if usable is None:
        raise IncompatibleHostError(
            "this host does not say how much memory is free", needed="MemAvailable in /proc/meminfo"
        )
    left = usable * (100 - HEADROOM_PERCENT) // 100
    selections = []
    for model in manifest.models:
        selection = select_model(model, manifest, report, left)
        assert selection.chosen.need is not None
        left -= selection.chosen.need.total
        selections.append(selection)
    return tuple(selections)


def select_model(
    model: CarriedModel, manifest: Manifest, report: HostReport, memory_bytes: int
) -> Selection:
    """Walk the ladder: best variant with all slots and the whole context, then fewer slots, then
    less context down to a floor, then the next smaller variant.
    """
    pack = next((pack for pack in manifest.engines if pack.kind == "llama.cpp"), None)
    if pack is None:
        raise IncompatibleHostError(
            "the set carries no engine for this host",
            needed="llama.cpp",
            hint="add an [[engine]] to the recipe",
        )
    threads = serving_threads(report)
    looked_at: list[Candidate] = []
    for variant in sorted(model.variants, key=lambda variant: -variant.bytes):
        for slots, context in _ladder(model, manifest.users, variant):
            candidate = _weigh(model, pack, variant, slots, context, threads, memory_bytes)
            looked_at.append(candidate)
            if candidate.chosen:
                return Selection(model, pack, variant, candidate, tuple(looked_at))
    needs = [c.need.total for c in looked_at if c.need is not None]
    raise InsufficientError(
        f"not enough memory for {model.name}",
        needed=f"{_mib(min(needs))} MiB for the smallest choice" if needs else "a GGUF variant",
        found=f"{memory_bytes // MIB} MiB that may be used",
        hint="stop other programs, or ask the packager for a smaller variant",
    )


def _ladder(model: CarriedModel, users: int, variant: CarriedVariant) -> list[tuple[int, int]]:
    """(slots, context) in order of preference."""
    limit = dict(variant.shape).get("context", 0) or model.context
    context = min(model.context, limit)
    slots = min(users, MAX_SLOTS)
    rungs = [(count, context) for count in range(slots, 0, -1)]
    while context // 2 >= CONTEXT_FLOOR:
        context = context // 2 // CONTEXT_STEP * CONTEXT_STEP or CONTEXT_FLOOR
        rungs.append((1, context))
    return rungs


def _weigh(
    model: CarriedModel,
    pack: EnginePack,
    variant: CarriedVariant,
    slots: int,
    context: int,
    threads: int,
    memory_bytes: int,
) -> Candidate:
    if variant.format != "gguf":
        need, chosen, reason = None, False, "llama.cpp reads GGUF only"
    else:
        need = memory_need(variant, context=context, slots=slots)
        chosen = need.total <= memory_bytes
        verb = "fits" if chosen else "does not fit"
        reason = f"{verb}: {_mib(need.total)} MiB of {memory_bytes // MIB} MiB"
    return Candidate(
        model=model.name,
        engine=pack.kind,
        provider=pack.provider,
        quantization=variant.quantization,
        format=variant.format,
        slots=slots,
        context=context,
        threads=threads,
        need=need,
        chosen=chosen,
        reason=reason,
    )


def serving_threads(report: HostReport) -> int:
    """Physical cores, but no more than this process and its control groups may use."""
    cpu = report.cpu
    limits = [cpu.usable_threads.value or 1]
    if cpu.physical_cores.value:
        limits.append(cpu.physical_cores.value)
    if cpu.quota.value:
        limits.append(max(1, cpu.quota.value // 100))
    return min(limits)


def _mib(count: int) -> int:
    """A need in MiB, rounded up; what is there is rounded down."""
    return -(-count // MIB)


def selection_table(selection: Selection) -> dict[str, Any]:
    """A selection as plain JSON values, for `plan --json` and the receipt."""
    return {
        "model": selection.model.name,
        "chosen": _candidate_table(selection.chosen),
        "candidates": [_candidate_table(candidate) for candidate in selection.candidates],
    }


def _candidate_table(candidate: Candidate) -> dict[str, Any]:
    table = asdict(candidate)
    if candidate.need is not None:
        table["need"]["total"] = candidate.need.total
    return table
