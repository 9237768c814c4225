"""LoRA adapters for vLLM: what of their two files is believed, how they start, what they take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.adapter import MAX_RANKS, AdapterShape, CarriedAdapter, vllm_adapter
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import plan_install
from edgekit.core.launch import Start, plan_launch
from edgekit.core.names import RelPath, is_portable_name
from edgekit.core.peft_adapter import CONFIG, TENSORS
from edgekit.core.planning.engine_report import WEIGHTS, vllm_terms
from edgekit.core.planning.select import select_all
from edgekit.core.planning.values import GPU, MemoryNeed, Serving
from edgekit.core.planning.vllm_memory import VllmShape, adapter_bytes, lora_room, vllm_need
from edgekit.core.release import Entry
from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.system.resources import read_unit_templates
from edgekit.system.weights import check_adapter
from tests.support.peft import BASE, PEFT, write_sailor
from tests.support.safetensors import safetensors
from tests.unit.test_planner import STATEMENT, HostBuilder, manifest, model

DEMO = VllmShape(4, 256, 704, 4, 2, 64, 1024, 1024, 0, 0, 1)
PAIR = "base_model.model.model.layers.0.self_attn.v_proj.lora_{}.weight"
A, B = PAIR.format("A"), PAIR.format("B")
Sizes = dict[str, tuple[int, ...]]


def tensors(sizes: Sizes, dtype: str = "F16", width: int = 2) -> bytes:
    """A file of tensors of these shapes, filled with zeros."""
    table, end = {}, 0
    for name, shape in sizes.items():
        start, end = end, end + width * _elements(shape)
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    return safetensors(table, data=bytes(end))


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


GOOD: Sizes = {A: (4, 256), B: (128, 4)}


def base_files(folder: Path = BASE) -> dict[RelPath, Path]:
    return {RelPath(path.name): path for path in folder.iterdir()}


def checked(
    folder: Path, config: Any = PEFT, sizes: Sizes | None = None, *, data: bytes | None = None,
    base: Path = BASE, **more: bytes,
) -> AdapterShape:
    """Through the door that `bundle` and `install` share, against the demo's weights."""
    (folder / CONFIG).write_text(config if isinstance(config, str) else json.dumps(config), "utf-8")
    (folder / TENSORS).write_bytes(tensors(GOOD if sizes is None else sizes) if data is None
                                   else data)
    files = {RelPath(f"a/{name}"): folder / name for name in (CONFIG, TENSORS)}
    for name, content in more.items():
        (folder / name).write_bytes(content)
        files[RelPath(f"a/{name.replace('_', '.')}")] = folder / name
    return check_adapter("safetensors", files, base_files(base))


def test_what_fits_its_model_passes_and_says_what_planning_reads(tmp_path: Path) -> None:
    assert checked(tmp_path) == AdapterShape(bytes=2 * 4 * (256 + 128), rank=4, width=128)
    write_sailor(tmp_path / "real")
    files = {RelPath(path.name): path for path in (tmp_path / "real").iterdir()}
    real = check_adapter("safetensors", files, base_files())
    assert (real.rank, real.width) == (4, 704)


