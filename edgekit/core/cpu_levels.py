"""Which build of llama.cpp's arithmetic a processor can run. Pure.

llama.cpp compiles its kernels once per level and itself takes the best by CPUID, which does not say
whether kernel, hypervisor and firmware let the instructions through. Here the flags that the kernel
shows decide, and the supervisor lets a child compute with the level before it is trusted. The table
is that of ggml/src/CMakeLists.txt (`ggml_add_cpu_backend_variant`), best first in the order of its
scores; a pack with a level that is not in it is refused when it is built.
"""

from __future__ import annotations

from collections.abc import Iterable

_SSE42 = ("sse4_2",)
_AVX = (*_SSE42, "avx")
_F16C = (*_AVX, "f16c")
_FMA = (*_F16C, "fma")
_AVX2 = (*_FMA, "avx2", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw")
_VBMI, _VNNI, _BF16 = "avx512vbmi", "avx512_vnni", "avx512_bf16"
_DOT = ("asimd", "asimddp")
_HALF = (*_DOT, "fphp", "asimdhp")

LEVELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sapphirerapids", (*_AVX512, _VBMI, _VNNI, _BF16, "amx_tile", "amx_int8")),
    ("zen4", (*_AVX512, _VBMI, _VNNI, _BF16)),
    ("cooperlake", (*_AVX512, _VNNI, _BF16)),
    ("icelake", (*_AVX512, _VBMI, _VNNI)),
    ("cascadelake", (*_AVX512, _VNNI)),
    ("cannonlake", (*_AVX512, _VBMI)),
    ("skylakex", _AVX512),
    ("alderlake", (*_AVX2, "avx_vnni")),
    ("haswell", _AVX2),
    ("piledriver", _FMA),
    ("ivybridge", _F16C),
    ("sandybridge", _AVX),
    ("sse42", _SSE42),
    ("x64", ()),
    ("armv9.2_2", (*_HALF, "sve", "i8mm", "sve2", "sme")),
    ("armv9.2_1", (*_HALF, "sve", "i8mm", "sme")),
    ("armv8.6_2", (*_HALF, "sve", "i8mm", "sve2")),
    ("armv8.6_1", (*_HALF, "sve", "i8mm")),
    ("armv8.2_3", (*_HALF, "sve")),
    ("armv8.2_2", _HALF),
    ("armv8.2_1", _DOT),
    ("armv8.0_1", ("asimd",)),
)
"""Name and flags as /proc/cpuinfo spells them, best first."""

FOLDER = "cpu"
"""Where a pack keeps its levels: out of the program's own folder, which llama.cpp searches."""
HELPER = "edgekit-ggml"
"""The program in a pack that computes with a level and says whether the results are right."""
PREFIX, SUFFIX = "libggml-cpu-", ".so"


def level_of(name: str) -> str | None:
    """The level that a file of this name holds; None for other files."""
    if not (name.startswith(PREFIX) and name.endswith(SUFFIX)):
        return None
    return name[len(PREFIX) : -len(SUFFIX)]


def fitting_levels(names: Iterable[str], flags: Iterable[str]) -> tuple[str, ...]:
    """Those file names whose level runs on a processor with these flags, best first."""
    shown = set(flags)
    by_level = {level_of(name): name for name in names}
    return tuple(
        by_level[level] for level, needed in LEVELS if level in by_level and shown >= set(needed)
    )
