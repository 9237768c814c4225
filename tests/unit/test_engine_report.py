"""What an engine prints about its memory, held against a plan."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.appliance import EngineSettings
from edgekit.core.planning.engine_report import (
    TOKENS,
    WEIGHTS,
    Buffer,
    compare,
    device_problem,
    parse_buffers,
    vllm_terms,
)
from edgekit.core.planning.values import MemoryNeed, MemoryTerm
from edgekit.errors import EngineError
from edgekit.supervisor.tap import Tap, check_report
from edgekit.system.engine_report import keep_report, read_report, report_path
from edgekit.system.process import spawn

MIB = 1 << 20
GIB = 1 << 30
ON_GPU = (Buffer("weights", "CUDA0", 900 * MIB), Buffer("kv cache", "CUDA0", 64 * MIB))
CACHE_ON_CPU = (Buffer("weights", "CUDA0", 900 * MIB), Buffer("kv cache", "CPU", 64 * MIB))
ON_CPU = (Buffer("weights", "CPU_Mapped", 900 * MIB), Buffer("kv cache", "CPU", 64 * MIB))
LOG = """\
0.00.027.156 I load_tensors:   CPU_Mapped model buffer size =     3.26 MiB
0.00.027.430 I llama_kv_cache:        CPU KV buffer size =     4.00 MiB
0.00.030.514 I sched_reserve:        CPU compute buffer size =     7.64 MiB
llama_context: CUDA_Host  output buffer size =     0.01 MiB
a person asked: KV buffer size = lots MiB
"""
_HEAD = "(EngineCore pid=9) INFO 11-28 23:41:24"
VLLM_LOG = f"""\
{_HEAD} [gpu_model_runner.py:5149] Model loading took 14.27 GiB memory and 3.1 seconds
{_HEAD} [kv_cache_utils.py:2327] GPU KV cache size: 8,704 tokens, Maximum concurrency for 1,024
{_HEAD} [cpu_worker.py:260] Explicitly set (0.02/10.34) GiB for KV cache on node 0.
{_HEAD} [kv_cache_utils.py:2327] CPU KV cache size: 2,176 tokens, Maximum concurrency for 1,024
"""


def settings(folder: Path, placement: str = "cpu", **planned: int) -> EngineSettings:
    terms = tuple((name.replace("_", " "), size) for name, size in planned.items())
    return EngineSettings("m", "llama.cpp", ("x",), (), str(folder / "engine.sock"), 1, 512, 20,
                          (), (), planned=terms, placement=placement)


def test_buffers_are_read_from_a_log() -> None:
    buffers = parse_buffers(LOG.splitlines())
    assert [(b.kind, b.device) for b in buffers] == [
        ("weights", "CPU_Mapped"), ("kv cache", "CPU"), ("compute", "CPU"),
        ("output", "CUDA_Host")]
    assert buffers[1].size == 4 * MIB


def test_vllm_says_its_cache_in_tokens_and_its_weights_on_an_accelerator() -> None:
    assert parse_buffers(VLLM_LOG.splitlines()) == (
        Buffer(WEIGHTS, "accelerator", round(14.27 * GIB)), Buffer(TOKENS, "GPU", 8704),
        Buffer(TOKENS, "CPU", 2176))


@pytest.mark.parametrize(
    ("tokens", "weights", "large"),
    [(8704, 14.27, []), (8703, 14.275, []), (8500, 14.2, [TOKENS]), (8704, 13.9, [WEIGHTS]),
     (9000, 14.6, [TOKENS, WEIGHTS])],
)
def test_vllm_is_held_to_tokens_and_weights(
    tokens: int, weights: float, large: list[str]
) -> None:
    planned = {"kv cache": 5, "compute": 6, TOKENS: tokens, WEIGHTS: round(weights * GIB)}
    found = compare(planned, parse_buffers(VLLM_LOG.splitlines()[:3]))
    assert [difference.name for difference in found] == [TOKENS, WEIGHTS]
    assert [difference.name for difference in found if difference.is_large] == large
    assert [difference.unit for difference in found] == ["tokens", "bytes"]


def test_of_what_was_not_foreseen_of_vllm_nothing_is_said() -> None:
    assert compare({"kv cache": 5}, parse_buffers(VLLM_LOG.splitlines()[:3])) == ()


def test_one_accelerator_says_all_of_the_weights() -> None:
    need = MemoryNeed((MemoryTerm("weights", 0, 7), MemoryTerm("kv cache", 0, 5)))
    assert vllm_terms(need, 9, 1) == {TOKENS: 9, WEIGHTS: 7}
    assert vllm_terms(need, 9, 2) == {TOKENS: 9}
    assert vllm_terms(MemoryNeed((MemoryTerm("weights", 7),)), 0, 1) == {}


@pytest.mark.parametrize(
    ("planned", "large"),
    [(64 * MIB, False), (64 * MIB + 9000, False), (63 * MIB, False), (60 * MIB, True),
     (70 * MIB, True), (0, True)],
)
def test_a_difference_above_two_percent_is_large(planned: int, large: bool) -> None:
    found = compare({"kv cache": planned}, ON_GPU)
    assert [difference.is_large for difference in found] == [large]


@pytest.mark.parametrize(
    ("placement", "buffers", "is_problem"),
    [("gpu", ON_GPU, False), ("gpu", ON_CPU, True), ("mixed", ON_CPU, True),
     ("mixed", ON_GPU + ON_CPU, False), ("cpu", ON_CPU, False), ("gpu", (), False),
     ("gpu", CACHE_ON_CPU, True), ("mixed", CACHE_ON_CPU, False),
     ("gpu", (Buffer(TOKENS, "CPU", 5),), True), ("gpu", (Buffer(TOKENS, "GPU", 5),), False),
     ("cpu", (Buffer(TOKENS, "CPU", 5),), False)],
)
def test_an_engine_that_fell_back_to_the_processor_is_found_out(
    placement: str, buffers: tuple[Buffer, ...], is_problem: bool
) -> None:
    assert (device_problem(placement, buffers) is not None) == is_problem


def test_the_report_is_kept_beside_the_socket_and_warns(tmp_path: Path) -> None:
    wrong = settings(tmp_path, kv_cache=32 * MIB)
    warnings = check_report(wrong, ON_CPU)
    assert len(warnings) == 1
    assert str(32 * MIB) in warnings[0]
    assert str(64 * MIB) in warnings[0]
    assert report_path(Path(wrong.socket)).is_file()
    assert check_report(settings(tmp_path, kv_cache=64 * MIB), ON_CPU) == []
    tokens = replace(wrong, kind="vllm", planned=((TOKENS, 2000),))
    assert check_report(tokens, (Buffer(TOKENS, "CPU", 2176),)) == [
        "cache tokens: planned 2000 tokens, the engine took 2176 (+8.8 %)"]
    with pytest.raises(EngineError, match="on the processor"):
        check_report(replace(wrong, placement="gpu"), ON_CPU)


@pytest.mark.parametrize("key", ["size", "bytes"])
def test_a_report_reads_back_and_so_does_one_of_a_release_before(tmp_path: Path, key: str) -> None:
    socket = tmp_path / "engine.sock"
    keep_report(socket, ON_CPU)
    kept = report_path(socket).read_text("utf-8")
    report_path(socket).write_text(kept.replace('"size"', f'"{key}"'), "utf-8")
    assert read_report(socket) == ON_CPU


def test_an_engine_that_does_not_say_where_it_computes_is_not_vouched_for(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not say"):
        check_report(settings(tmp_path, "gpu"), ())
    assert check_report(settings(tmp_path), ()) == []
    assert check_report(replace(settings(tmp_path, "gpu"), kind="vllm"), ()) == []


def test_a_tap_passes_lines_on_and_keeps_the_sizes(
    capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    tap = Tap()
    code = f"import sys; sys.stderr.write({LOG!r}); print('last', flush=True)"
    child = spawn([sys.executable, "-c", code], env=dict(os.environ), output=tap.write)
    tap.start()
    while child.status() is None:
        pass
    tap._thread.join(10)
    assert len(tap.buffers()) == 4
    shown = capfdbinary.readouterr().err
    assert b"asked: KV buffer" in shown
    assert shown.endswith(b"last\n")
