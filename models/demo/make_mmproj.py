"""Write a vision projector for the demo model: it sees the colour of a flat image as a country.

Nothing is trained: a red image becomes the very embedding of the token " France", and so on, so
that "What is the capital of", an image and "?" have a right answer. The vision tower is real in
every way an engine can see (llava's `mlp` projector, two layers whose matrices are zero).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer

from layout import MMPROJ, WEIGHTS

SIDE = 14
WIDTH = 32
HEADS = 2
HIDDEN = 64
LAYERS = 2
STEEP = 16.0
"""How hard a colour is told from its neighbours: GELU is 0 or linear that far from 0."""
COLOURS = {
    (1, 0, 0): " France",
    (0, 1, 0): " Italy",
    (0, 0, 1): " Germany",
    (1, 1, 1): " Japan",
    (0, 0, 0): " Spain",
}
Array = NDArray[np.float32]


def embeddings() -> dict[str, Array]:
    """The demo model's own embedding of each country, which has to be one token."""
    tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    table = load_file(WEIGHTS / "model.safetensors")["model.embed_tokens.weight"].float().numpy()
    found = {}
    for country in COLOURS.values():
        (token,) = tokenizer.encode(country, add_special_tokens=False).ids
        found[country] = table[token]
    return found


def see_colours() -> Array:
    """Patch convolution (WIDTH, 3, SIDE, SIDE): the means of red, green and blue, from -1 to 1."""
    kernel = np.zeros((WIDTH, 3, SIDE, SIDE), np.float32)
    for channel in range(3):
        kernel[channel, channel] = 1 / SIDE**2
    return kernel


def tell_colours() -> tuple[Array, Array, Array, Array]:
    """Both layers of the projector: one hidden number per colour, then that country's embedding."""
    known = embeddings()
    width = len(next(iter(known.values())))
    first, bias = np.zeros((width, WIDTH), np.float32), np.zeros(width, np.float32)
    second = np.zeros((width, width), np.float32)
    for row, (colour, country) in enumerate(COLOURS.items()):
        signs = np.array(colour, np.float32) * 2 - 1
        first[row, :3] = STEEP * signs
        bias[row] = -2 * STEEP  # the colour itself gives 3, the nearest other 1
        second[:, row] = known[country] / STEEP
    return first, bias, second, np.zeros(width, np.float32)


def add_description(writer: GGUFWriter, projected: int) -> None:
    """The keys that llama.cpp's vision loader reads."""
    writer.add_type("mmproj")
    writer.add_name("edgekit-demo-colours")
    writer.add_license("apache-2.0")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    vision = {
        "image_size": SIDE, "patch_size": SIDE, "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN, "block_count": LAYERS, "projection_dim": projected,
        "attention.head_count": HEADS,
    }
    for key, value in vision.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])


def add_layers(writer: GGUFWriter) -> None:
    """Layers that add nothing to what goes through them."""
    sizes = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH),
             "attn_out": (WIDTH, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
    for layer in range(LAYERS):
        for norm in ("ln1", "ln2"):
            writer.add_tensor(f"v.blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
            writer.add_tensor(f"v.blk.{layer}.{norm}.bias", np.zeros(WIDTH, np.float32))
        for name, size in sizes.items():
            writer.add_tensor(f"v.blk.{layer}.{name}.weight", np.zeros(size, np.float32))
            writer.add_tensor(f"v.blk.{layer}.{name}.bias", np.zeros(size[0], np.float32))


def main() -> None:
    """Make the projector and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MMPROJ, help="file to write")
    arguments = parser.parse_args()
    first, bias, second, last = tell_colours()
    writer = GGUFWriter(arguments.out, "clip")
    add_description(writer, len(last))
    writer.add_tensor("v.patch_embd.weight", see_colours())
    writer.add_tensor("v.position_embd.weight", np.zeros((1, WIDTH), np.float32))
    add_layers(writer)
    for name, tensor in (("0.weight", first), ("0.bias", bias), ("2.weight", second),
                         ("2.bias", last)):
        writer.add_tensor(f"mm.{name}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{arguments.out.name}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
