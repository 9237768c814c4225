"""llama.cpp's compute buffer for a model, a batch and a cache. Pure."""

from __future__ import annotations

from functools import lru_cache

from edgekit.core.planning.graphs import Batch, LayerKind, graph_bytes
from edgekit.core.planning.llama_shape import Cells, LlamaShape

_WITH_NORMS = ("gemma3", "gemma3n", "gemma4", "qwen3", "qwen3moe", "lfm2", "lfm2moe", "olmoe")
_WITH_BIAS = ("qwen2", "qwen2moe", "gpt-oss")
_WITH_POST_NORMS = ("gemma2", "gemma3", "gemma3n", "gemma4")
_FUSED = ("phi3",)
_MIXERS = {"mamba": "mamba", "jamba": "mamba", "mamba2": "mamba2", "granitehybrid": "mamba2",
           "nemotron_h": "mamba2", "falcon-h1": "mamba2", "lfm2": "shortconv",
           "lfm2moe": "shortconv"}
_SOFT_CAPPED = ("gemma2",)
_VALUE_TURN = 64


def compute_bytes(
    shape: LlamaShape, cells: Cells, *, slots: int, kv_type: str = "f16", flash: bool = True
) -> int:
    """Bytes of the buffer for one step of a full batch; `flash`: with flash attention.

    The batch is rounded up so that everybody has as many tokens (llama-context.cpp: graph_reserve).
    """
    tokens = -(-cells.batch // slots) * slots
    return _graph_bytes(
        _kinds(shape, cells, kv_type, flash),
        shape.number("width"),
        shape.number("vocabulary"),
        Batch(tokens, slots, slots),
        shape.family in _WITH_POST_NORMS,
        shape.mixes,
    )


@lru_cache(maxsize=256)
def _graph_bytes(
    layers: tuple[LayerKind, ...], width: int, vocabulary: int, batch: Batch, scaled: bool,
    mixes: bool,
) -> int:
    return graph_bytes(
        layers, width=width, vocabulary=vocabulary, batch=batch, scaled=scaled, mixes=mixes
    )


def _kinds(
    shape: LlamaShape, cells: Cells, kv_type: str, flash: bool
) -> tuple[LayerKind, ...]:
    return tuple(_kind(shape, cells, kv_type, flash, layer) for layer in shape.telling_layers)


def _kind(
    shape: LlamaShape, cells: Cells, kv_type: str, flash: bool, layer: int
) -> LayerKind:
    family = shape.family
    expert_bytes = shape.expert_bytes[layer]
    heads = shape.number("heads")
    recurrent = shape.states[layer] > 0
    latent = shape.number("latent_key") and shape.number("latent_rank")
    value_width = shape.number("latent_value" if latent else "value_width")
    is_quantised = kv_type != "f16"
    return LayerKind(
        mask=cells.window if shape.windowed[layer] else cells.everything,
        flash=flash,
        soft_cap=family in _SOFT_CAPPED,
        windowed=bool(shape.windowed[layer]),
        keys_first=any(shape.windowed),
        key_turn=_turn(shape.number("key_width")) if is_quantised else 0,
        value_turn=_VALUE_TURN if is_quantised and _turn(value_width) and not latent else 0,
        queries=heads * value_width if latent else heads * shape.number("key_width"),
        key_row=shape.key_rows[layer],
        value_row=shape.value_rows[layer],
        ffn=0 if expert_bytes else shape.number("ffn"),
        experts=shape.number("experts") if expert_bytes else 0,
        used=shape.number("experts_used"),
        expert_ffn=shape.number("expert_ffn") or shape.number("ffn"),
        shared_ffn=_shared(shape),
        norms=family in _WITH_NORMS,
        bias=family in _WITH_BIAS,
        post_norms=family in _WITH_POST_NORMS,
        fused=family in _FUSED,
        early_router=family == "smallthinker" and expert_bytes > 0,
        query_rank=shape.number("query_rank"),
        latent_rank=shape.number("latent_rank") if latent else 0,
        rope_width=shape.number("rope_width"),
        latent_queries=heads * shape.number("latent_key"),
        heads=heads,
        mixer=_MIXERS.get(family, "") if recurrent else "",
        inner=shape.number("inner"),
        inner_state=shape.number("inner_state"),
        inner_groups=shape.number("inner_groups"),
        inner_heads=shape.number("inner_heads"),
        inner_taps=shape.number("inner_taps"),
    )


def _turn(width: int) -> int:
    """The largest of 64, 128, 256.. that divides the width of a head; 0 when 64 does not."""
    turn = 0
    size = _VALUE_TURN
    while width and width % size == 0:
        turn, size = size, size * 2
    return turn


def _shared(shape: LlamaShape) -> int:
    return shape.number("shared_ffn") or (
        shape.number("shared_experts") * shape.number("expert_ffn")
    )
