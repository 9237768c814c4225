"""What a Hugging Face `config.json` says about a model's sizes, for planning vLLM's memory. Pure.

Names and defaults: transformers' PretrainedConfig and the configurations of its text models. A
multimodal model's text part is what generates, so its `text_config` counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.errors import WeightsError

MOST = 1 << 40
_NEEDED = {
    "layers": ("num_hidden_layers", "n_layer"),
    "width": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions"),
}
"""Keys of the shape, and what the configuration calls them: the first that is there."""


def config_shape(config: object, where: str) -> dict[str, int]:
    """Layers, widths and heads in elements, context and window in tokens; empty when it says less.

    `latent` is the one row that a latent attention keeps per token. Raises WeightsError for a
    number that is none or cannot be.
    """
    if not isinstance(config, dict):
        raise WeightsError("not a model's configuration", where=where, needed="a JSON object")
    inner = config.get("text_config")
    table = _Table(inner if isinstance(inner, dict) else config, where)
    found = {key: table.number(*names) for key, names in _NEEDED.items()}
    if None in found.values():
        return {}
    shape = {key: value for key, value in found.items() if value is not None}
    heads = shape["heads"]
    shape["ffn"] = table.number("intermediate_size", "n_inner") or 4 * shape["width"]
    shape["kv_heads"] = table.number("num_key_value_heads") or heads
    shape["key_width"] = table.number("head_dim") or shape["width"] // heads
    shape["value_width"] = table.number("v_head_dim") or shape["key_width"]
    latent, rope = table.number("kv_lora_rank"), table.number("qk_rope_head_dim")
    if latent is not None and rope is not None:
        shape["latent"] = latent + rope
    window = table.number("sliding_window")
    if window is not None and table.flag("use_sliding_window", default=True):
        shape["window"] = window
    return shape


class _Table:
    """Reads positive numbers, and says which is none."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = table
        self._where = where

    def number(self, *names: str) -> int | None:
        """The first of these that is there, or None; null and 0 are absent."""
        for name in names:
            value = self._table.get(name)
            if value is None:
                continue
            if type(value) is not int or not 0 <= value < MOST:
                raise WeightsError(
                    f"{name} is not a size", where=self._where, found=str(value)[:60],
                    needed=f"an integer from 0 to {MOST - 1}",
                )
            return value or None
        return None

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false, or the default."""
        value = self._table.get(name)
        if value is not None and type(value) is not bool:
            raise WeightsError(
                f"{name} is neither true nor false", where=self._where, found=str(value)[:60]
            )
        return default if value is None else value
