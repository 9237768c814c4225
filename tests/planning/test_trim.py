"""`bundle --host` carries what that host can use, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.cpu_levels import LEVELS
from edgekit.core.names import RelPath
from edgekit.core.planning.select import select_all
from edgekit.core.planning.trim import is_dropped, trim
from tests.planning.catalogue import manifest, words
from tests.support.recorded_hosts import unfold


@pytest.mark.parametrize(
    ("host", "packs", "variants"),
    [
        ("old-cpu-16g", {"llama.cpp-source-cuda"},
         {"Q8_0", "Q4_K_M", "Q2_K"}),
        ("laptop-8g", {"llama.cpp-wheel-cpu", "llama.cpp-source-cuda"}, {"Q2_K"}),
        ("rtx-4090", {"llama.cpp-source-cuda", "llama.cpp-source-vulkan", "llama.cpp-wheel-cpu",
                      "vllm-wheel-cuda"},
         {"Q8_0", "Q4_K_M", "Q2_K", "BF16", "FP8", "AWQ"}),
    ],
)
def test_packs_and_variants_that_a_host_cannot_use_stay_behind(
    tmp_path: Path, host: str, packs: set[str], variants: set[str]
) -> None:
    report = unfold(host, tmp_path).report()
    whole = manifest("x86_64", 2)
    small = trim(whole, report)
    kept = {str(pack.prefix).removeprefix("engines/") for pack in small.engines}
    assert {v.quantization for v in small.models[0].variants} == variants
    assert kept == packs
    before, after = (select_all(m, report)[0].chosen for m in (whole, small))
    assert words(before) == words(after)
    for variant in whole.models[0].variants:
        gone = is_dropped(variant.files[0], whole, small)
        assert gone == (variant.quantization not in variants)
    for pack in whole.engines:
        assert is_dropped(RelPath(f"{pack.prefix}/run"), whole, small) == (
            str(pack.prefix).removeprefix("engines/") not in kept)


@pytest.mark.parametrize(("host", "kept"), [
    ("old-cpu-16g", ["sandybridge", "sse42", "x64"]),
    ("laptop-8g", ["haswell", "piledriver", "ivybridge", "sandybridge", "sse42", "x64"]),
])
def test_levels_that_the_processor_cannot_run_stay_behind(
    tmp_path: Path, host: str, kept: list[str]
) -> None:
    report = unfold(host, tmp_path).report()
    whole = manifest("x86_64", 2)
    small = trim(whole, report)
    folder = "engines/llama.cpp-source-cuda/cpu/libggml-cpu-"
    found = [level for level, _ in LEVELS if "armv" not in level and not is_dropped(
        RelPath(f"{folder}{level}.so"), whole, small, report)]
    assert found == kept