@pytest.mark.parametrize(
    "changes",
    [{"peft_type": "LOHA"}, {"peft_type": None}, {"r": 0}, {"r": 4.0}, {"r": True}, {"r": "4"},
     {"r": 1024}, {"r": 8}, {"lora_alpha": 0}, {"lora_alpha": -1}, {"lora_alpha": float("inf")},
     {"lora_alpha": float("nan")}, {"lora_alpha": "8"}, {"lora_alpha": 1 << 21},
     {"bias": "all"}, {"use_dora": True}, {"lora_bias": True}, {"modules_to_save": ["lm_head"]},
     {"fan_in_fan_out": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": 1},
     {"rank_pattern": {"(a+)+b": 8}}, {"alpha_pattern": {"v_proj": 9}},
     {"layer_replication": [[0, 4]]}, {"alora_invocation_tokens": [1]}, {"use_qalora": True},
     {"auto_mapping": {"base_model_class": "X"}}, {"task_type": "SEQ_CLS"},
     {"vllm_lora_scaling_factor": 5.0}, {"something_new": 1}, {"use_rslora": "yes"},
     {"auto_map": {"AutoModel": "evil.Model"}},
     {"target_modules": None}, {"target_modules": []}, {"target_modules": ""},
     {"target_modules": ["q_proj", 5]}, {"target_modules": {"q_proj": 1}},
     {"target_modules": ["q_proj", "lm_head"]}, {"target_modules": ["model.embed_tokens"]},
     {"target_modules": "lm_head"}, {"init_lora_weights": "eva"},
     {"init_lora_weights": "lora_ga"}],
    ids=str,
)
def test_a_configuration_that_asks_for_more_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(EdgekitError) as caught:
        checked(tmp_path, PEFT | changes)
    assert caught.value.exit_code in (ExitCode.MODEL_FORMAT, ExitCode.REFUSED_CONTENT)


def test_a_configuration_without_modules_is_refused(tmp_path: Path) -> None:
    config = {key: value for key, value in PEFT.items() if key != "target_modules"}
    with pytest.raises(EdgekitError, match="target_modules"):
        checked(tmp_path, config)


@pytest.mark.parametrize("config", ["", "[]", "5", "{", '{"r":4,"r":8}', "null"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, config: str) -> None:
    with pytest.raises(EdgekitError):
        checked(tmp_path, config)


HOSTILE: dict[str, Sizes] = {
    "half a pair": {A: (4, 256)},
    "the other half": {B: (128, 4)},
    "another rank": {A: (8, 256), B: (128, 8)},
    "inner sizes that differ": {A: (4, 256), B: (128, 8)},
    "other inputs": {A: (4, 128), B: (128, 4)},
    "other outputs": {A: (4, 256), B: (256, 4)},
    "the wrong way round": {A: (256, 4), B: (4, 128)},
    "three dimensions": {A: (4, 256, 1), B: (128, 4)},
    "a tensor that the model does not have": {
        name.replace("layers.0", "layers.9"): size for name, size in GOOD.items()},
    "a vector": {name.replace("self_attn.v_proj", "input_layernorm"): size
                 for name, size in GOOD.items()},
    "no root": {name.removeprefix("base_model.model."): size for name, size in GOOD.items()},
    "whole weights": GOOD | {"base_model.model.model.layers.0.self_attn.v_proj.weight": (128, 256)},
    "an embedding": GOOD | {"base_model.model.model.embed_tokens.lora_embedding_A": (4, 1024)},
    "the embedding": {"base_model.model.model.embed_tokens.lora_A.weight": (4, 256),
                      "base_model.model.model.embed_tokens.lora_B.weight": (1024, 4)},
    "the logits": {"base_model.model.lm_head.lora_A.weight": (4, 256),
                   "base_model.model.lm_head.lora_B.weight": (1024, 4)},
    "a magnitude": GOOD | {PAIR.format("magnitude_vector"): (128,)},
    "experts": {name.replace("self_attn", "mlp.experts.0"): size for name, size in GOOD.items()},
    "a name without a stem": {".lora_A.weight": (4, 256), ".lora_B.weight": (128, 4)},
}


@pytest.mark.parametrize("sizes", HOSTILE.values(), ids=HOSTILE.keys())
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, sizes: Sizes) -> None:
    with pytest.raises(EdgekitError) as caught:
        checked(tmp_path, sizes=sizes)
    assert caught.value.exit_code == ExitCode.MODEL_FORMAT
    assert caught.value.where == f"a/{TENSORS}"


@pytest.mark.parametrize("name", ["the embedding", "the logits"])
def test_an_adapter_of_the_ends_is_refused_as_such(tmp_path: Path, name: str) -> None:
    with pytest.raises(EdgekitError, match="embedding or the logits"):
        checked(tmp_path, sizes=HOSTILE[name])


def test_an_adapter_of_experts_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="is for experts"):
        checked(tmp_path, sizes=HOSTILE["experts"])


def test_other_numbers_other_files_and_cut_ones_are_refused(tmp_path: Path) -> None:
    for dtype, width in (("F64", 8), ("I8", 1), ("F8_E4M3", 1)):
        with pytest.raises(EdgekitError, match=dtype):
            checked(tmp_path, data=tensors(GOOD, dtype, width))
    for name in ("adapter_model_bin", "new_embeddings_safetensors", "README_md"):
        with pytest.raises(EdgekitError):
            checked(tmp_path, **{name: tensors(GOOD)})
    good = tensors(GOOD)
    for size in range(0, len(good), 97):
        with pytest.raises(EdgekitError):
            checked(tmp_path, data=good[:size])


def test_a_vocabulary_that_vllm_does_not_adapt_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in BASE.iterdir():
        text = path.read_bytes()
        if path.name == "config.json":
            text = text.replace(b'"vocab_size": 1024', b'"vocab_size": 258049')
        (base / path.name).write_bytes(text)
    with pytest.raises(EdgekitError, match="vocabulary"):
        checked(tmp_path, base=base)


