"""What the keys of a GGUF header must agree on before an engine may see the file.

The reader in core/gguf.py knows that a file is well formed. Engines index arrays and tensors by
numbers that other keys give (layers, tokens, special tokens), so those are held against each other
here. Sources: llama.cpp src/llama-vocab.cpp, src/llama-model-loader.cpp; key names: ggml docs.
"""

from __future__ import annotations

import math
import re

from edgekit.core.chat_template import MAX_TEMPLATES, check_chat_template
from edgekit.core.gguf import GgufHeader
from edgekit.errors import WeightsError

MAX_LAYERS = 1024
MAX_CONTEXT = 1 << 24
MAX_VOCABULARY = 1 << 22
NO_TOKEN = 2**32 - 1
"""How converters write that there is no such special token."""

_ARCHITECTURE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,39}")
_LAYER = re.compile(r"blk\.([0-9]{1,6})\.")
_F32, _I32, _TEXT = 6, 5, 8
_INTEGERS = (0, 1, 2, 3, 4, 5, 10, 11)
_RANGES = {
    "block_count": (1, MAX_LAYERS),
    "context_length": (1, MAX_CONTEXT),
    "embedding_length": (1, 1 << 20),
    "attention.head_count": (0, 1 << 16),
    "attention.head_count_kv": (0, 1 << 16),
    "attention.key_length": (0, 1 << 16),
    "attention.value_length": (0, 1 << 16),
    "attention.sliding_window": (0, MAX_CONTEXT),
    "rope.dimension_count": (0, 1 << 16),
    "feed_forward_length": (0, 1 << 24),
    "expert_feed_forward_length": (0, 1 << 24),
    "expert_count": (0, 1 << 14),
    "expert_used_count": (0, 1 << 14),
    "vocab_size": (1, MAX_VOCABULARY),
    "expert_shared_count": (0, 1 << 10),
    "expert_shared_feed_forward_length": (0, 1 << 24),
    "nextn_predict_layers": (0, MAX_LAYERS),
    "full_attention_interval": (0, MAX_LAYERS),
    "token_shift_count": (0, 16),
    "attention.key_length_mla": (0, 1 << 16),
    "attention.value_length_mla": (0, 1 << 16),
    "attention.key_length_swa": (0, 1 << 16),
    "attention.value_length_swa": (0, 1 << 16),
    "attention.kv_lora_rank": (0, 1 << 16),
    "attention.q_lora_rank": (0, 1 << 16),
    "attention.shared_kv_layers": (0, MAX_LAYERS),
    "kda.head_dim": (0, 1 << 12),
    "shortconv.l_cache": (0, 1 << 8),
    "ssm.conv_kernel": (0, 1 << 8),
    "ssm.group_count": (0, 1 << 12),
    "ssm.inner_size": (0, 1 << 20),
    "ssm.state_size": (0, 1 << 16),
    "ssm.time_step_rank": (0, 1 << 16),
    "wkv.head_size": (0, 1 << 12),
}
"""Key below the architecture: least and greatest value. The first three must be there."""
_REQUIRED = ("block_count", "context_length", "embedding_length")
_PER_LAYER = (
    "attention.head_count",
    "attention.head_count_kv",
    "feed_forward_length",
    "expert_feed_forward_length",
)
_TOKEN_ARRAYS = {
    "tokenizer.ggml.tokens": (_TEXT,),
    "tokenizer.ggml.scores": (_F32, _I32),
    "tokenizer.ggml.token_type": (_I32,),
}
"""Arrays with one item per token, and the types an engine reads them as."""


def check_gguf_rules(header: GgufHeader, name: str) -> None:
    """Check what the keys of a model say of each other and of the tensors.

    `name` names the file. Raises WeightsError, or RefusedContentError for a chat template.
    """
    problem = (
        _kind_problem(header)
        or _range_problem(header)
        or _layer_problem(header)
        or _vocabulary_problem(header)
        or _template_problem(header)
    )
    if problem is not None:
        raise WeightsError(f"not a usable GGUF file: {problem}", where=name, found=problem)
    for key, text in _templates(header):
        check_chat_template(text, f"{name} ({key})")


