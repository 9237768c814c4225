"""Vision projectors: what of a file is believed, and what they add to recipe, start and memory."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.gguf_mmproj import VisionShape
from edgekit.core.launch import Start, llama_server_arguments
from edgekit.core.names import RelPath
from edgekit.core.planning.values import Serving
from edgekit.core.recipe import parse_recipe
from edgekit.errors import EdgekitError, RecipeError
from edgekit.exit_codes import ExitCode
from edgekit.system.weights import WeightsHeader, check_weights
from tests.support.gguf import BOOL, F32, TEXT, U32, GgufBuilder, TensorEntry, array, value
from tests.support.hostile_models import gguf
from tests.unit.test_adapter import RECIPE

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "models/demo/gguf/edgekit-demo-q8_0.gguf"
COLOURS = REPOSITORY / "models/demo/vision/edgekit-demo-colours-f32.gguf"
TEXT_WIDTH = 64
"""Of the model in tests.support.hostile_models."""
Sizes = dict[str, tuple[int, ...]]


def floats(count: int) -> bytes:
    return array(F32, [struct.pack("<f", 0.5)] * count)


KEYS = {
    "general.architecture": value(TEXT, "clip"),
    "general.type": value(TEXT, "mmproj"),
    "clip.has_vision_encoder": value(BOOL, 1),
    "clip.projector_type": value(TEXT, "mlp"),
    "clip.use_gelu": value(BOOL, 1),
    "clip.vision.image_size": value(U32, 28),
    "clip.vision.patch_size": value(U32, 14),
    "clip.vision.embedding_length": value(U32, 8),
    "clip.vision.feed_forward_length": value(U32, 16),
    "clip.vision.block_count": value(U32, 1),
    "clip.vision.attention.head_count": value(U32, 2),
    "clip.vision.projection_dim": value(U32, 64),
    "clip.vision.attention.layer_norm_epsilon": value(F32, 1e-5),
    "clip.vision.image_mean": floats(3),
    "clip.vision.image_std": floats(3),
}


def layer(number: int) -> Sizes:
    stem = f"v.blk.{number}"
    sizes: Sizes = {}
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        sizes |= {f"{stem}.{name}.weight": (8, 8), f"{stem}.{name}.bias": (8,)}
    for name in ("ln1", "ln2"):
        sizes |= {f"{stem}.{name}.weight": (8,), f"{stem}.{name}.bias": (8,)}
    return sizes | {
        f"{stem}.ffn_up.weight": (8, 16), f"{stem}.ffn_up.bias": (16,),
        f"{stem}.ffn_down.weight": (16, 8), f"{stem}.ffn_down.bias": (8,),
    }


SIZES: Sizes = {
    "v.patch_embd.weight": (14, 14, 3, 8),
    "v.position_embd.weight": (8, 4),
    **layer(0),
    "mm.0.weight": (8, 32), "mm.0.bias": (32,), "mm.2.weight": (32, TEXT_WIDTH),
    "mm.2.bias": (TEXT_WIDTH,),
}


def projector(
    keys: dict[str, bytes] | None = None, sizes: Sizes | None = None,
    without: tuple[str, ...] = (), **builder: Any,
) -> bytes:
    """A projector that passes, with keys and sizes changed or left out."""
    table = {k: v for k, v in {**KEYS, **(keys or {})}.items() if k not in without}
    entries, offset = [], 0
    for name, dimensions in {**SIZES, **(sizes or {})}.items():
        if name in without:
            continue
        entries.append(TensorEntry(name, dimensions, 0, offset))
        offset += -(-4 * math.prod(dimensions) // 32) * 32
    given = {"tensors": entries, "data": bytes(offset), **builder}
    return GgufBuilder(keys=table, **given).file()


def checked(tmp_path: Path, data: bytes) -> WeightsHeader:
    """Through the door that `bundle` and `install` share."""
    files = {}
    for name, content in (("m.gguf", gguf()), ("p.gguf", data)):
        (tmp_path / name).write_bytes(content)
        files[RelPath(f"models/m/0-x/{name}")] = tmp_path / name
    return check_weights("gguf", files, RelPath("models/m/0-x/p.gguf"))


def test_what_fits_its_model_passes_and_the_model_can_see(tmp_path: Path) -> None:
    found = checked(tmp_path, projector())
    assert found.capabilities == ("vision",)
    tensors = 4 * sum(math.prod(size) for size in SIZES.values())
    shape = VisionShape(tensors, patches=4, patch=14, width=8, ffn=16, tokens=4)
    assert found.shape.items() >= shape.table().items()
    with_class = {"v.class_embd": (8,), "v.position_embd.weight": (8, 5)}
    assert "vision" in checked(tmp_path, projector(sizes=with_class)).capabilities
    real = check_weights("gguf", {RelPath("m.gguf"): DEMO, RelPath("c.gguf"): COLOURS},
                         RelPath("c.gguf"))
    assert (real.shape["vision_tokens"], real.capabilities) == (1, ("vision",))


def test_gemma_3_pools_patches_to_tokens(tmp_path: Path) -> None:
    keys = {"clip.projector_type": value(TEXT, "gemma3"),
            "clip.vision.projector.scale_factor": value(U32, 2)}
    sizes = {"mm.input_projection.weight": (TEXT_WIDTH, 8), "mm.soft_emb_norm.weight": (8,),
             "v.post_ln.weight": (8,), "v.post_ln.bias": (8,)}
    gone = ("mm.0.weight", "mm.0.bias", "mm.2.weight", "mm.2.bias")
    shape = checked(tmp_path, projector(keys, sizes, gone)).shape
    assert (shape["vision_patches"], shape["vision_tokens"]) == (4, 1)
    for factor in (0, 3):
        odd = {**keys, "clip.vision.projector.scale_factor": value(U32, factor)}
        with pytest.raises(EdgekitError):
            checked(tmp_path, projector(odd, sizes, gone))


HOSTILE: dict[str, bytes] = {
    "a model": gguf(),
    "another architecture": projector({"general.architecture": value(TEXT, "llama")}),
    "another type": projector({"general.type": value(TEXT, "adapter")}),
    "no vision": projector({"clip.has_vision_encoder": value(BOOL, 0)}),
    "vision that is a number": projector({"clip.has_vision_encoder": value(U32, 1)}),
    "an ear": projector({"clip.has_audio_encoder": value(BOOL, 1)}),
    "an ear's key": projector({"clip.audio.block_count": value(U32, 1)}),
    "a chat template": projector({"tokenizer.chat_template": value(TEXT, "{{ x }}")}),
    "a part of a split file": projector({"split.count": value(U32, 2)}),
    "an unknown projector": projector({"clip.projector_type": value(TEXT, "resampler")}),
    "no projector": projector(without=("clip.projector_type",)),
    "no size": projector(without=("clip.vision.image_size",)),
    "a size that is text": projector({"clip.vision.image_size": value(TEXT, "28")}),
    "a size of nothing": projector({"clip.vision.image_size": value(U32, 0)}),
    "a huge size": projector({"clip.vision.image_size": value(U32, 1 << 30)}),
    "a patch of nothing": projector({"clip.vision.patch_size": value(U32, 0)}),
    "patches that do not fill it": projector({"clip.vision.patch_size": value(U32, 13)}),
    "heads of nothing": projector({"clip.vision.attention.head_count": value(U32, 0)}),
    "heads that do not fill it": projector({"clip.vision.attention.head_count": value(U32, 3)}),
    "layers without end": projector({"clip.vision.block_count": value(U32, 1 << 31)}),
    "more layers than there are": projector({"clip.vision.block_count": value(U32, 2)}),
    "a layer beyond": projector(sizes=layer(1)),
    "two numbers for three colours": projector({"clip.vision.image_mean": floats(2)}),
    "integers for colours": projector({"clip.vision.image_std": array(U32, [b"\0\0\0\0"] * 3)}),
    "no epsilon": projector(without=("clip.vision.attention.layer_norm_epsilon",)),
    "squares": projector({"clip.vision.image_grid_pinpoints": array(U32, [b"\1\0\0\0"] * 2)}),
    "layers to look at": projector({"clip.vision.feature_layer": array(U32, [b"\x7f\0\0\0"])}),
    "no patches": projector(without=("v.patch_embd.weight",)),
    "patches of another size": projector(sizes={"v.patch_embd.weight": (7, 7, 3, 8)}),
    "patches of four colours": projector(sizes={"v.patch_embd.weight": (14, 14, 4, 8)}),
    "too few positions": projector(sizes={"v.position_embd.weight": (8, 3)}),
    "positions without the class": projector(sizes={"v.class_embd": (8,)}),
    "a class of another width": projector(
        sizes={"v.class_embd": (9,), "v.position_embd.weight": (8, 5)}),
    "a missing norm": projector(without=("v.blk.0.ln2.bias",)),
    "a matrix of another size": projector(sizes={"v.blk.0.attn_k.weight": (8, 4)}),
    "a bias of another size": projector(sizes={"v.blk.0.ffn_up.bias": (15,)}),
    "inner sizes that differ": projector(sizes={"mm.2.weight": (16, TEXT_WIDTH)}),
    "vectors of another width": projector(sizes={"mm.2.weight": (32, 128), "mm.2.bias": (128,)}),
    "no second half": projector(without=("mm.2.weight",)),
    "a flat first half": projector(sizes={"mm.0.weight": (256,)}),
    "a tensor beyond the file": projector(data=bytes(64)),
    "a count of tensors that lies": projector(tensor_count=2**62),
    "bytes behind the last tensor": projector(data=bytes(1 << 20)),
    "another magic": projector(magic=b"GGML"),
    "a pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_projectors_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(EdgekitError) as caught:
        checked(tmp_path, data)
    assert caught.value.exit_code in (ExitCode.MODEL_FORMAT, ExitCode.REFUSED_CONTENT)
    assert str(caught.value.where).startswith("models/m/0-x/p.gguf")


def test_every_cut_of_a_good_file_is_refused(tmp_path: Path) -> None:
    good = projector()
    for size in range(0, len(good), 997):
        with pytest.raises(EdgekitError):
            checked(tmp_path, good[:size])


SEEING = RECIPE.replace('files = ["m.gguf"]', 'files = ["m.gguf"]\nmmproj = "p.gguf"')


def test_a_recipe_names_it_beside_the_weights() -> None:
    (variant,) = parse_recipe(SEEING.encode(), file="r").models[0].variants
    assert list(map(str, variant.files)) == ["m.gguf", "p.gguf"]
    assert str(variant.mmproj) == "p.gguf"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('mmproj = "p.gguf"', 'mmproj = "m.gguf"', "variant[0].mmproj"),
        ('mmproj = "p.gguf"', 'mmproj = "../p.gguf"', "variant[0].mmproj"),
        ('format = "gguf"', 'format = "safetensors"', "variant[0].mmproj"),
        ('license = "Apache-2.0"', 'license = "Apache-2.0"\ntask = "embedding"', "model[0]"),
    ],
)
def test_what_a_recipe_may_not_say_of_it(old: str, new: str, key: str) -> None:
    assert old in SEEING
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SEEING.replace(old, new).encode(), file="r")
    assert key in str(caught.value.where)


def test_the_engine_opens_the_weights_and_computes_vision_on_the_processor() -> None:
    serving = Serving(1, 64, 1, 64, "f16")
    argv = llama_server_arguments(Start("p", "m", (("m", "/m"),), "/s.sock", serving, mmproj="/v"))
    assert argv[argv.index("--mmproj") + 1] == "/v"
    assert "--no-mmproj-offload" in argv
    assert argv[1] == "/m"
