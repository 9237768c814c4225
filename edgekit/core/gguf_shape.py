"""What planning needs of a GGUF header: per layer, what is kept for each token or each user.

Which layers see a window, keep a state or share a cache is not always written in the file:
llama.cpp knows it by architecture. Those rules stand here, once, so that a plan knows no
architecture's name.
Source: llama.cpp src/models/*.cpp (load_arch_hparams) and src/llama-hparams.cpp, as of b11549.
"""

from __future__ import annotations

import re

from edgekit.core.gguf import VOCABULARY, GgufHeader
from edgekit.core.infill import find_infill_tokens

Shape = dict[str, int | tuple[int, ...]]

_WINDOW_PATTERNS = {
    "afmoe": 4, "cohere2": 4, "exaone-moe": 4, "exaone4": 4, "gemma-embedding": 6, "gemma2": 2,
    "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4, "mellum": 4, "olmo2": 4, "plamo3": 8,
    "cohere2moe": -4, "laguna": -4, "smallthinker": -4,
}
"""Every so many layers one sees everything: the last of them, or the first where negative."""
_WINDOW_DEFAULTS = {"gemma2": 4096, "exaone4": 4096}
_WINDOW_FIXED = {"llama4": 8192, "smallthinker": 4096}
"""Windows that the engine uses whatever the file says, unless it says 0."""
_WINDOW_ARRAYS = ("gemma4",)
"""Architectures whose file says for each layer whether it sees a window."""
_EXAONE4_WINDOWED_LAYERS = 64
_GEMMA3N_LAYERS_WITH_CACHE = 20

_ALL_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
_RECURRENT_WITHOUT_HEADS = (
    "bailingmoe3", "granitehybrid", "jamba", "kimi-linear", "lfm2", "lfm2moe", "nemotron_h",
    "nemotron_h_moe", "plamo2",
)
"""A layer without KV heads keeps a state instead of a cache."""
_RECURRENT_BY_INTERVAL = ("minimax-01", "qwen3next", "qwen35", "qwen35moe")
_RECURRENT_AND_ATTENTION = ("falcon-h1",)
_DEFAULT_INTERVAL = 4

_REPACKED = ("Q4_0", "Q4_K", "IQ4_NL")
"""Types that x86 processors with AVX2 keep in another order, as a copy (ggml-cpu/repack.cpp)."""

_LAYER = re.compile(r"blk\.([0-9]{1,6})\.")


def gguf_shape(header: GgufHeader) -> Shape:
    """Facts about a model, in elements and bytes; lists hold one number per layer.

    `key_row` and `value_row` are the elements a layer's cache keeps for each token, `windowed` is 1
    where only the last `window` tokens are kept, `state` counts the 32-bit numbers kept per user.
    `layer_bytes`, `expert_bytes`, `embedding_bytes`, `output_bytes` and `other_bytes` are sizes of
    tensors. `infill_prefix`, `infill_suffix` and `infill_middle` are there when the vocabulary has
    these tokens (`core.infill`). Total on any header: what a file does not say is 0.
    """
    return _Reader(header).shape()


