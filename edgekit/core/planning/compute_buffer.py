"""llama.cpp's compute buffer: the widest moment of its graph, for one batch.

The engine plans its graph's tensors before it starts; what it reserves is the largest sum of
tensors that live at the same time. Those moments are few, each linear in the tokens of a batch.
"""

from __future__ import annotations

from edgekit.core.planning.llama_shape import Cells, LlamaShape


def compute_bytes(shape: LlamaShape, cells: Cells, *, slots: int) -> int:
    """Bytes of the buffer with flash attention on; `slots` does not change it."""
    del slots
    widest = max(
        3 * shape.number("ffn") + 5 * shape.number("width"),
        2 * shape.number("heads") * shape.number("key_width") + 5 * shape.number("width"),
    )
    return cells.batch * (2 * cells.everything + 4 * widest)
