"""How an engine is started: a plan's numbers as one provider's program, options, environment. Pure.

Every provider keeps the same contract: the model is served on one unix socket, `/health` answers
there when it is loaded, every number of the plan is passed and the engine's own guessing is off,
the process ends on SIGTERM, and its log names the buffers it allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekit.core.engine_pack import EnginePack
from edgekit.core.planning.llama_memory import CHECKPOINTS
from edgekit.core.planning.values import Serving
from edgekit.errors import IncompatibleHostError

OWN_POOLING = "own"
"""An embedding model pools as its weights say."""
LOG_LEVEL = 4
"""The least at which llama.cpp prints the sizes of its buffers; it prints no prompts there."""


@dataclass(frozen=True, slots=True)
class Start:
    """What is started: the program, the model's name, where its files lie, and how it is served.

    `weights` are (file name, place) in the manifest's order, the first one is the one to open.
    `pooling` is empty for a model that makes text.
    """

    program: str
    model: str
    weights: tuple[tuple[str, str], ...]
    socket: str
    serving: Serving
    pooling: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """Arguments, program first, and all of the environment beside the supervisor's own."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def plan_launch(pack: EnginePack, start: Start) -> Launch:
    """How this pack serves this model. Raises IncompatibleHostError for an unknown provider."""
    make = _LAUNCHES.get((pack.kind, pack.provider))
    if make is None:
        raise IncompatibleHostError(
            "this edgekit cannot start the engine that the set carries",
            found=f"{pack.kind}, provider {pack.provider}",
            needed=", ".join(f"{kind} {provider}" for kind, provider in _LAUNCHES),
            hint="install with the edgekit that lies in the set",
        )
    return make(start)


def serving_arguments(serving: Serving) -> tuple[str, ...]:
    """The plan's numbers as llama.cpp's options, which both of its providers understand."""
    options: tuple[tuple[str, object], ...] = (
        ("--ctx-size", serving.context * serving.slots),
        ("--parallel", serving.slots),
        ("--threads", serving.threads),
        ("--batch-size", serving.batch),
        ("--ubatch-size", serving.batch),
        ("--cache-type-k", serving.kv_type),
        ("--cache-type-v", serving.kv_type),
        ("--ctx-checkpoints", CHECKPOINTS),
        ("--n-gpu-layers", serving.gpu_layers),
    )
    if serving.devices:
        options += (("--device", ",".join(share.name for share in serving.devices)),)
    if serving.tensor_split:
        options += (("--tensor-split", ",".join(map(str, serving.tensor_split))),)
    if serving.host_experts:
        options += (("--n-cpu-moe", serving.host_experts),)
    return tuple(text for name, value in options for text in (name, str(value)))


def _llama_wheel(start: Start) -> Launch:
    """edgekit's own program around the wheel; what never changes is set inside it."""
    return Launch(
        (
            start.program,
            "--model",
            start.weights[0][1],
            "--alias",
            start.model,
            "--socket",
            start.socket,
            *serving_arguments(start.serving),
            *(("--embedding", start.pooling) if start.pooling else ()),
        )
    )


def llama_server_arguments(start: Start) -> tuple[str, ...]:
    """llama.cpp's own server. Its options beside the plan's are the wheel's fixed parameters."""
    return (
        "--model",
        start.weights[0][1],
        "--alias",
        start.model,
        "--host",  # a name that ends in .sock is a unix socket
        start.socket,
        *serving_arguments(start.serving),
        "--threads-batch",
        str(start.serving.threads),
        "--threads-http",  # as many as slots, plus some for health checks
        str(start.serving.slots + 4),
        "--fit",  # the plan is pinned; guessing per start could differ per boot
        "off",
        "--flash-attn",
        "on",
        "--no-kv-unified",  # each slot owns its context: nobody can crowd out another
        "--cache-ram",  # no earlier user's prompt stays in memory
        "0",
        "--jinja",
        "--offline",
        "--no-ui",
        "--no-slots",
        "--metrics",
        "--warmup",
        "--log-colors",
        "off",
        "--verbosity",
        str(LOG_LEVEL),
        *(("--embedding",) if start.pooling else ()),
        *(("--pooling", start.pooling) if start.pooling not in ("", OWN_POOLING) else ()),
    )


def _llama_server(start: Start) -> Launch:
    return Launch((start.program, *llama_server_arguments(start)))


_LAUNCHES: dict[tuple[str, str], Callable[[Start], Launch]] = {
    ("llama.cpp", "wheel"): _llama_wheel,
    ("llama.cpp", "source"): _llama_server,
}
