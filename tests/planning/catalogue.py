"""A set as it would be carried for an 8 B model: GGUF and safetensors variants, four packs."""

from __future__ import annotations

from edgekit.core.carried_model import CarriedModel, CarriedVariant, ShapeValue
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.names import RelPath
from edgekit.core.planning.values import Candidate
from edgekit.core.release import Entry, Manifest, Requirements

GIB = 1 << 30
AVX2 = ("avx2", "f16c", "fma")
_SHAPE: dict[str, ShapeValue] = {
    "layers": 32, "width": 4096, "ffn": 14336, "heads": 32, "kv_heads": 8, "key_width": 128,
    "value_width": 128, "context": 131_072, "vocabulary": 128_256,
}


def _pack(
    kind: str, provider: str, accelerator: str, *, flags: tuple[str, ...] = (),
    cuda: tuple[int, int] = (0, 0), capabilities: tuple[int, ...] = (),
) -> EnginePack:
    name = f"engines/{kind}-{provider}-{accelerator}"
    return EnginePack(
        kind, provider, "1", RelPath(name), RelPath(f"{name}/run"), flags, (2, 17), accelerator,
        cuda, capabilities)


PACKS = (
    _pack("llama.cpp", "source", "cuda", cuda=(12, 4), capabilities=(75, 80, 86, 87, 89, 90, 120)),
    _pack("llama.cpp", "source", "vulkan"),
    _pack("llama.cpp", "wheel", "cpu", flags=AVX2),
    _pack("vllm", "wheel", "cuda", cuda=(12, 9)),
)
ARM_PACKS = (
    *(pack for pack in PACKS if not pack.cpu_flags),
    _pack("llama.cpp", "wheel", "cpu", flags=("asimd",)),
)


def _variant(format_: str, quantization: str, gib: float) -> CarriedVariant:
    size = int(gib * GIB)
    embedding = size // 16
    sizes: dict[str, ShapeValue] = {} if format_ != "gguf" else {
        "layer_bytes": ((size - 2 * embedding) // 32,) * 32, "embedding_bytes": embedding,
        "output_bytes": embedding, "other_bytes": 16384}
    path = RelPath(f"models/m/{format_}-{quantization.lower()}")
    return CarriedVariant(
        format_, quantization, (path,), size, tuple(sorted((_SHAPE | sizes).items())))


VARIANTS = (
    _variant("gguf", "Q8_0", 7.95), _variant("gguf", "Q4_K_M", 4.58),
    _variant("gguf", "Q2_K", 2.96), _variant("safetensors", "BF16", 14.96),
    _variant("safetensors", "FP8", 8.5), _variant("safetensors", "AWQ", 5.33),
)


def manifest(arch: str, users: int) -> Manifest:
    """The set for one architecture; the model wants 16,384 tokens for each user."""
    model = CarriedModel("m", 16_384, "MIT", "llama", 8_030_000_000, VARIANTS, ())
    entries = sorted(
        (Entry(v.files[0], "weights", v.bytes, Digest.of(v.quantization.encode()))
         for v in VARIANTS), key=lambda entry: str(entry.path))
    return Manifest(
        name="catalogue", version="1.0.0", created=0, users=users,
        requirements=Requirements(arch, (2, 17), (), 249), entries=tuple(entries),
        engines=PACKS if arch == "x86_64" else ARM_PACKS, models=(model,), images=(),
        rehearsed_on="")


def words(chosen: Candidate) -> str:
    """A decision in one line."""
    serving = chosen.serving
    text = (
        f"{chosen.engine} {chosen.provider} {chosen.quantization} on {serving.placement}, "
        f"{serving.slots} x {serving.context} {serving.kv_type}, {serving.threads} threads"
    )
    if chosen.engine == "llama.cpp" and serving.devices:
        text += f", {serving.gpu_layers} layers on " + "+".join(d.name for d in serving.devices)
    if chosen.engine == "vllm":
        text += f", tp {serving.tensor_parallel} pp {serving.pipeline_parallel}"
    return text
