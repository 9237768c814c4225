"""Weighing one way to serve with vLLM: every rank must hold its part, not only their sum. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.adapter import AdapterShape
from edgekit.core.planning.devices import Device
from edgekit.core.planning.rungs import Rung
from edgekit.core.planning.values import CPU, GPU, MIB, DeviceShare, Serving
from edgekit.core.planning.vllm_memory import (
    BATCH_TOKENS,
    BLOCK_TOKENS,
    CPU_BLOCK_TOKENS,
    UTILIZATION_PERCENT,
    VllmShape,
    block_count,
    cache_need,
    counted_tokens,
    dtype_for,
    vllm_need,
)
from edgekit.core.planning.weigh import Room, Weighed

KV_BYTES = {"auto": 2, "fp8": 1}


def weigh_ranks(
    shape: VllmShape,
    rung: Rung,
    room: Room,
    devices: Sequence[Device],
    *,
    threads: int,
    split: tuple[int, int],
    adapters: Sequence[AdapterShape] = (),
) -> Weighed:
    """On `split` (tensor, pipeline) ranks, one device each."""
    tensor, pipeline = split
    ranks = tensor * pipeline
    used = sorted(devices, key=lambda device: -room.of(device))[:ranks]
    kv_bytes = KV_BYTES[rung.kv_type]
    need = vllm_need(
        shape, context=rung.context, slots=rung.slots, tensor=tensor, pipeline=pipeline,
        kv_bytes=kv_bytes, adapters=adapters,
    )
    per_rank = -(-need.device // ranks)
    cache = cache_need(
        shape, context=rung.context, slots=rung.slots, tensor=tensor, pipeline=pipeline,
        kv_bytes=kv_bytes,
    )
    blocks = block_count(
        shape, cache, tensor=tensor, pipeline=pipeline, kv_bytes=kv_bytes, block=BLOCK_TOKENS
    )
    tightest = min(used, key=room.of)
    budget = min(room.of(tightest), tightest.total * UTILIZATION_PERCENT // 100)
    utilization = min(UTILIZATION_PERCENT, room.of(tightest) * 100 // tightest.total)
    layers = -(-shape.layers // pipeline)
    serving = Serving(
        rung.slots,
        rung.context,
        threads,
        BATCH_TOKENS,
        rung.kv_type,
        GPU,
        gpu_layers=shape.layers + 1,
        devices=tuple(
            DeviceShare(device.name, device.identity, layers, per_rank) for device in used
        ),
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        utilization_percent=utilization,
        kv_cache_bytes=cache,
        kv_cache_tokens=counted_tokens(
            shape, blocks, context=rung.context, block=BLOCK_TOKENS
        ),
        dtype=dtype_for(min(device.capability for device in used)),
    )
    names = f"{ranks} x {used[0].model}" if ranks > 1 else used[0].model
    words = (
        f"{names}: {-(-per_rank // MIB)} MiB of {max(0, budget) // MIB} MiB each, "
        f"host {-(-need.host // MIB)} MiB of {room.host // MIB} MiB"
    )
    return Weighed(serving, need, per_rank <= budget and need.host <= room.host, words)


def weigh_on_processor(
    shape: VllmShape,
    rung: Rung,
    room: Room,
    *,
    threads: int,
    adapters: Sequence[AdapterShape] = (),
) -> Weighed:
    """vLLM's build for processors: no graphs, no compiler, the cache in the host's memory."""
    need = vllm_need(shape, context=rung.context, slots=rung.slots, on_device=False,
                     adapters=adapters)
    cache = cache_need(shape, context=rung.context, slots=rung.slots, block=CPU_BLOCK_TOKENS)
    blocks = block_count(shape, cache, block=CPU_BLOCK_TOKENS)
    serving = Serving(
        rung.slots,
        rung.context,
        threads,
        BATCH_TOKENS,
        rung.kv_type,
        CPU,
        kv_cache_bytes=cache,
        kv_cache_tokens=counted_tokens(
            shape, blocks, context=rung.context, block=CPU_BLOCK_TOKENS
        ),
        dtype="bfloat16",
        eager=True,
    )
    words = f"{-(-need.host // MIB)} MiB of {room.host // MIB} MiB"
    return Weighed(serving, need, need.host <= room.host, words)