def test_vllm_is_told_of_all_of_them() -> None:
    pack = EnginePack("vllm", "wheel", "1", RelPath("e/v"), RelPath("e/v/python/bin/python3"))
    serving = Serving(1, 64, 1, 64, "auto", dtype="bfloat16", eager=True)
    adapters = tuple(((CONFIG, f"/{n}c"), (TENSORS, f"/{n}t")) for n in range(2))
    start = Start("/g/e/v/python/bin/python3", "m", (("config.json", "/c"),), "/s.sock", serving,
                  adapters=adapters, adapter_rank=9)
    text = " ".join(plan_launch(pack, start).argv)
    for option in (f"--adapter-file _adapter-0/{CONFIG}=/0c", "--enable-lora", "--max-loras 2",
                   f"--adapter-file _adapter-1/{TENSORS}=/1t", "--max-lora-rank 16"):
        assert option in text
    assert not any(is_portable_name(vllm_adapter(number)) for number in range(16))  # no model's
    assert text.index("--adapter-file") < text.index(" -- ") < text.index("--enable-lora")


def test_memory_has_room_for_each_of_them_in_every_layer() -> None:
    one = AdapterShape(1000, 5, 32)
    assert [lora_room(rank) for rank in (1, 2, 8, 9, 300, 512)] == [1, 8, 8, 16, 320, 512]
    assert lora_room(MAX_RANKS["safetensors"]) == MAX_RANKS["safetensors"]
    assert adapter_bytes(DEMO, ()) == 0
    # what vLLM 0.32.0 was seen to allocate: tests/vllm asks it again, for other shapes
    assert adapter_bytes(DEMO, (one, one)) == 679_936 + 2000
    without = vllm_need(DEMO, context=64, slots=1, on_device=False)
    need = vllm_need(DEMO, context=64, slots=1, on_device=False, adapters=(one,))
    assert need.host - without.host == need.of("adapters") == adapter_bytes(DEMO, (one,))
    on_device = vllm_need(DEMO, context=64, slots=1, tensor=2, adapters=(one,))
    assert on_device.of("adapters") == 2 * adapter_bytes(DEMO, (one,))


def test_the_room_is_counted_with_the_weights_that_vllm_loads() -> None:
    adapters = (AdapterShape(1000, 5, 32), AdapterShape(500, 8, 32))
    need = vllm_need(DEMO, context=64, slots=1, adapters=adapters)
    room = adapter_bytes(DEMO, tuple(AdapterShape(0, one.rank, 32) for one in adapters))
    expected = {WEIGHTS: need.of(WEIGHTS) + room}
    assert vllm_terms(need, 0, 1, 1500) == expected
    assert planned_of(need, adapters) == expected


def planned_of(need: MemoryNeed, shapes: tuple[AdapterShape, ...]) -> dict[str, int]:
    """What an installation on one accelerator holds vLLM to, of a model with these adapters."""
    carried = tuple(
        CarriedAdapter(f"a{number}", "gguf", "MIT", (RelPath(f"models/m/a{number}.gguf"),), shape)
        for number, shape in enumerate(shapes)
    )
    whole = manifest(replace(model(), adapters=carried))
    entries = (*whole.entries, *(Entry(a.files[0], "weights", 7, Digest.of(b"a")) for a in carried))
    whole = replace(whole, entries=tuple(sorted(entries, key=lambda e: str(e.path))))
    (chosen,) = select_all(whole, HostBuilder().report())
    serving = Serving(1, 64, 1, 64, "auto", GPU, dtype="bfloat16")
    pack = EnginePack("vllm", "wheel", "1", RelPath("e/v"), RelPath("e/v/python/bin/python3"))
    selection = replace(
        chosen, pack=pack, chosen=replace(chosen.chosen, serving=serving, need=need))
    made = plan_install(
        manifest=whole, statement=STATEMENT, selections=(selection,), layout=HostLayout(Path("/h")),
        templates=read_unit_templates(), present=frozenset(), listen="127.0.0.1:1", previous=None,
    )
    planned = dict(made.appliance.engines[0].planned)
    return {name: size for name, size in planned.items() if name == WEIGHTS}


def test_its_own_file_is_the_one_with_the_tensors() -> None:
    files = tuple(RelPath(f"a/{name}") for name in (CONFIG, TENSORS))
    carried = CarriedAdapter("a", "safetensors", "MIT", files, AdapterShape(1, 1, 1))
    assert carried.weights == files[1]
