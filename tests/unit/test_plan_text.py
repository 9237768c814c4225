"""A plan as people read it."""

from __future__ import annotations

from pathlib import Path

from edgekit.cli.plan_text import render_comparison, render_plan
from edgekit.core.planning.explain import selection_table
from edgekit.core.planning.select import select_all
from tests.planning.catalogue import manifest
from tests.support.recorded_hosts import unfold


def text_for(folder: Path, host: str, users: int, *, every: bool = False) -> str:
    report = unfold(host, folder).report()
    models = [selection_table(s) for s in select_all(manifest("x86_64", users), report)]
    return render_plan({"models": models, "steps": ["copy", "start"]}, every=every)


def test_the_choice_comes_first_then_its_sum_then_the_others(tmp_path: Path) -> None:
    text = text_for(tmp_path, "gtx-1650-4g", 1)
    lines = text.splitlines()
    assert lines[1] == "  llama.cpp (source), Q8_0 partly on CUDA0"
    assert lines[2].startswith("  1 person, 16384 tokens each")
    assert "vllm (wheel), AWQ on accelerators: needs more than 8 GiB" in text
    assert text.index("total") < text.index("better, but not possible") < text.index("next, if")
    assert "--all shows them" in text
    assert lines[-2:] == ["1. copy", "2. start"]


def test_everything_is_shown_when_asked_for(tmp_path: Path) -> None:
    short = text_for(tmp_path / "a", "l40s-x2", 8)
    whole = text_for(tmp_path / "b", "l40s-x2", 8, every=True)
    assert "--all" not in whole
    assert len(whole.splitlines()) > 3 * len(short.splitlines())
    assert "BF16 on GPU 0, 1" in whole


def test_a_comparison_marks_what_differs() -> None:
    unit = {"unit": "bytes"}
    terms = [{"name": "kv cache", "planned": 1 << 20, "found": 2 << 20, "large": True, **unit},
             {"name": "compute", "planned": 5, "found": 5, "large": False, **unit}]
    table = {"generation": "g", "engines": [
        {"engine": "m", "placement": "cpu", "terms": terms},
        {"engine": "v", "placement": "cpu", "terms": [
            {"name": "cache tokens", "planned": 2176, "found": 8, "large": True,
             "unit": "tokens"}]},
        {"engine": "n", "placement": "gpu", "terms": []}]}
    lines = render_comparison(table).splitlines()
    assert [line.endswith("DIFFERS") for line in lines[4:6]] == [True, False]
    assert lines[9].split() == ["cache", "tokens", "2,176", "8", "DIFFERS"]
    assert "has reported nothing" in lines[-1]
