"""A GGUF variant's facts as llama.cpp reads them, and how it rounds cells. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from edgekit.core.adapter import AdapterShape
from edgekit.core.carried_model import CarriedVariant

CELL_STEP = 256
_REPEATS = 2

KV_TYPES = {"f16": (1, 2), "q8_0": (32, 34)}
"""Elements per block and bytes per block of the types a cache may have."""


class LlamaShape:
    """A GGUF variant's facts in the form the formulas use.

    `mixes`: the engine's build takes tokens and vectors in one batch, and keeps buffers for both.
    `adapters` are loaded beside the weights.
    """

    def __init__(
        self,
        variant: CarriedVariant,
        family: str = "",
        *,
        mixes: bool = True,
        adapters: tuple[AdapterShape, ...] = (),
    ) -> None:
        self.adapters = adapters
        self.variant = variant
        self.family = family
        self.mixes = mixes
        self._facts = dict(variant.shape)
        self.layers = self.number("layers")

    def number(self, key: str) -> int:
        """One number of the shape; 0 when the file does not say it."""
        value = self._facts.get(key, 0)
        return value if isinstance(value, int) else 0

    def numbers(self, key: str, default: int = 0) -> tuple[int, ...]:
        """One number per layer; `default` for each when the file does not say it."""
        value = self._facts.get(key)
        return value if isinstance(value, tuple) else (default,) * self.layers

    @cached_property
    def key_rows(self) -> tuple[int, ...]:
        """Elements of K that each layer keeps per token."""
        return self.numbers("key_row", self.number("kv_heads") * self.number("key_width"))

    @cached_property
    def value_rows(self) -> tuple[int, ...]:
        """Elements of V that each layer keeps per token."""
        return self.numbers("value_row", self.number("kv_heads") * self.number("value_width"))

    @cached_property
    def windowed(self) -> tuple[int, ...]:
        """1 for each layer that keeps a window only."""
        return self.numbers("windowed")

    @cached_property
    def states(self) -> tuple[int, ...]:
        """32-bit numbers that each layer keeps per user."""
        return self.numbers("state")

    @cached_property
    def layer_bytes(self) -> tuple[int, ...]:
        """Weights of each layer, experts apart; even shares when the set does not say."""
        return self.numbers("layer_bytes", self.variant.bytes // max(1, self.layers))

    @cached_property
    def expert_bytes(self) -> tuple[int, ...]:
        """Weights of each layer's experts."""
        return self.numbers("expert_bytes")

    @cached_property
    def telling_layers(self) -> tuple[int, ...]:
        """Layers in order, without those that repeat what came before; the last is always there.

        A layer after the same kind of layer changes nothing in a graph's buffer the third time.
        """
        columns = (self.windowed, self.key_rows, self.value_rows, self.states, self.expert_bytes)
        seen: Counter[tuple[object, object]] = Counter()
        kept = []
        before: object = None
        for layer in range(self.layers):
            kind = tuple(column[layer] for column in columns)
            seen[before, kind] += 1
            if seen[before, kind] <= _REPEATS or layer == self.layers - 1:
                kept.append(layer)
            before = kind
        return tuple(kept)

    def takes(self, kv_type: str) -> bool:
        """Whether every row of the cache is a whole number of blocks of this type."""
        block = KV_TYPES[kv_type][0]
        heads = max(1, self.number("kv_heads"))
        return all(row // heads % block == 0 for row in (*self.key_rows, *self.value_rows) if row)


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of the cache for each stream: of layers that see everything, and of windowed ones."""

    everything: int
    window: int
    batch: int

    @classmethod
    def of(cls, shape: LlamaShape, *, context: int, slots: int, batch: int) -> Cells:
        """As llama.cpp rounds them for `slots` streams of `context` tokens (llama-context.cpp)."""
        asked = context * slots
        batch = min(batch, asked)
        whole = _up(_up(asked, CELL_STEP) // slots, CELL_STEP)
        window = _up(min(whole, shape.number("window") + batch), CELL_STEP)
        return cls(whole, window, batch)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step
