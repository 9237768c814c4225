"""Which build of the engine's arithmetic a processor gets, and that a child tries it first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.appliance import EngineSettings
from edgekit.core.cpu_levels import LEVELS, fitting_levels
from edgekit.errors import EngineError
from edgekit.supervisor.levels import level_environment

HASWELL = ("sse4_2", "avx", "f16c", "fma", "avx2", "bmi2")
NAMES = [f"libggml-cpu-{level}.so" for level, _ in LEVELS]
SETTINGS = EngineSettings("m", "llama.cpp", ("/e",), (), "/run/e.sock", 1, 512, 60, (), ())


def levels(*flags: str) -> list[str]:
    machine = [name for name in NAMES if ("asimd" in flags) == ("armv" in name)]
    return [name[len("libggml-cpu-"):-len(".so")] for name in fitting_levels(machine, flags)]


@pytest.mark.parametrize(("flags", "best", "count"), [
    ((), "x64", 1),
    (HASWELL, "haswell", 6),
    ((*HASWELL, "avx_vnni"), "alderlake", 7),
    # AVX-512 as the processor has it, but the kernel hides one part of it
    ((*HASWELL, "avx512f", "avx512cd", "avx512vl", "avx512dq"), "haswell", 6),
    (("asimd", "asimddp", "fphp", "asimdhp"), "armv8.2_2", 3),
])
def test_flags_that_the_kernel_shows_decide(
    flags: tuple[str, ...], best: str, count: int
) -> None:
    found = levels(*flags)
    assert (found[0], len(found)) == (best, count)


def test_only_what_the_pack_has_counts() -> None:
    assert fitting_levels(["libggml-cpu-x64.so", "libggml-cuda.so", "other"], HASWELL) == (
        "libggml-cpu-x64.so",)


def helper(folder: Path, script: str) -> str:
    path = folder / "helper"
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_level_that_kills_its_child_is_passed_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = helper(tmp_path, 'case "$2" in *zen4*) kill -ILL $$;; *icelake*) exit 4;; esac')
    tried = tuple(f"/p/libggml-cpu-{level}.so" for level in ("zen4", "icelake", "haswell", "x64"))
    settings = replace(SETTINGS, levels=tried, helper=program)
    assert level_environment(settings) == {"GGML_BACKEND_PATH": "/p/libggml-cpu-haswell.so"}
    said = capfd.readouterr().err
    assert "level zen4: killed by signal 4" in said
    assert "level icelake: status 4" in said


def test_when_no_level_computes_right_the_engine_is_not_started(tmp_path: Path) -> None:
    settings = replace(SETTINGS, levels=("/p/libggml-cpu-x64.so",),
                       helper=helper(tmp_path, "echo wrong by 3 >&2; exit 4"))
    with pytest.raises(EngineError) as caught:
        level_environment(settings)
    assert "x64: wrong by 3" in str(caught.value.found)
    with pytest.raises(EngineError):
        level_environment(replace(settings, helper="/missing"))


def test_an_engine_without_levels_is_left_alone() -> None:
    assert level_environment(SETTINGS) == {}