class _Reader:
    def __init__(self, header: GgufHeader) -> None:
        self._header = header
        self._arch = header.text("general.architecture")
        self._layers = min(self._number("block_count"), 1024)

    def _number(self, key: str, default: int = 0) -> int:
        return self._header.integer(f"{self._arch}.{key}", default)

    def _per_layer(self, key: str, default: int = 0) -> tuple[int, ...]:
        """One number per layer, whether the file gives one for all or a list."""
        items = self._header.numbers.get(f"{self._arch}.{key}")
        if items is not None and len(items) >= self._layers and min(items, default=0) >= 0:
            return items[: self._layers]
        return (self._number(key, default),) * self._layers

    def shape(self) -> Shape:
        heads = self._per_layer("attention.head_count")
        kv_heads = self._per_layer("attention.head_count_kv", max(heads, default=0))
        width = self._number("embedding_length")
        head_width = width // max(heads) if any(heads) else 0
        key_width = self._number("attention.key_length", head_width)
        value_width = self._number("attention.value_length", head_width)
        windowed = self._windowed()
        return {
            "layers": self._number("block_count"),
            "width": width,
            "ffn": max(self._per_layer("feed_forward_length"), default=0),
            "heads": max(heads, default=0),
            "kv_heads": max(kv_heads, default=0),
            "key_width": key_width,
            "value_width": value_width,
            "context": self._number("context_length"),
            "vocabulary": self._header.array_lengths.get(VOCABULARY, 0),
            "window": self._window() if any(windowed) else 0,
            "windowed": windowed,
            **self._rows(kv_heads, key_width, value_width, windowed),
            **self._graph(),
            **self._sizes(),
            **self._infill(),
        }

    def _infill(self) -> Shape:
        size = self._header.array_lengths.get(VOCABULARY, 0)
        tokens = find_infill_tokens(self._header.metadata, self._header.marks, size)
        if tokens is None:
            return {}
        return {
            "infill_prefix": tokens.prefix,
            "infill_suffix": tokens.suffix,
            "infill_middle": tokens.middle,
        }

    def _rows(
        self, kv_heads: tuple[int, ...], key_width: int, value_width: int, windowed: tuple[int, ...]
    ) -> Shape:
        """What a layer keeps per token (`key_row`, `value_row`), and per user (`state`)."""
        recurrent = self._recurrent()
        cached = self._cached()
        widths = (
            (key_width, value_width),
            (
                self._number("attention.key_length_swa", key_width),
                self._number("attention.value_length_swa", value_width),
            ),
        )
        is_latent = self._number("attention.key_length_mla") > 0
        keys, values, states = [], [], []
        for layer in range(self._layers):
            both = self._arch in _RECURRENT_AND_ATTENTION
            heads = kv_heads[layer] if cached[layer] and (both or not recurrent[layer]) else 0
            key, value = widths[windowed[layer]]
            keys.append(heads * key)
            values.append(0 if is_latent else heads * value)
            states.append(self._state() if recurrent[layer] else 0)
        return {"key_row": tuple(keys), "value_row": tuple(values), "state": tuple(states)}

    def _window(self) -> int:
        fixed = _WINDOW_FIXED.get(self._arch, 0)
        default = _WINDOW_DEFAULTS.get(self._arch, 8192 if self._arch == "llama4" else 0)
        window = self._number("attention.sliding_window", default)
        return fixed if fixed and window else window

    def _windowed(self) -> tuple[int, ...]:
        """1 for each layer that keeps a window only."""
        everything = (0,) * self._layers
        if self._arch in _WINDOW_PATTERNS or self._arch in _WINDOW_ARRAYS:
            if self._window() == 0:
                return everything
            key = "attention.sliding_window_pattern"
            items = self._header.numbers.get(f"{self._arch}.{key}", ())
            if len(items) >= self._layers > 0:
                return tuple(1 if item else 0 for item in items[: self._layers])
        pattern = _WINDOW_PATTERNS.get(self._arch, 0)
        if self._arch == "exaone4" and self._layers != _EXAONE4_WINDOWED_LAYERS:
            return everything
        period = self._number("attention.sliding_window_pattern", abs(pattern))
        if pattern == 0:
            return everything
        if period == 0:
            return (1,) * self._layers
        dense = 0 if pattern < 0 else period - 1
        return tuple(int(layer % period != dense) for layer in range(self._layers))

    def _recurrent(self) -> tuple[bool, ...]:
        layers = range(self._layers)
        if self._arch in _ALL_RECURRENT or self._arch in _RECURRENT_AND_ATTENTION:
            return (True,) * self._layers
        if self._arch in _RECURRENT_WITHOUT_HEADS:
            kv_heads = self._per_layer("attention.head_count_kv", 1)
            ffn = self._per_layer("feed_forward_length")
            plain = self._arch.startswith("nemotron_h")  # its FFN layers keep nothing at all
            return tuple(kv_heads[i] == 0 and not (plain and ffn[i]) for i in layers)
        if self._arch in _RECURRENT_BY_INTERVAL:
            items = self._header.numbers.get(f"{self._arch}.attention.recurrent_layers", ())
            if len(items) >= self._layers > 0:
                return tuple(item != 0 for item in items[: self._layers])
            interval = self._number("full_attention_interval", _DEFAULT_INTERVAL) or 1
            trunk = self._trunk()
            return tuple(i < trunk and (i + 1) % interval != 0 for i in layers)
        return (False,) * self._layers

    def _trunk(self) -> int:
        """Layers before those that only guess further tokens."""
        return max(0, self._layers - self._number("nextn_predict_layers"))

    def _cached(self) -> tuple[bool, ...]:
        """Layers with a cache of their own, where they have one: later ones may borrow."""
        first = self._trunk()
        if self._arch == "gemma3n":
            first = min(first, _GEMMA3N_LAYERS_WITH_CACHE)
        elif self._arch == "gemma4":
            first = min(first, self._layers - self._number("attention.shared_kv_layers"))
        return tuple(layer < first for layer in range(self._layers))

    def _state(self) -> int:
        """32-bit numbers a recurrent layer keeps per user (llama-hparams.cpp: n_embd_r and _s)."""
        width, heads = self._number("embedding_length"), self._number("attention.head_count")
        head = self._number("wkv.head_size")
        if head:
            return self._number("token_shift_count", 2) * width + width * head
        short = self._number("shortconv.l_cache")
        if short:
            return width * (short - 1)
        linear = self._number("kda.head_dim")
        if linear:
            taps = max(0, self._number("ssm.conv_kernel", 4) - 1)
            return 3 * taps * heads * linear + linear * linear * heads
        inner, state = self._number("ssm.inner_size"), self._number("ssm.state_size")
        taps = max(0, self._number("ssm.conv_kernel") - 1)
        return taps * (inner + 2 * self._number("ssm.group_count") * state) + state * inner

    def _graph(self) -> Shape:
        """What the engine's working memory depends on beside the widths."""
        keys = {
            "experts": "expert_count",
            "experts_used": "expert_used_count",
            "shared_experts": "expert_shared_count",
            "shared_ffn": "expert_shared_feed_forward_length",
            "query_rank": "attention.q_lora_rank",
            "latent_rank": "attention.kv_lora_rank",
            "latent_key": "attention.key_length_mla",
            "latent_value": "attention.value_length_mla",
            "rope_width": "rope.dimension_count",
            "inner": "ssm.inner_size",
            "inner_state": "ssm.state_size",
            "inner_taps": "ssm.conv_kernel",
            "inner_groups": "ssm.group_count",
            "inner_heads": "ssm.time_step_rank",
        }
        shape: Shape = {name: self._number(key) for name, key in keys.items()}
        shape["expert_ffn"] = max(self._per_layer("expert_feed_forward_length"), default=0)
        return {name: number for name, number in shape.items() if number}

    def _stale_bytes(self) -> int:
        """Bytes of originals that stay mapped beside their copies in another order.

        The engine gives back what lies before the first and behind the last tensor that it reads
        from the file itself (llama-model-loader.cpp: `mmap_used`, `unmap_fragment`).
        """
        repacked, read = 0, list[tuple[int, int]]()
        for tensor in self._header.tensors:
            if tensor.type in _REPACKED and tensor.name != "token_embd.weight":
                repacked += tensor.size
            else:
                read.append((tensor.offset, tensor.size))
        if not repacked or not read:
            return 0
        span = max(offset + size for offset, size in read) - min(offset for offset, _ in read)
        return max(0, min(repacked, span - sum(size for _, size in read)))

    def _sizes(self) -> Shape:
        """Bytes of the tensors: by layer (experts apart), embedding, output, and the rest."""
        layers, experts = [0] * self._layers, [0] * self._layers
        embedding = output = other = 0
        for tensor in self._header.tensors:
            match = _LAYER.match(tensor.name)
            if match is not None and int(match[1]) < self._layers:
                place = experts if "_exps." in tensor.name else layers
                place[int(match[1])] += tensor.size
            elif tensor.name == "token_embd.weight":
                embedding = tensor.size
            elif tensor.name == "output.weight":
                output = tensor.size
            else:
                other += tensor.size
        sizes: Shape = {
            "layer_bytes": tuple(layers),
            "embedding_bytes": embedding,
            "output_bytes": output,
            "other_bytes": other,
            "stale_bytes": self._stale_bytes(),
        }
        return sizes | ({"expert_bytes": tuple(experts)} if any(experts) else {})
