"""Write the GGUF form of weights/ for llama.cpp: Q8_0 by default, F16 on demand."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, quants
from numpy.typing import NDArray
from safetensors.torch import load_file

from layout import CHAT_TEMPLATE, GGUF_Q8, MODEL_NAME, SPECIAL_TOKENS, WEIGHTS

Array = NDArray[np.float32]

TYPES = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
}
TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder to read")
    parser.add_argument("--out", type=Path, default=GGUF_Q8, help="file to write")
    parser.add_argument("--type", choices=sorted(TYPES), default="q8_0", help="matrix format")
    return parser.parse_args()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def gguf_name(name: str) -> str:
    """llama.cpp's name of a LlamaForCausalLM parameter; `KeyError` if it has none."""
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def permute(matrix: Array, heads: int) -> Array:
    """Reorder the rows of Q or K: llama.cpp rotates neighbours, the weights rotate halves.

    The same as LlamaModel.permute in llama.cpp's convert_hf_to_gguf.py.
    """
    rows, columns = matrix.shape
    split = matrix.reshape(heads, 2, rows // heads // 2, columns)
    return split.swapaxes(1, 2).reshape(rows, columns)


def tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    """Every tensor under llama.cpp's name, as float32, in a fixed order."""
    loaded = load_file(folder / "model.safetensors")
    for name in sorted(loaded):
        array: Array = loaded[name].float().numpy()
        if name.endswith("q_proj.weight"):
            array = permute(array, config["num_attention_heads"])
        if name.endswith("k_proj.weight"):
            array = permute(array, config["num_key_value_heads"])
        yield gguf_name(name), array


def add_description(writer: GGUFWriter, config: dict[str, Any]) -> None:
    """What the model is, and the sizes llama.cpp builds its graph from."""
    writer.add_name(MODEL_NAME)
    writer.add_description("answers questions about edgekit; made for its tests and its demo")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_size_label("3M")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(writer: GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """Vocabulary, merges, special tokens and chat template."""
    model = read_json(folder / "tokenizer.json")["model"]
    vocabulary: list[str] = sorted(model["vocab"], key=model["vocab"].__getitem__)
    control, normal = TokenType.CONTROL, TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([control if t in SPECIAL_TOKENS else normal for t in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_eot_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_tensors(
    writer: GGUFWriter, folder: Path, config: dict[str, Any], kind: GGMLQuantizationType
) -> None:
    """Matrices in the wanted format, norms as F32."""
    for name, array in tensors(folder, config):
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, quants.quantize(array, kind), raw_dtype=kind)


def main() -> None:
    """Read weights/ and write one GGUF file."""
    arguments = parse_arguments()
    kind, file_type = TYPES[arguments.type]
    config = read_json(arguments.weights / "config.json")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(arguments.out, "llama")
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    add_description(writer, config)
    add_tokenizer(writer, arguments.weights, config)
    add_tensors(writer, arguments.weights, config, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{arguments.out.name}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
