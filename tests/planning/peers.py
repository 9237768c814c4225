"""What other tools' formulas say about the same models; each as its source has it.

Ollama: llm/server.go as of 0.33, prediction before a start. GPUStack: weights times 1.2 plus 2 GiB
(scheduler's rule for vLLM; GGUF goes through gguf-parser). gguf-parser-go: file_estimate.go as of
0.22, the cache's part of it. All in bytes. Formulas, not the programs themselves.
"""

from __future__ import annotations

from edgekit.core.planning.llama_shape import LlamaShape
from tests.planning.engine import Measured

GIB = 1 << 30
GGUF_PARSER_BATCH = 2048


def ollama_total(measured: Measured) -> int:
    """File size, and a cache of 2 * layers * least KV heads * (width / heads) * context * 2."""
    shape, case = LlamaShape(measured.variant, ""), measured.case
    heads = max(1, shape.number("heads"))
    kv_heads = case.shape.kv_heads
    least = kv_heads if isinstance(kv_heads, int) else min(kv_heads)
    cache = 2 * shape.layers * least * (shape.number("width") // heads)
    return measured.variant.bytes + cache * case.context * case.slots * 2


def ollama_cache(measured: Measured) -> int:
    """The cache's part."""
    return ollama_total(measured) - measured.variant.bytes


def gpustack_total(measured: Measured) -> int:
    """Weights times 1.2 plus 2 GiB, whatever the context."""
    return measured.variant.bytes * 6 // 5 + 2 * GIB


def gguf_parser_cache(measured: Measured) -> int:
    """Per layer K and V of every KV head; a window is padded by the logical batch of 2,048."""
    shape, case = LlamaShape(measured.variant, ""), measured.case
    total = 0
    for layer in range(shape.layers):
        if shape.number("latent_key"):  # the decompressed widths, per head of the one KV head
            row = shape.number("latent_key") + shape.number("latent_value")
        else:
            row = shape.key_rows[layer] + shape.value_rows[layer]
        cells = case.context
        if shape.windowed[layer]:
            cells = min(cells, shape.number("window") + GGUF_PARSER_BATCH)
        total += 2 * row * cells * case.slots
    return total if case.kv_type == "f16" else total * 34 // 64
