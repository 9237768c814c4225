"""How much memory vLLM needs on each device, and how its cache is cut into blocks. Pure.

Formulas: vLLM v1/core/kv_cache_utils.py and v1/kv_cache_interface.py; docs/reference/planner.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.core.adapter import AdapterShape
from edgekit.core.carried_model import CarriedVariant
from edgekit.core.planning.values import GIB, MIB, MemoryNeed, MemoryTerm

BLOCK_TOKENS = 16
CPU_BLOCK_TOKENS = 128
BATCH_TOKENS = 2048
UTILIZATION_PERCENT = 92
RUNTIME_BYTES = 512 * MIB
"""Per device: the driver's context, communication buffers, libraries."""
GRAPH_BYTES = 512 * MIB
HOST_WEIGHTS_PERCENT = 120
HOST_BYTES = 8 * GIB
"""What the interpreter, the libraries and the loading need of the host's memory, per server."""
CPU_HOST_BYTES = 3 * GIB
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Room that vLLM makes for adapters, in ranks (config/lora.py MaxLoRARanks)."""
LORA_VOCABULARY = 258_048
"""The largest vocabulary with which vLLM takes adapters (lora/layers/logits_processor.py)."""
_FP8 = 89
_QUANTIZATIONS = (
    (("BF16", "F16", "FP16", "F32", "AWQ", "GPTQ", "INT8", "W8A8", "W4A16"), 75),
    (("FP8",), _FP8),
    (("MXFP4",), 90),
    (("NVFP4",), 100),
)
"""Least compute capability for each quantisation, by the beginning of its name."""


@dataclass(frozen=True, slots=True)
class VllmShape:
    """What config.json and the safetensors headers say; widths in elements."""

    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    context: int
    window: int
    latent: int
    """Elements of the one compressed row that a latent attention keeps per token; 0 for none."""
    bytes: int

    @classmethod
    def of(cls, variant: CarriedVariant) -> VllmShape | None:
        """None when the set does not describe the weights."""
        facts = {key: value for key, value in variant.shape if isinstance(value, int)}
        try:
            return cls(
                **{name: facts[name] for name in ("layers", "width", "heads", "kv_heads")},
                ffn=facts.get("ffn", 0),
                head_width=facts["key_width"],
                vocabulary=facts["vocabulary"],
                context=facts["context"],
                window=facts.get("window", 0),
                latent=facts.get("latent", 0),
                bytes=variant.bytes,
            )
        except KeyError:
            return None


def lora_room(rank: int) -> int:
    """The least room, in ranks, that holds this one."""
    return next(room for room in LORA_RANKS if room >= rank)


def adapter_bytes(shape: VllmShape, adapters: Sequence[AdapterShape]) -> int:
    """Bytes on each rank for these adapters: room for all of them in every layer that could have
    one, used or not, and what was read of the files.

    Two bytes per element. Some architectures have none in the embedding and the logits: an upper
    bound. Source: create_lora_weights in lora/layers/.
    """
    if not adapters:
        return 0
    heads = shape.heads * shape.head_width
    key_values = shape.kv_heads * shape.head_width
    layer = (
        3 * shape.width + heads + 2 * key_values  # Q, K, V
        + heads + shape.width  # output
        + 2 * shape.width + 2 * shape.ffn  # gate, up
        + shape.ffn + shape.width  # down
    )
    ends = 2 * (shape.width + shape.vocabulary)  # embedding, logits
    room = lora_room(max(one.rank for one in adapters)) * len(adapters)
    return 2 * room * (shape.layers * layer + ends) + sum(one.bytes for one in adapters)


def quantization_problem(quantization: str, capability: int) -> str | None:
    """Why these weights do not run on this compute capability; None when they do."""
    for names, least in _QUANTIZATIONS:
        if quantization.upper().startswith(names):
            if capability >= least:
                return None
            found, needed = divmod(capability, 10), divmod(least, 10)
            return (
                f"{quantization} needs compute capability {needed[0]}.{needed[1]}, "
                f"found {found[0]}.{found[1]}"
            )
    return f"vLLM does not know the quantisation {quantization}"


def dtype_for(capability: int) -> str:
    """What the engine computes in: bfloat16 exists from compute capability 8.0 on."""
    return "bfloat16" if capability == 0 or capability >= 80 else "half"


def legal_splits(shape: VllmShape, devices: int) -> tuple[tuple[int, int], ...]:
    """(tensor parallel, pipeline parallel) sizes that divide the model, smallest first."""
    splits = [
        (tensor, 1)
        for tensor in range(1, devices + 1)
        if shape.heads % tensor == 0
        and shape.vocabulary % tensor == 0
        and (shape.kv_heads % tensor == 0 or tensor % max(1, shape.kv_heads) == 0)
    ]
    whole = [(1, stages) for stages in range(2, min(devices, shape.layers) + 1)]
    return tuple(splits + [split for split in whole if (split[1], 1) not in splits])


def page_bytes(
    shape: VllmShape, *, tensor: int = 1, kv_bytes: int = 2, block: int = BLOCK_TOKENS
) -> int:
    """Bytes of one block of one layer on one rank."""
    if shape.latent:
        return block * shape.latent * kv_bytes
    kv_heads = max(1, shape.kv_heads // tensor)
    return block * kv_heads * 2 * shape.head_width * kv_bytes


def block_count(
    shape: VllmShape, cache: int, *, tensor: int = 1, pipeline: int = 1, kv_bytes: int = 2,
    block: int = BLOCK_TOKENS,
) -> int:
    """Blocks that a cache of so many bytes per rank has."""
    layers = -(-shape.layers // pipeline)
    return cache // page_bytes(shape, tensor=tensor, kv_bytes=kv_bytes, block=block) // layers


def counted_tokens(shape: VllmShape, blocks: int, *, context: int, block: int) -> int:
    """Tokens that vLLM counts in so many blocks: requests of the whole context, times the context.

    0 for a model with a sliding window: what a request of it takes depends on which layers slide,
    and the set does not say. Source: get_kv_cache_capacity.
    """
    return 0 if shape.window else int(blocks / -(-context // block) * context)


def cache_need(
    shape: VllmShape, *, context: int, slots: int, tensor: int = 1, pipeline: int = 1,
    kv_bytes: int = 2, block: int = BLOCK_TOKENS,
) -> int:
    """Bytes per rank so that `slots` requests of `context` tokens are in the cache at once.

    One block more than they fill: the engine keeps the first one for itself.
    """
    layers = -(-shape.layers // pipeline)
    blocks = -(-context // block) * slots + 1
    return blocks * layers * page_bytes(shape, tensor=tensor, kv_bytes=kv_bytes, block=block)


def vllm_need(
    shape: VllmShape, *, context: int, slots: int, tensor: int = 1, pipeline: int = 1,
    kv_bytes: int = 2, on_device: bool = True, adapters: Sequence[AdapterShape] = (),
) -> MemoryNeed:
    """Bytes vLLM needs; on devices the terms are sums over all ranks, each of the same size.

    Activations are those of a dummy run of BATCH_TOKENS tokens: the widest of the MLP and of the
    logits of all slots. No GPU was at hand to measure them; the reserve is meant to be generous.
    """
    ranks = tensor * pipeline
    block = BLOCK_TOKENS if on_device else CPU_BLOCK_TOKENS
    cache = cache_need(
        shape, context=context, slots=slots, tensor=tensor, pipeline=pipeline, kv_bytes=kv_bytes,
        block=block,
    )
    mlp = BATCH_TOKENS * 2 * (6 * shape.width + 3 * max(shape.ffn, shape.width) // tensor)
    logits = 8 * shape.vocabulary * max(slots, 1)
    compute = mlp + logits
    loras = adapter_bytes(shape, adapters)
    adapter = MemoryTerm("adapters", *((0, loras * ranks) if on_device else (loras,)))
    adapted = (adapter,) if loras else ()
    if not on_device:
        return MemoryNeed(
            (
                MemoryTerm("weights", shape.bytes),
                *adapted,
                MemoryTerm("kv cache", cache),
                MemoryTerm("compute", compute),
                MemoryTerm("process", CPU_HOST_BYTES),
            )
        )
    return MemoryNeed(
        (
            MemoryTerm("weights", 0, shape.bytes),
            *adapted,
            MemoryTerm("kv cache", 0, cache * ranks),
            MemoryTerm("compute", 0, compute * ranks),
            MemoryTerm("graphs", 0, GRAPH_BYTES * ranks),
            MemoryTerm(
                "process",
                HOST_BYTES + shape.bytes * (HOST_WEIGHTS_PERCENT - 100) // 100,
                RUNTIME_BYTES * ranks,
            ),
        )
    )
