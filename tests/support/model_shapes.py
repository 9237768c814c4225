"""Models with no weights worth the name, in every shape: GGUF files that llama.cpp really loads.

The tensors are holes in the file, so a model of gibibytes takes kilobytes of disk. What the engine
allocates for it is what it would allocate for a real one of the same shape.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.gguf import BOOL, F32, I32, TEXT, U32, TensorEntry, array, text, value

F32_TYPE, F16_TYPE, Q8_0_TYPE, Q4_0_TYPE = 0, 1, 8, 2
_BLOCKS = {F32_TYPE: (1, 4), F16_TYPE: (1, 2), Q8_0_TYPE: (32, 34), Q4_0_TYPE: (32, 18)}
_TYPED = {"f32": F32_TYPE, "f16": F16_TYPE, "q8_0": Q8_0_TYPE, "q4_0": Q4_0_TYPE}
_ALIGNMENT = 32

Tensors = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ModelShape:
    """One shape. `kv_heads` and `extra` may hold lists per layer; `tied` has no output tensor,
    `labels` are what a head that ranks tells apart."""

    name: str
    arch: str = "llama"
    layers: int = 4
    width: int = 512
    ffn: int = 1536
    heads: int = 8
    kv_heads: int | tuple[int, ...] = 8
    head_width: int = 64
    vocabulary: int = 1000
    context: int = 131_072
    tied: bool = False
    weights: str = "f16"
    extra: dict[str, int | tuple[int, ...] | float] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def number(self, key: str, default: int = 0) -> int:
        """An extra number."""
        found = self.extra.get(key, default)
        assert isinstance(found, int)
        return found

    def kv(self, layer: int) -> int:
        """KV heads of a layer."""
        return self.kv_heads if isinstance(self.kv_heads, int) else self.kv_heads[layer]

    def sized(self, **changes: object) -> ModelShape:
        """The same with other numbers."""
        return replace(self, **changes)  # type: ignore[arg-type]


def write_model(shape: ModelShape, folder: Path) -> Path:
    """The model's file in `folder`; its data is a hole."""
    tensors = _tensors(shape)
    entries, offset = [], 0
    for name, dimensions in tensors.items():
        kind = _TYPED[shape.weights] if _is_matrix(name, dimensions) else F32_TYPE
        block, size = _BLOCKS[kind]
        count = 1
        for dimension in dimensions:
            count *= dimension
        entries.append(TensorEntry(name, dimensions, kind, offset))
        offset += count // block * size
        offset += -offset % _ALIGNMENT
    keys = _keys(shape)
    header = (
        b"GGUF" + struct.pack("<IQQ", 3, len(entries), len(keys))
        + b"".join(text(key) + content for key, content in keys.items())
        + b"".join(entry.encode() for entry in entries)
    )
    header += bytes(-len(header) % _ALIGNMENT)
    path = folder / f"{shape.name}.gguf"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)
    return path


def _is_matrix(name: str, dimensions: tuple[int, ...]) -> bool:
    """What a converter quantises: not norms, biases, convolutions, states and routers."""
    kept = ("norm", "ssm_conv1d", "ssm_a", "ssm_d", "ssm_dt", "sinks", "gate_inp", "shortconv.conv")
    return len(dimensions) > 1 and name.endswith(".weight") and not any(k in name for k in kept)


