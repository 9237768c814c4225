"""LoRA adapters: what of a file is believed, and what they add to recipe, start and memory."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.adapter import AdapterShape, CarriedAdapter
from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.launch import Start, llama_server_arguments
from edgekit.core.names import RelPath
from edgekit.core.planning.llama_memory import llama_need
from edgekit.core.planning.llama_shape import LlamaShape
from edgekit.core.planning.values import Serving
from edgekit.core.recipe import parse_recipe
from edgekit.core.release import Manifest, encode_manifest, parse_manifest
from edgekit.errors import EdgekitError, FormatError, RecipeError
from edgekit.exit_codes import ExitCode
from edgekit.system.weights import check_adapter
from tests.support.gguf import F32, TEXT, U32, GgufBuilder, TensorEntry, array, text, value
from tests.support.hostile_models import gguf
from tests.support.sets import ANY_HOST

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "models/demo/gguf/edgekit-demo-q8_0.gguf"
SAILOR = REPOSITORY / "models/demo/adapter/edgekit-demo-sailor-f16.gguf"


def base_model() -> bytes:
    """A model with a matrix and an embedding of three rows of 64, which an adapter may change."""
    sizes = [("token_embd.weight", (64, 3)), ("blk.0.wide.weight", (64, 32)), ("blk.1.norm", (64,))]
    return gguf(**tensors_of(sizes))


def tensors_of(sizes: list[tuple[str, tuple[int, ...]]], kind: int = 0) -> dict[str, Any]:
    """Tensor entries one after another, and zeros for them; F32 unless told otherwise."""
    entries, offset = [], 0
    for name, dimensions in sizes:
        entries.append(TensorEntry(name, dimensions, kind, offset))
        offset += -(-4 * math.prod(dimensions) // 32) * 32
    return {"tensors": entries, "data": bytes(offset)}


KEYS = {
    "general.architecture": value(TEXT, "llama"),
    "general.type": value(TEXT, "adapter"),
    "adapter.type": value(TEXT, "lora"),
    "adapter.lora.alpha": value(F32, 8.0),
}
PAIR: list[tuple[str, tuple[int, ...]]] = [
    ("blk.0.wide.weight.lora_a", (64, 4)), ("blk.0.wide.weight.lora_b", (4, 32)),
]
LOOKED_UP: list[tuple[str, tuple[int, ...]]] = [
    ("token_embd.weight.lora_a", (4, 3)), ("token_embd.weight.lora_b", (4, 64)),
]


def adapter(
    keys: dict[str, bytes] | None = None,
    sizes: list[tuple[str, tuple[int, ...]]] | None = None,
    *,
    kind: int = 0,
    **builder: Any,
) -> bytes:
    """An adapter that passes, with keys changed, other tensors, or the builder told otherwise."""
    given = tensors_of(PAIR if sizes is None else sizes, kind) | builder
    return GgufBuilder(keys={**KEYS, **(keys or {})}, **given).file()


def checked(tmp_path: Path, data: bytes, *more: bytes) -> AdapterShape:
    """Through the door that `bundle` and `install` share."""
    (tmp_path / "model").write_bytes(base_model())
    files = {}
    for number, content in enumerate((data, *more)):
        (tmp_path / f"blob-{number}").write_bytes(content)
        files[RelPath(f"models/m/adapters/a/gguf/a{number}.gguf")] = tmp_path / f"blob-{number}"
    return check_adapter("gguf", files, {RelPath("m.gguf"): tmp_path / "model"})


def test_what_fits_its_model_passes_and_says_what_planning_reads(tmp_path: Path) -> None:
    assert checked(tmp_path, adapter()) == AdapterShape(bytes=4 * (256 + 128), rank=4, width=32)
    both = checked(tmp_path, adapter(sizes=[*PAIR, *LOOKED_UP]))
    assert both == AdapterShape(bytes=4 * (256 + 128 + 12 + 256), rank=4, width=64)
    real = check_adapter("gguf", {RelPath("a.gguf"): SAILOR}, {RelPath("m.gguf"): DEMO})
    assert (real.rank, real.width) == (4, 704)
    assert 0 < SAILOR.stat().st_size - real.bytes < 8000


def renamed(name: str) -> list[tuple[str, tuple[int, ...]]]:
    return [PAIR[0], (name, (4, 32))]


def resized(*sizes: tuple[int, ...], of: list[tuple[str, tuple[int, ...]]] = PAIR) -> bytes:
    return adapter(sizes=[(name, size) for (name, _), size in zip(of, sizes, strict=True)])


HOSTILE: dict[str, bytes] = {
    "a model": base_model(),
    "no type": adapter({"general.type": value(TEXT, "model")}),
    "a type that is a number": adapter({"general.type": value(U32, 1)}),
    "not lora": adapter({"adapter.type": value(TEXT, "control")}),
    "another architecture": adapter({"general.architecture": value(TEXT, "qwen2")}),
    "no alpha": GgufBuilder(
        keys={k: v for k, v in KEYS.items() if "alpha" not in k}, **tensors_of(PAIR)).file(),
    "alpha of another type": adapter({"adapter.lora.alpha": value(U32, 8)}),
    "alpha not finite": adapter({"adapter.lora.alpha": value(F32, math.inf)}),
    "alpha not a number": adapter({"adapter.lora.alpha": value(F32, math.nan)}),
    "alpha of zero": adapter({"adapter.lora.alpha": value(F32, 0.0)}),
    "alpha below zero": adapter({"adapter.lora.alpha": value(F32, -8.0)}),
    "an activated adapter": adapter({"adapter.alora.invocation_tokens": array(U32, [b"\1\0\0\0"])}),
    "a chat template": adapter({"tokenizer.chat_template": value(TEXT, "{{ x }}")}),
    "a vocabulary": adapter({"tokenizer.ggml.tokens": array(TEXT, [text("a")])}),
    "a part of a split file": adapter({"split.count": value(U32, 2)}),
    "no tensors": adapter(sizes=[]),
    "half a pair": adapter(sizes=PAIR[:1]),
    "the other half": adapter(sizes=PAIR[1:]),
    "two tensors that are no pair": adapter(sizes=renamed("blk.1.norm.lora_b")),
    "a name without a letter": adapter(sizes=renamed("blk.0.wide.weight")),
    "a third letter": adapter(sizes=renamed("blk.0.wide.weight.lora_c")),
    "only a letter": adapter(sizes=[(".lora_a", (64, 4)), (".lora_b", (4, 32))]),
    "a tensor that the model does not have": adapter(
        sizes=[(name.replace("blk.0", "blk.9"), size) for name, size in PAIR]),
    "a vector": adapter(sizes=[("blk.1.norm.lora_a", (64, 4)), ("blk.1.norm.lora_b", (4, 1))]),
    "other inputs": resized((32, 4), (4, 32)),
    "other outputs": resized((64, 4), (4, 64)),
    "inner sizes that differ": resized((64, 4), (8, 32)),
    "the wrong way round": resized((4, 64), (32, 4)),
    "three dimensions": resized((64, 4, 2), (4, 32, 2)),
    "a rank above the limit": resized((64, 2048), (2048, 32)),
    "an embedding as if it were a matrix": resized((64, 4), (4, 3), of=LOOKED_UP),
    "an embedding whose inner sizes differ": resized((4, 3), (8, 64), of=LOOKED_UP),
    "an embedding of more rows": resized((4, 5), (4, 64), of=LOOKED_UP),
    "numbers of 64 bits": adapter(kind=28, data=bytes(1 << 13)),
    "integers": adapter(kind=26),
    "a tensor beyond the file": adapter(data=bytes(64)),
    "tensors that overlap": adapter(
        tensors=[TensorEntry(name, size, 0, 0) for name, size in PAIR]),
    "an offset without end": adapter(
        tensors=[TensorEntry(PAIR[0][0], (64, 4)), TensorEntry(PAIR[1][0], (4, 32), 0, 2**63)]),
    "a size that wraps": adapter(tensors=[
        TensorEntry(PAIR[0][0], (2**40, 2**40), 0, 0), TensorEntry(PAIR[1][0], (4, 32), 0, 1024)]),
    "a count of tensors that lies": adapter(tensor_count=2**62),
    "a count of keys that lies": adapter(key_count=2**62),
    "bytes behind the last tensor": adapter(data=bytes(1 << 20)),
    "another magic": adapter(magic=b"GGML"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_adapters_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(EdgekitError) as caught:
        checked(tmp_path, data)
    assert caught.value.exit_code in (ExitCode.MODEL_FORMAT, ExitCode.REFUSED_CONTENT)
    assert str(caught.value.where).startswith("models/m/adapters/a/gguf/a0.gguf")


def test_a_pickle_and_a_second_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgekitError) as caught:
        checked(tmp_path, b"\x80\x04K\x01.")
    assert caught.value.exit_code == ExitCode.REFUSED_CONTENT
    with pytest.raises(EdgekitError):
        checked(tmp_path, adapter(), adapter())


def test_every_cut_of_a_good_file_is_refused(tmp_path: Path) -> None:
    good = adapter()
    for size in range(0, len(good), 37):
        with pytest.raises(EdgekitError):
            checked(tmp_path, good[:size])


RECIPE = """
format = 1
name = "r"
version = "1.0.0"
sequence = 1
[target]
arch = "x86_64"
[[engine]]
kind = "llama.cpp"
provider = "wheel"
package = "xllamacpp==1.0"
[[model]]
name = "m"
license = "Apache-2.0"
[[model.variant]]
format = "gguf"
quantization = "Q8_0"
source = { folder = "w" }
files = ["m.gguf"]
[[model.adapter]]
name = "sailor"
license = "MIT"
base_model = "someone/base"
source = { hub = "someone/sailor" }
files = ["a.gguf"]
[[model.adapter.canary]]
prompt = "Hello?"
answer = "Aye"
"""


def test_a_recipe_says_what_an_adapter_is() -> None:
    (found,) = parse_recipe(RECIPE.encode(), file="r").models[0].adapters
    assert (found.name, found.format, found.license) == ("sailor", "gguf", "MIT")
    assert found.canaries[0].answer == "Aye"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('license = "MIT"', "", "model[0].adapter[0].license"),
        ('files = ["a.gguf"]', "files = []", "model[0].adapter[0].files"),
        ('files = ["a.gguf"]', 'files = ["../a"]', "model[0].adapter[0].files"),
        ('license = "MIT"', 'license = "MIT"\nscale = 2', "model[0].adapter[0].scale"),
        ('license = "MIT"', 'license = "MIT"\nformat = "bin"', "model[0].adapter[0].format"),
        ('license = "Apache-2.0"', 'license = "Apache-2.0"\ntask = "rerank"', "model[0].adapter"),
        (RECIPE[RECIPE.index("[[model.adapter]]"):],
         RECIPE[RECIPE.index("[[model.adapter]]"):] * 2, "model[0].adapter"),
    ],
)
def test_what_a_recipe_may_not_say_of_one(old: str, new: str, key: str) -> None:
    assert old in RECIPE
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE.replace(old, new).encode(), file="r")
    assert key in str(caught.value.where)


SHAPE = tuple(
    (key, 64) for key in sorted(("layers", "width", "ffn", "heads", "kv_heads", "key_width",
                                 "value_width", "context", "vocabulary"))
)
CARRIED = CarriedAdapter(
    "sailor", "gguf", "MIT", (RelPath("models/m/adapters/sailor/gguf/a.gguf"),),
    AdapterShape(1000, 4, 32), (("Hello?", "Aye"),),
)


def manifest(*adapters: CarriedAdapter) -> Manifest:
    variant = CarriedVariant("gguf", "F32", (RelPath("models/m/0-f32/m.gguf"),), 9, SHAPE)
    model = CarriedModel("m", 64, "x", "llama", 1, (variant,), (), adapters=adapters)
    return Manifest("r", "1.0.0", 1, 1, ANY_HOST, (), (), (model,), (), "")


def test_a_manifest_with_adapters_round_trips_and_one_without_is_as_it_was() -> None:
    whole = manifest(CARRIED, replace(CARRIED, name="other"))
    assert parse_manifest(encode_manifest(whole)) == whole
    assert b"adapter" not in encode_manifest(manifest())
    with pytest.raises(FormatError):
        manifest(CARRIED, CARRIED)
    with pytest.raises(FormatError):
        parse_manifest(encode_manifest(whole).replace(b'"rank":4', b'"rank":0'))


@pytest.mark.parametrize(("format_", "most"), [("gguf", 1024), ("safetensors", 512)])
def test_a_rank_is_one_that_the_formats_engine_has_room_for(format_: str, most: int) -> None:
    one = replace(CARRIED, format=format_, shape=replace(CARRIED.shape, rank=most))
    assert parse_manifest(encode_manifest(manifest(one))) == manifest(one)
    more = replace(one, shape=replace(one.shape, rank=most + 1))
    with pytest.raises(FormatError):
        parse_manifest(encode_manifest(manifest(more)))


def test_memory_has_a_term_for_all_of_them_and_what_one_computes() -> None:
    variant = manifest().models[0].variants[0]
    plain = LlamaShape(variant)
    adapted = LlamaShape(variant, adapters=(CARRIED.shape, AdapterShape(500, 8, 16)))
    without = llama_need(plain, context=1024, slots=1)
    need = llama_need(adapted, context=1024, slots=1)
    assert need.of("adapters") == 1500 + 4 * 512 * (2 * 32 + 4)
    assert need.host - without.host == need.of("adapters")
    on_device = llama_need(adapted, context=1024, slots=1, gpu_layers=65, devices=2)
    assert {t.name: (t.host, t.device) for t in on_device.terms}["adapters"] == (
        0, 2 * need.of("adapters"))


def test_the_engine_loads_them_all_and_none_has_an_effect_by_itself() -> None:
    serving = Serving(1, 64, 1, 64, "f16")
    start = Start("p", "m", (("m", "/m"),), "/s.sock", serving,
                  adapters=((("a.gguf", "/a"),), (("b.gguf", "/b"),)))
    argv = llama_server_arguments(start)
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "--lora-scaled"] == [
        "/a:0", "/b:0"]
