"""What an engine prints about its memory, held against a plan."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.appliance import EngineSettings
from edgekit.core.planning.engine_report import Buffer, compare, device_problem, parse_buffers
from edgekit.errors import EngineError
from edgekit.supervisor.tap import Tap, check_report
from edgekit.system.engine_report import report_path
from edgekit.system.process import spawn

MIB = 1 << 20
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


def settings(folder: Path, placement: str = "cpu", **planned: int) -> EngineSettings:
    terms = tuple((name.replace("_", " "), size) for name, size in planned.items())
    return EngineSettings("m", "llama.cpp", ("x",), (), str(folder / "engine.sock"), 1, 512, 20,
                          (), (), planned=terms, placement=placement)


def test_buffers_are_read_from_a_log() -> None:
    buffers = parse_buffers(LOG.splitlines())
    assert [(b.kind, b.device) for b in buffers] == [
        ("weights", "CPU_Mapped"), ("kv cache", "CPU"), ("compute", "CPU"),
        ("output", "CUDA_Host")]
    assert buffers[1].bytes == 4 * MIB


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
     ("gpu", CACHE_ON_CPU, True), ("mixed", CACHE_ON_CPU, False)],
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
    with pytest.raises(EngineError, match="on the processor"):
        check_report(replace(wrong, placement="gpu"), ON_CPU)


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
