"""All generated shapes on the real engine: `python -m tests.planning` (several minutes).

Each shape is served in several ways; cache, compute buffer and peak memory are compared with the
plan. With `--write` the table goes to docs/reference/planner-measured.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.core.planning.engine_report import compare, need_terms
from tests.planning.engine import Case, Measured, measure
from tests.planning.peers import gguf_parser_cache, gpustack_total, ollama_cache, ollama_total
from tests.support.model_shapes import SHAPES

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/planner-measured.md"
MIB = 1 << 20
ROUNDING = MIB // 100
COMPUTE_PERCENT = 2.0
PEAK_PERCENT = 5.0
PEAK_WAY = (1024, 2, "f16")
WAYS = ((8192, 1, "f16"), (2048, 4, "q8_0"), (1000, 3, "f16"), PEAK_WAY)

_SAMPLED = ("gqa", "q4-weights", "gemma3-dense-last", "smallthinker-dense-first", "mixtral",
            "deepseek2-mla", "mamba2", "jamba")
SAMPLE = tuple(
    Case(shape, *WAYS[number % len(WAYS)])
    for number, shape in enumerate(s for s in SHAPES if s.name in _SAMPLED)
)

PLAIN_WAYS = ((8192, 1, "f16", 512, False), (1000, 3, "f16", 512, False))
"""Without flash attention: the scores of all heads lie in the compute buffer."""
PLAIN_SHAPES = tuple(s for s in SHAPES if s.name in (
    "gqa", "qwen3", "phi3", "gemma2", "gemma3-dense-last", "smallthinker-dense-first", "gpt-oss",
    "mixtral", "deepseek2-mla"))
PLAIN_SAMPLE = tuple(Case(s, *PLAIN_WAYS[1]) for s in PLAIN_SHAPES
                     if s.name in ("gemma2", "deepseek2-mla"))


def check(measured: Measured) -> list[str]:
    """What the plan got wrong: the cache by a byte that shows, the compute buffer by 2 percent."""
    problems = []
    for difference in compare(need_terms(measured.need), measured.buffers):
        off = abs(difference.found - difference.planned)
        allowed = ROUNDING
        if difference.name == "compute":
            allowed = max(ROUNDING, int(difference.planned * COMPUTE_PERCENT / 100))
        if off > allowed:
            problems.append(f"{difference.name}: {difference.planned} and {difference.found}")
    if not measured.found("compute"):
        problems.append("the engine reports no buffers")
    return problems


def main() -> int:
    """Run everything; 1 when a bar is missed."""
    rows, failures = [], []
    for shape in SHAPES:
        for way in WAYS:
            measured = measure(Case(shape, *way), ask=way == PEAK_WAY)
            failures += [f"{shape.name} {way}: {problem}" for problem in check(measured)]
            rows.append(measured)
            print(_row(measured), flush=True)
    for shape in PLAIN_SHAPES:
        for plain in PLAIN_WAYS:
            measured = measure(Case(shape, *plain))
            failures += [f"{shape.name} {plain}: {problem}" for problem in check(measured)]
            rows.append(measured)
            print(_row(measured), flush=True)
    peaks = [m for m in rows if _is_peak(m.case)]
    late = [m for m in peaks if abs(_peak_percent(m)) > PEAK_PERCENT]
    failures += [f"{m.case.shape.name}: peak {_peak_percent(m):+.1f} %" for m in late]
    summary = (
        f"{len(SHAPES)} shapes, {len(rows)} runs, {len(peaks)} peaks; "
        f"{len(failures)} outside the bars"
    )
    print(summary, *failures, sep="\n")
    if "--write" in sys.argv[1:]:
        PAGE.write_text(_page(rows, summary, failures), "utf-8")
    return 1 if failures else 0


def _is_peak(case: Case) -> bool:
    """Whether the most that the process held was measured with every context full."""
    return (case.context, case.slots, case.kv_type) == PEAK_WAY


def _peak_percent(measured: Measured) -> float:
    planned = measured.need.total + measured.need.cached
    return 100 * (planned / measured.peak - 1)


def _row(measured: Measured) -> str:
    case, need = measured.case, measured.need
    cache = need.of("kv cache") + need.of("state")
    found = measured.found("kv cache") + measured.found("state")
    compute, buffer = need.of("compute"), measured.found("compute")
    peak = "|"
    if _is_peak(case):
        peak = f"{measured.peak / MIB:.1f} | {_peak_percent(measured):+.1f} %"
    return (
        f"| {case.shape.name} | {case.slots} x {case.context} {case.kv_type}"
        f"{'' if case.flash else ' plain'} "
        f"| {found / MIB:.2f} | {cache / MIB:.2f} "
        f"| {ollama_cache(measured) / MIB:.2f} | {gguf_parser_cache(measured) / MIB:.2f} "
        f"| {buffer / MIB:.2f} | {100 * (compute / buffer - 1):+.2f} % | {peak} "
        f"| {100 * (ollama_total(measured) / measured.peak - 1):+.0f} % "
        f"| {100 * (gpustack_total(measured) / measured.peak - 1):+.0f} % |"
    )


def _page(rows: list[Measured], summary: str, failures: list[str]) -> str:
    head = (
        "# The planner beside the engine\n\n"
        "<!-- written by `python -m tests.planning --write` -->\n\n"
        "Generated models of many shapes, loaded by llama.cpp's own server (provider `wheel`).\n"
        "Sizes in MiB. *cache* is what the engine printed (KV and states), *edgekit*, *Ollama*\n"
        "and *gguf-parser* what the formulas say; *compute* is the engine's buffer and\n"
        "edgekit's difference; *peak* is the most the process held (VmHWM) after everybody\n"
        "filled the context twice, and edgekit's difference to it; then the differences of\n"
        "Ollama's and of GPUStack's totals to what the process held. Flash attention is on but\n"
        "in the ways that are called *plain*.\n\n"
        "The engine prints two decimals of a MiB. Rows, cells and layers are whole numbers, and\n"
        "one element more per cell would show: a cache that agrees in print agrees to the byte.\n\n"
        f"{summary}.\n\n"
        "| shape | way | cache | edgekit | Ollama | gguf-parser | compute | edgekit "
        "| peak | edgekit | Ollama | GPUStack |\n" + "| --- " * 12 + "|\n"
    )
    missed = "".join(f"* {failure}\n" for failure in failures)
    body = "\n".join(map(_row, rows)) + "\n"
    return head + body + (f"\nOutside the bars:\n\n{missed}" if missed else "")


if __name__ == "__main__":
    sys.exit(main())
