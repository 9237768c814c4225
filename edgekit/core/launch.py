"""How an engine is started: a plan's numbers as one provider's program, options, environment. Pure.

Every provider keeps the same contract: the model is served on one unix socket, `/health` answers
there when it is loaded, every number of the plan is passed and the engine's own guessing is off,
the process ends on SIGTERM, and its log names the buffers it allocated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.core.adapter import vllm_adapter
from edgekit.core.engine_pack import EnginePack
from edgekit.core.planning.llama_memory import CHECKPOINTS
from edgekit.core.planning.values import DeviceShare, Serving
from edgekit.core.planning.vllm_memory import lora_room
from edgekit.errors import IncompatibleHostError

OWN_POOLING = "own"
"""An embedding model pools as its weights say."""
RANKING = "rank"
"""A model that ranks makes one score of all its vectors."""
LOG_LEVEL = 4
"""The least at which llama.cpp prints the sizes of its buffers; it prints no prompts there."""


LLAMA_ENVIRONMENT = (("GGML_NO_BACKTRACE", "1"),)
"""It would start a debugger to print where it failed."""


@dataclass(frozen=True, slots=True)
class Start:
    """What is started: the program, the model's name, where its files lie, and how it is served.

    `weights` are (file name, place) in the manifest's order, the first one is the one to open.
    `adapters` are LoRA adapters, each as (file name, place) of all its files, in the order in which
    requests number them: all are loaded, none has an effect until a request asks for it.
    `adapter_rank` is the greatest of their ranks. `mmproj` is the place of a vision
    projector, which computes on the processor.
    `pooling` is empty for a model that makes text. `image` is the pinned reference of an engine
    from an image, whose own entry point is the program.
    """

    program: str
    model: str
    weights: tuple[tuple[str, str], ...]
    socket: str
    serving: Serving
    pooling: str = ""
    image: str = ""
    adapters: tuple[tuple[tuple[str, str], ...], ...] = ()
    adapter_rank: int = 0
    mmproj: str = ""


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
            *(text for ((_, place),) in start.adapters for text in ("--adapter", place)),
            *(("--mmproj", start.mmproj) if start.mmproj else ()),
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
        *(text for ((_, place),) in start.adapters for text in ("--lora-scaled", f"{place}:0")),
        *(("--mmproj", start.mmproj, "--no-mmproj-offload") if start.mmproj else ()),
        *(("--embedding",) if start.pooling else ()),
        *(("--pooling", start.pooling) if start.pooling not in ("", OWN_POOLING) else ()),
    )


def missing_options(help_text: str) -> list[str]:
    """The options of `llama_server_arguments`, whatever is served, that `--help` does not name."""
    share = DeviceShare("CUDA0", "", 1, 1)
    serving = Serving(
        2, 1, 1, 1, "f16", gpu_layers=1, host_experts=1, tensor_split=(1, 1), devices=(share,)
    )
    most = Start(
        "", "", (("", ""),), "", serving, pooling="mean", adapters=((("", ""),),), mmproj="m"
    )
    known = set(re.findall(r"--[a-z][a-z0-9-]*", help_text))
    used = {word for word in llama_server_arguments(most) if word.startswith("--")}
    return sorted(used - known)


def _llama_server(start: Start) -> Launch:
    return Launch((start.program, *llama_server_arguments(start)), LLAMA_ENVIRONMENT)


CONTAINER_USER = 61_000
"""Who an engine in a container is on the host: a number that no package and no systemd gives out.
The unit (systemd/edgekit-engine-image.service.in) hands it the folder of the socket."""
CONTAINER_TASKS = 1024


def contained(
    start: Start, arguments: tuple[str, ...], environment: tuple[tuple[str, str], ...]
) -> Launch:
    """An image by digest under podman, with what a unit of a pack has: one socket, no network.

    Nothing is pulled; the container sees its own files, the weights and the folder of its socket,
    all but the last read-only; it holds no capability and stays in the unit's control group, so
    that the unit's limits count and nothing outlives it. Its output is the supervisor's.
    """
    folder = start.socket.rpartition("/")[0]
    places = [place for files in (start.weights, *start.adapters) for _, place in files]
    places += [start.mmproj] if start.mmproj else []
    devices = tuple(f"--device=nvidia.com/gpu={share.identity}" for share in start.serving.devices)
    return Launch(
        (
            "podman",
            "run",
            "--rm",
            "--replace",
            f"--name=edgekit-engine-{start.model}",
            "--pull=never",
            "--network=none",
            "--read-only",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "--security-opt=label=disable",
            "--cgroups=disabled",
            f"--ulimit=nproc={CONTAINER_TASKS}:{CONTAINER_TASKS}",
            "--ulimit=nofile=1024:1024",
            "--log-driver=passthrough",
            f"--user={CONTAINER_USER}:{CONTAINER_USER}",
            "--umask=0007",
            *(f"--env={name}={value}" for name, value in environment),
            *devices,
            *(f"--volume={place}:{place}:ro" for place in places),
            f"--volume={folder}:{folder}",
            start.image,
            *arguments,
        ),
        (("HOME", "/var/lib/containers"),),
    )


def _llama_image(start: Start) -> Launch:
    return contained(start, llama_server_arguments(start), LLAMA_ENVIRONMENT)


def _vllm(start: Start) -> Launch:
    """vLLM's API server by the pack's own Python; its launcher lays out the weights' folder."""
    pack = start.program.rpartition("/python/bin/")[0]
    serving = start.serving
    files = (f"{name}={place}" for name, place in start.weights)
    options: tuple[tuple[str, object], ...] = (
        ("--served-model-name", start.model),
        ("--max-model-len", serving.context),
        ("--max-num-seqs", serving.slots),
        ("--max-num-batched-tokens", max(serving.batch, serving.slots)),
        ("--kv-cache-memory-bytes", serving.kv_cache_bytes),
        ("--kv-cache-dtype", serving.kv_type),
        ("--dtype", serving.dtype),
        ("--tensor-parallel-size", serving.tensor_parallel),
        ("--pipeline-parallel-size", serving.pipeline_parallel),
        # what a request leaves open is the API's default, not a file's beside the weights
        ("--generation-config", "vllm"),
        ("--uvicorn-log-level", "warning"),
    )
    if start.adapters:
        options += (
            ("--max-loras", len(start.adapters)),
            ("--max-lora-rank", lora_room(start.adapter_rank)),
        )
    adapters = (
        f"{vllm_adapter(number)}/{name}={place}"
        for number, files in enumerate(start.adapters)
        for name, place in files
    )
    if serving.utilization_percent:
        # asked for even where the size of the cache is given
        options += (("--gpu-memory-utilization", serving.utilization_percent / 100),)
    return Launch(
        (
            start.program,
            "-I",
            "-B",
            f"{pack}/serve.py",
            "--socket",
            start.socket,
            *(text for item in files for text in ("--file", item)),
            *(text for item in adapters for text in ("--adapter-file", item)),
            "--",
            *(text for name, value in options for text in (name, str(value))),
            *(("--enforce-eager",) if serving.eager else ()),
            *(("--enable-lora",) if start.adapters else ()),
        ),
        (*VLLM_ENVIRONMENT, ("LD_LIBRARY_PATH", f"{pack}/python/lib"),
         ("OMP_NUM_THREADS", str(serving.threads))),
    )


VLLM_ENVIRONMENT = (
    # nobody is told anything
    ("ANONYMIZED_TELEMETRY", "False"),
    ("DO_NOT_TRACK", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("OTEL_SDK_DISABLED", "true"),
    ("VLLM_NO_USAGE_STATS", "1"),
    # nothing is looked up
    ("GLOO_SOCKET_IFNAME", "lo"),  # otherwise it asks a nameserver for the host's own name
    ("HF_DATASETS_OFFLINE", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("VLLM_HOST_IP", "127.0.0.1"),  # otherwise it asks the routing table for a way to the internet
    ("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0"),
    # limits
    ("VLLM_MAX_N_SEQUENCES", "8"),
    # one process computes, with the plan's number of threads
    ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
)
"""Of every vLLM engine; why each: docs/reference/vllm.md."""


_LAUNCHES: dict[tuple[str, str], Callable[[Start], Launch]] = {
    ("llama.cpp", "wheel"): _llama_wheel,
    ("llama.cpp", "source"): _llama_server,
    ("llama.cpp", "image"): _llama_image,
    ("vllm", "wheel"): _vllm,
}
