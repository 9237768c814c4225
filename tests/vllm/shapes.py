"""Shapes of models whose cache vLLM cuts into blocks, and what the planner says of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.adapter import AdapterShape
from edgekit.core.carried_model import CarriedVariant
from edgekit.core.config_shape import config_shape
from edgekit.core.planning.vllm_memory import (
    CPU_BLOCK_TOKENS,
    VllmShape,
    adapter_bytes,
    block_count,
    cache_need,
    counted_tokens,
    lora_room,
)

_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1024,
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "max_position_embeddings": 4096, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "bos_token_id": 0, "eos_token_id": 1,
}


@dataclass(frozen=True)
class Case:
    """A configuration, people, tokens for each, and bytes beside a whole number of blocks."""

    name: str
    slots: int
    context: int
    extra: int
    changes: dict[str, Any] = field(default_factory=dict)
    adapters: int = 2
    rank: int = 5
    adapts_ends: bool = True
    """Whether vLLM makes room for adapters of this architecture's embedding and logits."""

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json."""
        return _LLAMA | self.changes

    @property
    def shape(self) -> VllmShape:
        """As a set describes it."""
        facts = config_shape(self.config, self.name)
        shape = VllmShape.of(CarriedVariant("safetensors", "BF16", (), 1, tuple(facts.items())))
        assert shape is not None
        return shape

    @property
    def bytes(self) -> int:
        """What the planner gives the cache, and a rest that fills no block."""
        need = cache_need(
            self.shape, context=self.context, slots=self.slots, block=CPU_BLOCK_TOKENS
        )
        return need + self.extra

    @property
    def planned(self) -> int:
        """Blocks, by the planner."""
        return block_count(self.shape, self.bytes, block=CPU_BLOCK_TOKENS)

    @property
    def counted(self) -> int:
        """Tokens that vLLM says they are, by the planner."""
        return counted_tokens(
            self.shape, self.planned, context=self.context, block=CPU_BLOCK_TOKENS
        )

    @property
    def room(self) -> int:
        """Bytes of room for its adapters, by the planner, which always counts the ends."""
        planned = adapter_bytes(self.shape, [AdapterShape(0, self.rank, 1)] * self.adapters)
        numbers = 2 * (self.shape.width + self.shape.vocabulary)
        ends = 2 * numbers * lora_room(self.rank) * self.adapters
        return planned if self.adapts_ends else planned - ends

    def write(self, folder: Path) -> None:
        """config.json and case.json."""
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(self.config), "utf-8")
        case = {"context": self.context, "slots": self.slots, "bytes": self.bytes,
                "adapters": self.adapters, "rank": lora_room(self.rank)}
        (folder / "case.json").write_text(json.dumps(case), "utf-8")


CASES = (
    Case("gqa", 2, 1024, 0),
    Case("mha", 3, 2048, 12345, {"num_key_value_heads": 4}),
    Case("mqa-7-layers", 1, 4096, 7, {"num_key_value_heads": 1, "num_hidden_layers": 7},
         adapters=1, rank=64),
    Case("wide-heads", 4, 1024, 262143, {"head_dim": 128, "hidden_size": 512}),
    Case("qwen2-odd-context", 5, 1000, 999,
         {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 3},
         adapters=3, rank=300, adapts_ends=False),
    Case("deep", 2, 512, 1, {"num_hidden_layers": 24, "hidden_size": 128, "head_dim": 32}),
)