def _keys(shape: ModelShape) -> dict[str, bytes]:
    arch = shape.arch
    numbers: dict[str, int | tuple[int, ...] | float] = {
        "block_count": shape.layers,
        "embedding_length": shape.width,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_width,
        "attention.value_length": shape.head_width,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": shape.head_width,
        "context_length": shape.context,
    }
    numbers |= shape.extra
    if arch.startswith("mamba"):
        numbers |= {"attention.head_count": 0, "feed_forward_length": 0}
        for key in ("head_count_kv", "key_length", "value_length"):
            del numbers[f"attention.{key}"]
        del numbers["rope.dimension_count"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    tokens += [f"token{n}" for n in range(shape.vocabulary - len(tokens))]
    kinds = [2, 3, 3, *([6] * 256)] + [1] * (len(tokens) - 259)
    labels = array(TEXT, [text(label) for label in shape.labels])
    return {
        "general.architecture": value(TEXT, arch),
        **({f"{arch}.classifier.output_labels": labels} if shape.labels else {}),
        **{f"{arch}.{key}": _encoded(number) for key, number in numbers.items()},
        "tokenizer.ggml.model": value(TEXT, "llama"),
        "tokenizer.ggml.tokens": array(TEXT, [text(token) for token in tokens]),
        "tokenizer.ggml.scores": array(F32, [struct.pack("<f", -n) for n in range(len(tokens))]),
        "tokenizer.ggml.token_type": array(I32, [struct.pack("<i", kind) for kind in kinds]),
        "tokenizer.ggml.add_bos_token": value(BOOL, 0),
        "tokenizer.ggml.bos_token_id": value(U32, 1),
        "tokenizer.ggml.eos_token_id": value(U32, 2),
    }


def _encoded(number: int | tuple[int, ...] | float) -> bytes:
    if isinstance(number, tuple):
        return array(U32, [struct.pack("<I", item) for item in number])
    return value(F32, number) if isinstance(number, float) else value(U32, number)


def _tensors(shape: ModelShape) -> Tensors:
    width = shape.width
    last = "token_embd_norm" if shape.arch == "lfm2" else "output_norm"
    tensors: Tensors = {
        "token_embd.weight": (width, shape.vocabulary),
        f"{last}.weight": (width,),
    }
    if not shape.tied:
        tensors["output.weight"] = (width, shape.vocabulary)
    if shape.labels:
        tensors["cls.output.weight"] = (width, len(shape.labels))
    for layer in range(shape.layers):
        for name, dimensions in _LAYERS[shape.arch](shape, layer).items():
            tensors[f"blk.{layer}.{name}"] = dimensions
    return tensors


def _attention(
    shape: ModelShape, layer: int, *, norms: bool = False, bias: bool = False
) -> Tensors:
    width, head = shape.width, shape.head_width
    queries, keys = shape.heads * head, shape.kv(layer) * head
    tensors: Tensors = {
        "attn_norm.weight": (width,),
        "attn_q.weight": (width, queries),
        "attn_k.weight": (width, keys),
        "attn_v.weight": (width, keys),
        "attn_output.weight": (queries, width),
    }
    if norms:
        tensors |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
    if bias:
        tensors |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    return tensors


def _mlp(shape: ModelShape) -> Tensors:
    return {
        "ffn_norm.weight": (shape.width,),
        "ffn_gate.weight": (shape.width, shape.ffn),
        "ffn_up.weight": (shape.width, shape.ffn),
        "ffn_down.weight": (shape.ffn, shape.width),
    }


def _experts(shape: ModelShape) -> Tensors:
    count = shape.number("expert_count")
    ffn = shape.number("expert_feed_forward_length", shape.ffn)
    return {
        "ffn_norm.weight": (shape.width,),
        "ffn_gate_inp.weight": (shape.width, count),
        "ffn_gate_exps.weight": (shape.width, ffn, count),
        "ffn_up_exps.weight": (shape.width, ffn, count),
        "ffn_down_exps.weight": (ffn, shape.width, count),
    }


def _llama(shape: ModelShape, layer: int) -> Tensors:
    rest = _experts(shape) if shape.number("expert_count") else _mlp(shape)
    return _attention(shape, layer) | rest


def _qwen2(shape: ModelShape, layer: int) -> Tensors:
    return _attention(shape, layer, bias=True) | _mlp(shape)


def _qwen3(shape: ModelShape, layer: int) -> Tensors:
    return _attention(shape, layer, norms=True) | _mlp(shape)


def _qwen3moe(shape: ModelShape, layer: int) -> Tensors:
    return _attention(shape, layer, norms=True) | _experts(shape)


def _phi3(shape: ModelShape, layer: int) -> Tensors:
    width, rows = shape.width, shape.kv(layer) * shape.head_width
    return {
        "attn_norm.weight": (width,),
        "attn_qkv.weight": (width, width + 2 * rows),
        "attn_output.weight": (width, width),
        "ffn_norm.weight": (width,),
        "ffn_up.weight": (width, 2 * shape.ffn),
        "ffn_down.weight": (shape.ffn, width),
    }


def _gemma2(shape: ModelShape, layer: int) -> Tensors:
    posts: Tensors = {
        "post_attention_norm.weight": (shape.width,),
        "post_ffw_norm.weight": (shape.width,),
    }
    return _attention(shape, layer) | posts | _mlp(shape)


def _gemma3(shape: ModelShape, layer: int) -> Tensors:
    return _gemma2(shape, layer) | _attention(shape, layer, norms=True)


def _gpt_oss(shape: ModelShape, layer: int) -> Tensors:
    count, ffn = shape.number("expert_count"), shape.number("expert_feed_forward_length")
    tensors = _attention(shape, layer, bias=True) | _experts(shape)
    del tensors["ffn_norm.weight"]
    return tensors | {
        "post_attention_norm.weight": (shape.width,),
        "attn_output.bias": (shape.width,),
        "attn_sinks.weight": (shape.heads,),
        "ffn_gate_inp.bias": (count,),
        "ffn_gate_exps.bias": (ffn, count),
        "ffn_up_exps.bias": (ffn, count),
        "ffn_down_exps.bias": (shape.width, count),
    }


def _deepseek2(shape: ModelShape, layer: int) -> Tensors:
    width, heads = shape.width, shape.heads
    rank, rope = shape.number("attention.kv_lora_rank"), shape.number("rope.dimension_count")
    key, out = shape.number("attention.key_length_mla"), shape.number("attention.value_length_mla")
    query = shape.number("attention.q_lora_rank")
    tensors: Tensors = {
        "attn_norm.weight": (width,),
        "attn_kv_a_norm.weight": (rank,),
        "attn_q_a_norm.weight": (query,),
        "attn_q_a.weight": (width, query),
        "attn_q_b.weight": (query, heads * key),
        "attn_kv_a_mqa.weight": (width, rank + rope),
        "attn_k_b.weight": (key - rope, rank, heads),
        "attn_v_b.weight": (rank, out, heads),
        "attn_output.weight": (heads * out, width),
    }
    if layer < shape.number("leading_dense_block_count"):
        return tensors | _mlp(shape)
    ffn = shape.number("expert_feed_forward_length") * shape.number("expert_shared_count")
    return tensors | _experts(shape) | {
        "ffn_gate_shexp.weight": (width, ffn),
        "ffn_up_shexp.weight": (width, ffn),
        "ffn_down_shexp.weight": (ffn, width),
    }


def _mamba(shape: ModelShape, _layer: int) -> Tensors:
    inner, state = shape.number("ssm.inner_size"), shape.number("ssm.state_size")
    rank, taps = shape.number("ssm.time_step_rank"), shape.number("ssm.conv_kernel")
    return {
        "attn_norm.weight": (shape.width,),
        "ssm_in.weight": (shape.width, 2 * inner),
        "ssm_conv1d.weight": (taps, inner),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (inner, rank + 2 * state),
        "ssm_dt.weight": (rank, inner),
        "ssm_dt.bias": (inner,),
        "ssm_a": (state, inner),
        "ssm_d": (inner,),
        "ssm_out.weight": (inner, shape.width),
    }


def _mamba2(shape: ModelShape, _layer: int) -> Tensors:
    inner, state = shape.number("ssm.inner_size"), shape.number("ssm.state_size")
    heads, taps = shape.number("ssm.time_step_rank"), shape.number("ssm.conv_kernel")
    groups = shape.number("ssm.group_count")
    wide = inner + 2 * groups * state
    return {
        "attn_norm.weight": (shape.width,),
        "ssm_in.weight": (shape.width, inner + wide + heads),
        "ssm_conv1d.weight": (taps, wide),
        "ssm_conv1d.bias": (wide,),
        "ssm_dt.bias": (heads,),
        "ssm_a": (1, heads),
        "ssm_d": (1, heads),
        "ssm_norm.weight": (inner // groups, groups),
        "ssm_out.weight": (inner, shape.width),
    }


def _jamba(shape: ModelShape, layer: int) -> Tensors:
    if shape.kv(layer):
        return _attention(shape, layer) | _mlp(shape)
    rank, state = shape.number("ssm.time_step_rank"), shape.number("ssm.state_size")
    return _mamba(shape, layer) | _mlp(shape) | {
        "ssm_dt_norm.weight": (rank,),
        "ssm_b_norm.weight": (state,),
        "ssm_c_norm.weight": (state,),
    }


def _granite_hybrid(shape: ModelShape, layer: int) -> Tensors:
    mixer = _attention(shape, layer) if shape.kv(layer) else _mamba2(shape, layer)
    return mixer | _mlp(shape)


def _lfm2(shape: ModelShape, layer: int) -> Tensors:
    if shape.kv(layer):
        return _attention(shape, layer, norms=True) | _mlp(shape)
    return _mlp(shape) | {
        "attn_norm.weight": (shape.width,),
        "shortconv.conv.weight": (shape.number("shortconv.l_cache"), shape.width),
        "shortconv.in_proj.weight": (shape.width, 3 * shape.width),
        "shortconv.out_proj.weight": (shape.width, shape.width),
    }


_LAYERS: dict[str, Callable[[ModelShape, int], Tensors]] = {
    "llama": _llama, "qwen2": _qwen2, "qwen3": _qwen3, "qwen3moe": _qwen3moe, "phi3": _phi3,
    "gemma2": _gemma2, "gemma3": _gemma3, "smallthinker": _llama, "gpt-oss": _gpt_oss,
    "deepseek2": _deepseek2, "mamba": _mamba, "mamba2": _mamba2, "jamba": _jamba,
    "granitehybrid": _granite_hybrid, "lfm2": _lfm2, "cohere2": _llama,
}

_MIXTRAL = {"expert_count": 8, "expert_used_count": 2}
_MLA = {
    "attention.head_count_kv": 1, "attention.kv_lora_rank": 256, "attention.q_lora_rank": 384,
    "attention.key_length": 256 + 32, "attention.value_length": 256,
    "attention.key_length_mla": 96, "attention.value_length_mla": 64, "rope.dimension_count": 32,
    "expert_count": 8, "expert_used_count": 2, "expert_shared_count": 1,
    "expert_feed_forward_length": 512, "leading_dense_block_count": 1,
    "expert_weights_scale": 1.0, "vocab_size": 1000,
}
_MAMBA = {"ssm.inner_size": 1024, "ssm.state_size": 16, "ssm.conv_kernel": 4,
          "ssm.time_step_rank": 32}
_MAMBA2 = {"ssm.inner_size": 1024, "ssm.state_size": 64, "ssm.conv_kernel": 4,
           "ssm.time_step_rank": 16, "ssm.group_count": 1}

SHAPES: tuple[ModelShape, ...] = (
    ModelShape("dense"),
    ModelShape("dense-tied", tied=True),
    ModelShape("dense-wide", width=1024, ffn=4096, heads=16, kv_heads=16),
    ModelShape("dense-deep", layers=12, width=768, ffn=3072, heads=12, kv_heads=12),
    ModelShape("gqa", width=1024, ffn=2816, heads=16, kv_heads=4, layers=6),
    ModelShape("gqa-8b-like", width=2048, ffn=7168, heads=16, kv_heads=4, head_width=128),
    ModelShape("mqa", kv_heads=1),
    ModelShape("wide-heads", width=512, heads=8, kv_heads=2, head_width=128, ffn=1024),
    ModelShape("small-ffn", width=1024, ffn=512, heads=16, kv_heads=8),
    ModelShape("large-vocabulary", vocabulary=128_000, width=512, tied=True),
    ModelShape("q8-weights", weights="q8_0", width=1024, ffn=2816, heads=16, kv_heads=4),
    ModelShape("q4-weights", weights="q4_0", width=1024, ffn=2816, heads=16, kv_heads=4),
    ModelShape("qwen2", arch="qwen2", kv_heads=2),
    ModelShape("qwen3", arch="qwen3", kv_heads=4, head_width=128),
    ModelShape("phi3", arch="phi3", width=768, heads=12, kv_heads=12, ffn=2048),
    ModelShape("gemma2", arch="gemma2", tied=True, kv_heads=4, layers=6, ffn=2048,
               extra={"attention.sliding_window": 1024}),
    ModelShape("gemma3-dense-last", arch="gemma3", tied=True, kv_heads=1, layers=12, ffn=2048,
               head_width=128, heads=4, extra={"attention.sliding_window": 512}),
    ModelShape("gemma3-wide-window", arch="gemma3", tied=True, kv_heads=4, layers=6,
               extra={"attention.sliding_window": 1024}),
    ModelShape("smallthinker-dense-first", arch="smallthinker", kv_heads=4, layers=8,
               extra={"attention.sliding_window": 512, "expert_count": 8, "expert_used_count": 2,
                      "expert_feed_forward_length": 512, "expert_gating_func": 2}),
    ModelShape("gpt-oss", arch="gpt-oss", kv_heads=2, layers=4,
               extra={"attention.sliding_window": 128, "expert_count": 8, "expert_used_count": 4,
                      "expert_feed_forward_length": 512}),
    ModelShape("mixtral", ffn=1024, kv_heads=2, extra=dict(_MIXTRAL)),
    ModelShape("mixtral-wide", width=1024, ffn=2048, heads=16, kv_heads=4, extra=dict(_MIXTRAL)),
    ModelShape("qwen3moe", arch="qwen3moe", kv_heads=2,
               extra={"expert_count": 32, "expert_used_count": 4,
                      "expert_feed_forward_length": 256}),
    ModelShape("qwen3moe-many-used", arch="qwen3moe", kv_heads=2, width=1024, heads=16,
               extra={"expert_count": 64, "expert_used_count": 8,
                      "expert_feed_forward_length": 384}),
    ModelShape("deepseek2-mla", arch="deepseek2", kv_heads=1, extra=dict(_MLA)),
    ModelShape("deepseek2-mla-many-heads", arch="deepseek2", kv_heads=1, heads=16, width=1024,
               extra=dict(_MLA)),
    ModelShape("mamba", arch="mamba", extra=dict(_MAMBA), layers=6),
    ModelShape("mamba2", arch="mamba2", extra=dict(_MAMBA2), layers=6),
    ModelShape("jamba", arch="jamba", layers=8, kv_heads=(0, 0, 0, 8, 0, 0, 0, 8),
               extra=dict(_MAMBA)),
    ModelShape("granite-hybrid", arch="granitehybrid", layers=6, kv_heads=(0, 0, 4, 0, 0, 4),
               extra=dict(_MAMBA2)),
    ModelShape("lfm2", arch="lfm2", layers=6, kv_heads=(0, 0, 4, 0, 0, 4),
               extra={"shortconv.l_cache": 3}),
    ModelShape("cohere2-like-gqa", width=1536, ffn=4096, heads=12, kv_heads=2, head_width=128),
)
