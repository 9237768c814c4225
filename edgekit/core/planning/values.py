"""What planning decides about: ways to serve a model, and what each needs. Values only."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.engine_pack import EnginePack
from edgekit.core.names import RelPath

MIB = 1 << 20
GIB = 1 << 30

GPU, MIXED, CPU = "gpu", "mixed", "cpu"
"""Where the layers of a model lie: all on accelerators, on both sides, all on the processor."""


@dataclass(frozen=True, slots=True)
class MemoryTerm:
    """One term of a memory sum: bytes of the host's memory, and of all accelerators together."""

    name: str
    host: int
    device: int = 0


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """A memory sum by its terms, in bytes."""

    terms: tuple[MemoryTerm, ...]
    cached: int = 0
    """Bytes of files that stay in memory only while nobody else needs it; no part of the sum."""

    @property
    def host(self) -> int:
        """Bytes of the host's memory."""
        return sum(term.host for term in self.terms)

    @property
    def device(self) -> int:
        """Bytes of all accelerators together."""
        return sum(term.device for term in self.terms)

    @property
    def total(self) -> int:
        """The sum of everything, in bytes."""
        return self.host + self.device

    def of(self, name: str) -> int:
        """Bytes of one term, wherever they lie; 0 when there is no such term."""
        return sum(term.host + term.device for term in self.terms if term.name == name)


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """What one accelerator gets: its name for the engine, its identity, layers, bytes."""

    name: str
    identity: str
    layers: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Serving:
    """How an engine is started, apart from the files: every number it would otherwise guess.

    `slots` people are served at once with `context` tokens each; `batch` is the most tokens in one
    step. `kv_type` is the type of cache elements. `placement` is what readiness must find.
    llama.cpp: `gpu_layers` (the output counts as one), `host_experts` (layers whose experts stay on
    the host),
    `tensor_split` (layers per device). vLLM: parallel sizes, `utilization_percent` of each device,
    `kv_cache_bytes` per rank and the tokens that vLLM counts in them (0: not foreseen), `dtype`,
    `eager` (no graphs, no compiler).
    """

    slots: int
    context: int
    threads: int
    batch: int
    kv_type: str
    placement: str = CPU
    gpu_layers: int = 0
    host_experts: int = 0
    tensor_split: tuple[int, ...] = ()
    devices: tuple[DeviceShare, ...] = ()
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    utilization_percent: int = 0
    kv_cache_bytes: int = 0
    kv_cache_tokens: int = 0
    dtype: str = ""
    eager: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to serve a model. `fits` is about memory and rules; `reason` explains the verdict.

    `need` is None when a rule decides before memory is looked at. `serving` is the way that was
    weighed, with the devices it would use.
    """

    model: str
    engine: str
    provider: str
    quantization: str
    format: str
    serving: Serving
    need: MemoryNeed | None
    fits: bool
    chosen: bool
    reason: str

    @property
    def slots(self) -> int:
        """People served at once."""
        return self.serving.slots

    @property
    def context(self) -> int:
        """Tokens per slot."""
        return self.serving.context

    @property
    def threads(self) -> int:
        """Threads that compute."""
        return self.serving.threads

    def key(self) -> str:
        """What tells this way from every other for the same model: survives a restart as text."""
        serving = self.serving
        return "/".join(
            map(
                str,
                (
                    self.engine, self.provider, self.format, self.quantization, serving.placement,
                    serving.tensor_parallel, serving.pipeline_parallel, serving.kv_type,
                    serving.slots, serving.context, serving.host_experts,
                ),
            )
        )

    def with_verdict(self, *, chosen: bool, reason: str) -> Candidate:
        """The same way, with another verdict."""
        return replace(self, chosen=chosen, reason=reason)


@dataclass(frozen=True, slots=True)
class Selection:
    """The decision for one model, and everything that was looked at on the way, best first.

    `shared_room` is 0 for a model that stays in memory; for one that is loaded on demand it is the
    part of the host's memory, in bytes, that it shares with the others that are. `host_claim` is
    what it takes of that memory, accelerators without memory of their own included.
    """

    model: CarriedModel
    pack: EnginePack
    variant: CarriedVariant
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    shared_room: int = 0
    host_claim: int = 0

    @property
    def files(self) -> tuple[RelPath, ...]:
        """Every file of weights that the engine is given: the variant's, then its adapters'."""
        adapters = self.model.fitting(self.variant)
        return self.variant.files + tuple(path for one in adapters for path in one.files)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person or profile asks for; None leaves the decision to the rules.

    With `insecure_overcommit` what is asked for is taken although it does not fit.
    """

    users: int | None = None
    engine: str | None = None
    provider: str | None = None
    quantization: str | None = None
    context: int | None = None
    slots: int | None = None
    kv_type: str | None = None
    placement: str | None = None
    insecure_overcommit: bool = False

    def given(self) -> str:
        """The wishes in words, for messages; empty when nothing is asked for."""
        names = ("engine", "provider", "quantization", "context", "slots", "kv_type", "placement")
        return ", ".join(
            f"{name.replace('_', ' ')} {getattr(self, name)}" for name in names
            if getattr(self, name) is not None
        )
