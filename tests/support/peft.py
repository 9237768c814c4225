"""The demo's adapter as PEFT saves it: the tensors of its GGUF file under the trainer's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.core.gguf import read_gguf_header
from edgekit.core.peft_adapter import CONFIG, TENSORS
from tests.support.safetensors import safetensors, tensor

REPOSITORY = Path(__file__).parents[2]
SAILOR = REPOSITORY / "models/demo/adapter/edgekit-demo-sailor-f16.gguf"
BASE = REPOSITORY / "models/demo/weights"
_MODULES = {
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
PEFT: dict[str, Any] = {
    "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "edgekit-demo",
    "bias": "none", "corda_config": None, "eva_config": None, "exclude_modules": None,
    "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
    "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
    "loftq_config": {}, "lora_alpha": 8, "lora_bias": False, "lora_dropout": 0.0,
    "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None,
    "peft_type": "LORA", "qalora_group_size": 16, "r": 4, "rank_pattern": {}, "revision": None,
    "target_modules": sorted(name.rpartition(".")[2] for name in _MODULES.values()),
    "target_parameters": None, "task_type": "CAUSAL_LM", "trainable_token_indices": None,
    "use_dora": False, "use_qalora": False, "use_rslora": False,
}
"""As PEFT 0.17 writes it."""


def write_sailor(folder: Path) -> None:
    """Its two files, each matrix of the values that llama.cpp is given."""
    folder.mkdir(parents=True, exist_ok=True)
    with SAILOR.open("rb") as file:
        header = read_gguf_header(file, SAILOR.stat().st_size, SAILOR.name)
        table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        data = b""
        for one in header.tensors:
            _, layer, module, _, letter = one.name.split(".")
            name = f"base_model.model.model.layers.{layer}.{_MODULES[module]}"
            file.seek(header.data_offset + one.offset)
            table[f"{name}.lora_{letter[-1].upper()}.weight"] = tensor(
                len(data), len(data) + one.size, one.type, list(reversed(one.dimensions)))
            data += file.read(one.size)
    (folder / TENSORS).write_bytes(safetensors(table, data=data))
    (folder / CONFIG).write_text(json.dumps(PEFT), "utf-8")
