"""How much memory llama.cpp needs, term by term. Pure.

The cache is exact to the byte (llama-kv-cache.cpp, llama-kv-cache-iswa.cpp and
llama-memory-recurrent.cpp as of b11549); the compute buffer follows the engine's graph at its
widest moment. Formulas and measurements: docs/reference/planner.md.
"""

from __future__ import annotations

from edgekit.core.pictures import DECODED_BYTES, MAX_ALL_PIXELS, MAX_PIXELS
from edgekit.core.planning.compute_buffer import compute_bytes
from edgekit.core.planning.llama_shape import KV_TYPES, Cells, LlamaShape
from edgekit.core.planning.values import MIB, MemoryNeed, MemoryTerm

BATCH_TOKENS = 512
PROCESS_BYTES = 32 * MIB
VOCABULARY_BYTES = 190
"""What the server needs beside weights, cache and graphs: program and libraries, and for each token
its text in several tables (measured: docs/reference/planner-measured.md)."""
CHECKPOINTS = 2
"""Copies of windows and states kept per person, so that a conversation goes on without a rerun."""
PICTURES_BYTES = 4 * MAX_ALL_PIXELS + DECODED_BYTES * MAX_PIXELS
"""For each slot: a request and its pictures, three bytes for each pixel, and decoding one."""
DEVICE_PROCESS_BYTES = 512 * MIB
"""What a driver and its libraries keep on every device that is used."""
DEVICE_HOST_BYTES = 512 * MIB
"""What the same libraries keep of the host's memory."""

def cache_bytes(
    shape: LlamaShape, cells: Cells, *, slots: int, kv_type: str, layers: range | None = None
) -> int:
    """Bytes of the KV cache of some layers (all unless said); each slot is a stream of its own."""
    block, size = KV_TYPES[kv_type]
    total = 0
    for layer in layers if layers is not None else range(shape.layers):
        count = cells.window if shape.windowed[layer] else cells.everything
        row = shape.key_rows[layer] // block * size + shape.value_rows[layer] // block * size
        total += row * count * slots
    return total


def state_bytes(shape: LlamaShape, *, slots: int, layers: range | None = None) -> int:
    """Bytes of the states of recurrent layers (all unless said): 32 bits per number and slot."""
    chosen = layers if layers is not None else range(shape.layers)
    return 4 * slots * sum(shape.states[layer] for layer in chosen)


def adapter_bytes(shape: LlamaShape, cells: Cells) -> int:
    """Bytes of all adapters, and of what one of them computes beside the widest matrix: two sums
    of 32 bits per output and token, one per rank and token. An upper bound: the graph's buffer has
    room left wherever that matrix is not its widest moment."""
    if not shape.adapters:
        return 0
    sums = max(2 * one.width + one.rank for one in shape.adapters)
    return sum(one.bytes for one in shape.adapters) + 4 * cells.batch * sums


def vision_bytes(shape: LlamaShape, *, slots: int) -> int:
    """Bytes of a vision projector, of its graph, and of pictures that are decoded for everybody.

    Of each patch: its colours, twice, and the widest moment of a layer. An upper bound
    (measured: docs/reference/planner.md).
    """
    if not shape.number("vision_bytes"):
        return 0
    width, ffn = shape.number("vision_width"), shape.number("vision_ffn")
    patch = 6 * shape.number("vision_patch") ** 2 + max(7 * width, ffn + 3 * width) + 16
    graph = 4 * shape.number("vision_patches") * patch
    return shape.number("vision_bytes") + graph + slots * PICTURES_BYTES


def llama_need(
    shape: LlamaShape,
    *,
    context: int,
    slots: int,
    batch: int = BATCH_TOKENS,
    kv_type: str = "f16",
    gpu_layers: int = 0,
    host_experts: int = 0,
    devices: int = 0,
    flash: bool = True,
) -> MemoryNeed:
    """Bytes llama.cpp needs for `slots` streams of `context` tokens.

    Flash attention is on wherever edgekit starts the engine; without `flash` is the need of an
    engine whose backend has none. `gpu_layers` counts from the back; the output is one more than
    the layers and goes first.
    """
    cells = Cells.of(shape, context=context, slots=slots, batch=batch)
    first = max(0, shape.layers - max(0, gpu_layers - 1)) if gpu_layers else shape.layers
    on_device = range(first, shape.layers)
    cache = cache_bytes(shape, cells, slots=slots, kv_type=kv_type)
    device_cache = cache_bytes(shape, cells, slots=slots, kv_type=kv_type, layers=on_device)
    state = state_bytes(shape, slots=slots)
    device_state = state_bytes(shape, slots=slots, layers=on_device)
    weights = _device_weights(shape, first, has_output=gpu_layers > 0, host_experts=host_experts)
    compute = compute_bytes(shape, cells, slots=slots, kv_type=kv_type, flash=flash)
    used = max(1, devices) if gpu_layers else 0
    terms = [
        MemoryTerm("weights", _host_weights(shape, weights), weights),
        MemoryTerm("kv cache", cache - device_cache, device_cache),
        MemoryTerm("compute", compute, compute * used),
        MemoryTerm("output", 4 * shape.number("vocabulary") * slots),
        MemoryTerm(
            "process",
            PROCESS_BYTES
            + VOCABULARY_BYTES * shape.number("vocabulary")
            + (DEVICE_HOST_BYTES if used else 0),
            DEVICE_PROCESS_BYTES * used,
        ),
    ]
    adapters = adapter_bytes(shape, cells)
    if adapters:
        on_host = adapters if gpu_layers <= shape.layers else 0
        terms.insert(1, MemoryTerm("adapters", on_host, adapters * used))
    vision = vision_bytes(shape, slots=slots)
    if vision:
        terms.insert(1, MemoryTerm("vision", vision))
    if state:
        terms.insert(2, MemoryTerm("state", state - device_state, device_state))
    checkpoints = CHECKPOINTS * checkpoint_bytes(shape, cells, slots=slots, kv_type=kv_type)
    if checkpoints:
        terms.insert(-1, MemoryTerm("checkpoints", checkpoints))
    return MemoryNeed(tuple(terms), cached=0 if used else shape.number("stale_bytes"))


def checkpoint_bytes(shape: LlamaShape, cells: Cells, *, slots: int, kv_type: str) -> int:
    """Bytes of one copy, for everybody, of what a layer with a window or a state keeps."""
    windowed = [layer for layer in range(shape.layers) if shape.windowed[layer]]
    window = Cells(cells.window, min(cells.window, shape.number("window")), cells.batch)
    total = state_bytes(shape, slots=slots)
    for layer in windowed:
        total += cache_bytes(
            shape, window, slots=slots, kv_type=kv_type, layers=range(layer, layer + 1)
        )
    return total


def _device_weights(shape: LlamaShape, first: int, *, has_output: bool, host_experts: int) -> int:
    if not has_output:
        return 0
    layers = sum(shape.layer_bytes[first:])
    experts = sum(shape.expert_bytes[max(first, host_experts) :])
    output = shape.number("output_bytes") or shape.number("embedding_bytes")
    return layers + experts + output + shape.number("other_bytes")


def _host_weights(shape: LlamaShape, on_device: int) -> int:
    """What stays: with a tied output the embedding lies on both sides."""
    is_tied = on_device and not shape.number("output_bytes")
    moved = on_device - (shape.number("embedding_bytes") if is_tied else 0)
    return max(0, shape.variant.bytes - shape.number("vision_bytes") - moved)
