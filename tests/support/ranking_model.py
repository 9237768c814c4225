"""A small model that ranks documents: its weights are random, its scores always the same."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

from edgekit.core.gguf import read_gguf_header
from tests.support.model_shapes import ModelShape, write_model

SHAPE = ModelShape(
    "edgekit-rank", arch="qwen3", layers=2, width=128, ffn=256, heads=4, kv_heads=2, head_width=32,
    vocabulary=512, context=2048, weights="f32", labels=("yes", "no"), extra={"pooling_type": 4},
)
SPREAD = 3.0
"""Weights this much wider than usual: the query then decides about the documents' order."""
BEST = {"who cooks": "ask the cook", "when is lunch": "the mess opens at noon"}
"""Of these two documents each query's own has the better score, by over 0.3. Found by search."""


def write_ranking_model(folder: Path, *, head: bool = True) -> Path:
    """The file in `folder`; llama.cpp's `/v1/rerank` gives documents scores from 0 to 1.

    Without its `head` it makes vectors and cannot rank.
    """
    path = write_model(SHAPE if head else SHAPE.sized(labels=()), folder)
    with path.open("rb") as file:
        header = read_gguf_header(file, path.stat().st_size, path.name)
    numbers = random.Random(1)
    with path.open("r+b") as file:
        for tensor in header.tensors:
            count = tensor.size // 4
            is_table = "embd" in tensor.name
            spread = 1.0 if is_table else SPREAD * tensor.dimensions[0] ** -0.5
            ones = len(tensor.dimensions) == 1  # norms
            file.seek(header.data_offset + tensor.offset)
            values = (1.0 if ones else numbers.gauss(0, spread) for _ in range(count))
            file.write(array("f", values).tobytes())
    return path