def _kind_problem(header: GgufHeader) -> str | None:
    if _ARCHITECTURE.fullmatch(header.text("general.architecture")) is None:
        return "general.architecture is missing or no plain name"
    if header.metadata.get("general.type", "model") != "model":
        return "it is not a model by its own general.type"
    if header.metadata.get("split.count", 0) not in (0, 1):
        return "it is one part of a split file; join the parts (llama-gguf-split --merge)"
    if not header.tensors:
        return "it has no tensors"
    for key, value in header.metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"{key[:60]} is not a finite number"
    return None


def _range_problem(header: GgufHeader) -> str | None:
    arch = header.text("general.architecture")
    for key, (low, high) in _RANGES.items():
        full = f"{arch}.{key}"
        value = header.metadata.get(full)
        if value is None:
            if key in _REQUIRED or (full in header.types and key not in _PER_LAYER):
                return f"{full} is missing or not a number"
        elif header.types[full] not in _INTEGERS or not low <= int(value) <= high:
            return f"{full} is not a number from {low} to {high}"
    return None


def _layer_problem(header: GgufHeader) -> str | None:
    """Every layer there is, none beyond, and lists per layer have that many items."""
    arch = header.text("general.architecture")
    layers = header.integer(f"{arch}.block_count")
    found = {int(m[1]) for t in header.tensors if (m := _LAYER.match(t.name)) is not None}
    if found != set(range(layers)):
        return f"{arch}.block_count is {layers}, the tensors are of {len(found)} layers"
    for key in _PER_LAYER:
        full = f"{arch}.{key}"
        if full in header.array_lengths and (
            header.array_lengths[full] != layers or header.types[full] not in _INTEGERS
        ):
            return f"{full} is not one number per layer"
    return None


def _vocabulary_problem(header: GgufHeader) -> str | None:
    tokens = header.array_lengths.get("tokenizer.ggml.tokens", 0)
    if not 1 <= tokens <= MAX_VOCABULARY:
        return f"a vocabulary of {tokens} tokens"
    for key, types in _TOKEN_ARRAYS.items():
        if key in header.types and (
            header.array_lengths.get(key) != tokens or header.types[key] not in types
        ):
            return f"{key} is not one item of the right type per token"
    merges = "tokenizer.ggml.merges"
    if merges in header.types and (
        merges not in header.array_lengths or header.types[merges] != _TEXT
    ):
        return f"{merges} is not a list of texts"
    return _special_token_problem(header, tokens) or _embedding_problem(header, tokens)


def _special_token_problem(header: GgufHeader, tokens: int) -> str | None:
    for key, value in header.metadata.items():
        if not key.startswith("tokenizer.ggml.") or not key.endswith("_token_id"):
            continue
        is_number = header.types[key] in _INTEGERS
        if not is_number or not (0 <= int(value) < tokens or value in (NO_TOKEN, -1)):
            return f"{key[:60]} is not one of {tokens} tokens"
    return None


def _embedding_problem(header: GgufHeader, tokens: int) -> str | None:
    """A token beyond the rows of the embedding would be read from other memory."""
    arch = header.text("general.architecture")
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight":
            rows = tensor.dimensions[1] if len(tensor.dimensions) == 2 else 0
            width = header.integer(f"{arch}.embedding_length")
            if rows < tokens or tensor.dimensions[0] != width:
                return f"token_embd.weight is {tensor.dimensions}, not {width} by {tokens}"
            return None
    return "it has no token_embd.weight"


def default_template(header: GgufHeader) -> str:
    """The chat template an engine uses; empty when the weights carry none."""
    return header.text("tokenizer.chat_template")


def _templates(header: GgufHeader) -> list[tuple[str, str]]:
    return [
        (key[:60], value)
        for key, value in header.metadata.items()
        if key.startswith("tokenizer.chat_template") and isinstance(value, str)
    ]


def _template_problem(header: GgufHeader) -> str | None:
    keys = [key for key in header.types if key.startswith("tokenizer.chat_template")]
    texts = [key for key in keys if isinstance(header.metadata.get(key), str)]
    for key in set(keys) - set(texts):
        if key != "tokenizer.chat_templates" or header.types[key] != _TEXT:
            return f"{key[:60]} is not text"
    if len(texts) > MAX_TEMPLATES:
        return f"{len(texts)} chat templates (at most {MAX_TEMPLATES})"
    return None
