"""Every way to serve a model on a host, best first, each weighed or ruled out. Pure.

The order is the decision: docs/reference/planner.md has it as a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgekit.core.adapter import AdapterShape
from edgekit.core.carried_model import ALONE, CarriedModel, CarriedVariant
from edgekit.core.engine_pack import EnginePack
from edgekit.core.facts import HostReport
from edgekit.core.planning.devices import (
    Usable,
    pack_problem,
    serving_threads,
    usable_devices,
    vllm_problem,
)
from edgekit.core.planning.llama_memory import BATCH_TOKENS
from edgekit.core.planning.llama_shape import LlamaShape
from edgekit.core.planning.rungs import (
    VLLM_MAX_SLOTS,
    VLLM_USERS,
    Rung,
    ladder,
    wanted_context,
)
from edgekit.core.planning.values import CPU, GPU, Candidate, Serving, Wishes
from edgekit.core.planning.vllm_memory import VllmShape, legal_splits, quantization_problem
from edgekit.core.planning.weigh import (
    Room,
    Weighed,
    most_layers,
    weigh_on_devices,
    weigh_on_host,
)
from edgekit.core.planning.weigh_vllm import weigh_on_processor, weigh_ranks

_FP8_CACHE_CAPABILITY = 89


@dataclass(frozen=True, slots=True)
class Question:
    """Which model, by which packs, for how many people, on which host, in what room."""

    model: CarriedModel
    packs: tuple[EnginePack, ...]
    users: int
    report: HostReport
    room: Room
    wishes: Wishes

    def batch(self, rung: Rung) -> int:
        """Tokens in one step of llama.cpp: a model without answers sees its input at once."""
        whole = rung.context if set(ALONE) & set(self.model.capabilities) else 0
        return max(BATCH_TOKENS, whole)

    def variants(self, format_: str) -> list[CarriedVariant]:
        """Variants of one format, best quality first: more bytes are more of the model."""
        found = [variant for variant in self.model.variants if variant.format == format_]
        return sorted(found, key=lambda variant: (-variant.bytes, variant.quantization))


Way = tuple[EnginePack, CarriedVariant, Candidate]


def ways(question: Question) -> Iterator[Way]:
    """All of them, in order of preference; those that a rule excludes carry its reason."""
    prefers_vllm = question.users >= VLLM_USERS
    if prefers_vllm:
        yield from _vllm_on_devices(question)
    yield from _llama_whole(question)
    if not prefers_vllm:
        yield from _vllm_on_devices(question)
    yield from _llama_parts(question)
    yield from _llama_on_host(question)
    yield from _vllm_on_host(question)
    yield from _without_engine(question)


def _llama_whole(question: Question) -> Iterator[Way]:
    """Every layer on accelerators."""
    for pack, usable in _llama_packs(question):
        for variant in question.variants("gguf"):
            if not usable.devices:
                yield _excluded(question, pack, variant, GPU, usable.reason)
                continue
            shape = _shape(question, pack, variant)
            for rung in _llama_rungs(question, shape):
                yield _way(
                    question, pack, variant, weigh_on_devices(
                        shape, rung, question.room, usable.devices,
                        threads=serving_threads(question.report), batch=question.batch(rung),
                    )
                )


def _llama_parts(question: Question) -> Iterator[Way]:
    """Some of the model on accelerators: experts on the host first, then only so many layers."""
    threads = serving_threads(question.report)
    for pack, usable in _llama_packs(question):
        devices = usable.devices
        if not devices or any(device.integrated for device in devices):
            continue
        for variant in question.variants("gguf"):
            shape = _shape(question, pack, variant)
            for rung in list(_llama_rungs(question, shape))[:2]:
                if any(shape.expert_bytes):
                    yield _way(
                        question, pack, variant, weigh_on_devices(
                            shape, rung, question.room, devices, threads=threads,
                            batch=question.batch(rung), host_experts=shape.layers,
                        )
                    )
                batch = question.batch(rung)
                layers = most_layers(shape, rung, question.room, devices, batch=batch)
                yield _way(
                    question, pack, variant, weigh_on_devices(
                        shape, rung, question.room, devices, threads=threads, batch=batch,
                        gpu_layers=max(1, layers),
                    )
                )


def _llama_on_host(question: Question) -> Iterator[Way]:
    for pack in question.packs:
        if pack.kind != "llama.cpp":
            continue
        problem = pack_problem(pack, question.report)
        for variant in question.variants("gguf"):
            if problem is not None:
                yield _excluded(question, pack, variant, CPU, problem)
                continue
            shape = _shape(question, pack, variant)
            for rung in _llama_rungs(question, shape):
                yield _way(
                    question, pack, variant, weigh_on_host(
                        shape, rung, question.room, threads=serving_threads(question.report),
                        batch=question.batch(rung),
                    )
                )


_WITHOUT_MIXED_BATCHES = (("source", "0.3.36"),)
"""Builds whose graph was seen to have no inputs for batches of tokens and vectors together. Of an
unknown build (an image, a newer archive) they are counted: a row too much of a few."""


def _shape(question: Question, pack: EnginePack, variant: CarriedVariant) -> LlamaShape:
    mixes = (pack.provider, pack.version) not in _WITHOUT_MIXED_BATCHES
    adapters = _adapters(question, variant)
    return LlamaShape(variant, question.model.family, mixes=mixes, adapters=adapters)


def _adapters(question: Question, variant: CarriedVariant) -> tuple[AdapterShape, ...]:
    return tuple(adapter.shape for adapter in question.model.fitting(variant))


def _llama_packs(question: Question) -> Iterator[tuple[EnginePack, Usable]]:
    """Packs that can drive an accelerator, with those that they can use here."""
    for pack in question.packs:
        if pack.kind == "llama.cpp" and pack.accelerator != "cpu":
            problem = pack_problem(pack, question.report)
            yield pack, Usable((), problem) if problem else usable_devices(pack, question.report)


def _llama_rungs(question: Question, shape: LlamaShape) -> Iterator[Rung]:
    kv_types = ("f16", "q8_0") if shape.takes("q8_0") else ("f16",)
    context = wanted_context(question.model.context, shape.number("context"), question.wishes)
    return ladder(
        context=context, users=question.users, kv_types=kv_types, wishes=question.wishes
    )


def _vllm_on_devices(question: Question) -> Iterator[Way]:
    for pack in question.packs:
        if pack.kind != "vllm" or pack.accelerator == "cpu":
            continue
        usable = usable_devices(pack, question.report)
        problem = pack_problem(pack, question.report) or vllm_problem(question.report, usable)
        for variant in question.variants("safetensors"):
            shape = VllmShape.of(variant)
            why = problem or (shape is None and "the set does not describe these weights") or (
                quantization_problem(variant.quantization, usable.devices[0].capability)
            )
            if why or shape is None:
                yield _excluded(question, pack, variant, GPU, str(why))
                continue
            yield from _splits(question, pack, variant, shape, usable)


def _splits(
    question: Question, pack: EnginePack, variant: CarriedVariant, shape: VllmShape, usable: Usable
) -> Iterator[Way]:
    """Rungs in order; for each the fewest devices that hold it."""
    strong = usable.devices[0].capability >= _FP8_CACHE_CAPABILITY
    for rung in _vllm_rungs(question, shape, ("auto", "fp8") if strong else ("auto",)):
        for split in legal_splits(shape, len(usable.devices)):
            yield _way(
                question, pack, variant, weigh_ranks(
                    shape, rung, question.room, usable.devices,
                    threads=serving_threads(question.report), split=split,
                    adapters=_adapters(question, variant),
                )
            )


def _vllm_on_host(question: Question) -> Iterator[Way]:
    for pack in question.packs:
        if pack.kind != "vllm" or pack.accelerator != "cpu":
            continue
        problem = pack_problem(pack, question.report)
        for variant in question.variants("safetensors"):
            shape = VllmShape.of(variant)
            if problem or shape is None:
                why = problem or "the set does not describe these weights"
                yield _excluded(question, pack, variant, CPU, why)
                continue
            for rung in _vllm_rungs(question, shape, ("auto",)):
                yield _way(
                    question, pack, variant, weigh_on_processor(
                        shape, rung, question.room, threads=serving_threads(question.report),
                        adapters=_adapters(question, variant),
                    )
                )


def _vllm_rungs(
    question: Question, shape: VllmShape, kv_types: tuple[str, ...]
) -> Iterator[Rung]:
    context = wanted_context(question.model.context, shape.context, question.wishes)
    return ladder(
        context=context, users=question.users, kv_types=kv_types, wishes=question.wishes,
        most=VLLM_MAX_SLOTS,
    )


def _without_engine(question: Question) -> Iterator[Way]:
    """Variants that no pack of the set reads."""
    reads = {"llama.cpp": "gguf", "vllm": "safetensors"}
    readable = {reads[pack.kind] for pack in question.packs}
    for format_ in ("gguf", "safetensors"):
        for variant in question.variants(format_) if format_ not in readable else []:
            engine = "llama.cpp reads GGUF only" if format_ != "gguf" else "vLLM reads no GGUF"
            yield _excluded(question, question.packs[0], variant, CPU, engine)


def _way(
    question: Question, pack: EnginePack, variant: CarriedVariant, weighed: Weighed
) -> Way:
    verb = "fits" if weighed.fits else "does not fit"
    candidate = Candidate(
        model=question.model.name,
        engine=pack.kind,
        provider=pack.provider,
        quantization=variant.quantization,
        format=variant.format,
        serving=weighed.serving,
        need=weighed.need,
        fits=weighed.fits,
        chosen=False,
        reason=f"{verb}: {weighed.words}",
    )
    return pack, variant, candidate


def _excluded(
    question: Question, pack: EnginePack, variant: CarriedVariant, placement: str, reason: str
) -> Way:
    """A way that a rule excludes before its memory matters."""
    serving = Serving(
        slots=question.users,
        context=question.model.context,
        threads=serving_threads(question.report),
        batch=BATCH_TOKENS,
        kv_type="f16" if pack.kind == "llama.cpp" else "auto",
        placement=placement,
    )
    candidate = Candidate(
        question.model.name, pack.kind, pack.provider, variant.quantization, variant.format,
        serving, None, fits=False, chosen=False, reason=reason,
    )
    return pack, variant, candidate


