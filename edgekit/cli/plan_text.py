"""A plan as people read it: what was chosen, its memory, and why not the others. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekit.cli.report import format_bytes

_SHOWN = 6
"""Ways that are shown before and after the chosen one unless all are asked for."""


def render_plan(table: dict[str, Any], *, every: bool) -> str:
    """The text of `edgekit plan`; with `every` each way that was looked at has its line."""
    lines: list[str] = []
    for model in table["models"]:
        lines += [*_model(model, every=every), ""]
    lines += [f"{number}. {step}" for number, step in enumerate(table["steps"], 1)]
    return "\n".join(lines)


def _model(model: dict[str, Any], *, every: bool) -> Iterator[str]:
    chosen, candidates = model["chosen"], model["candidates"]
    position = next(i for i, candidate in enumerate(candidates) if candidate["chosen"])
    yield f"model {model['model']}"
    yield f"  {_way(chosen)}"
    yield f"  {_serving(chosen)}"
    yield f"  {chosen['reason']}"
    if model.get("shared_room"):
        room = format_bytes(model["shared_room"])
        yield f"  loaded on demand: shares {room} with the other models that are"
    yield ""
    yield from _memory(chosen["need"])
    before = candidates[:position]
    after = [candidate for candidate in candidates[position + 1 :] if candidate["fits"]]
    never = [candidate for candidate in candidates[position + 1 :] if not candidate["fits"]]
    if before:
        yield ""
        yield f"  better, but not possible ({len(before)})"
        yield from _ways(before, every=every, last=True)
    if after:
        yield ""
        yield f"  next, if this does not start ({len(after)})"
        yield from _ways(after, every=every, last=False)
    if never and every:
        yield ""
        yield f"  neither ({len(never)})"
        yield from _ways(never, every=True, last=False)


def _way(candidate: dict[str, Any]) -> str:
    names = ", ".join(device["name"] for device in candidate["devices"])
    if names[:1].isdigit():
        names = f"GPU {names}"
    place = {
        "gpu": f"on {names or 'accelerators'}",
        "mixed": f"partly on {names or 'accelerators'}",
        "cpu": "on the processor",
    }[candidate["placement"]]
    return f"{candidate['engine']} ({candidate['provider']}), {candidate['quantization']} {place}"


def _serving(candidate: dict[str, Any]) -> str:
    people = "person" if candidate["slots"] == 1 else "people at once"
    text = (
        f"{candidate['slots']} {people}, {candidate['context']} tokens each, "
        f"cache {candidate['kv_type']}, {candidate['threads']} threads"
    )
    if candidate["tensor_parallel"] * candidate["pipeline_parallel"] > 1:
        text += (
            f", tensor parallel {candidate['tensor_parallel']}"
            f", pipeline parallel {candidate['pipeline_parallel']}"
        )
    if candidate["host_experts"]:
        text += f", experts of {candidate['host_experts']} layers in the host's memory"
    return text


def _memory(need: dict[str, Any]) -> Iterator[str]:
    on_device = need["device"] > 0
    yield f"  {'memory':<10}{'host':>12}" + (f"{'accelerator':>14}" if on_device else "")
    for term in [*need["terms"], {"name": "total", **need}]:
        if term["name"] == "total":
            yield "  " + "-" * (36 if on_device else 22)
        line = f"  {term['name']:<10}{format_bytes(term['host']):>12}"
        yield line + (f"{format_bytes(term['device']):>14}" if on_device else "")


def _ways(candidates: list[dict[str, Any]], *, every: bool, last: bool) -> Iterator[str]:
    lines = list(dict.fromkeys(map(_line, candidates)))
    shown = lines if every else lines[-_SHOWN:] if last else lines[:_SHOWN]
    hidden = len(lines) - len(shown)
    if hidden and last:
        yield f"    ... {hidden} more, --all shows them"
    yield from (f"    {line}" for line in shown)
    if hidden and not last:
        yield f"    ... {hidden} more, --all shows them"


def _line(candidate: dict[str, Any]) -> str:
    """One way in one line; where a rule decided, people and context do not matter."""
    reason = candidate["reason"].removeprefix("fits: ").removeprefix("does not fit: ")
    if candidate["need"] is None:
        return f"{_way(candidate)}: {reason}"
    way = f"{candidate['slots']} x {candidate['context']} {candidate['kv_type']}"
    return f"{_way(candidate)}, {way}: {reason}"


def render_comparison(table: dict[str, Any]) -> str:
    """The text of `edgekit plan --compare`."""
    lines = [f"generation {table['generation']}"]
    for engine in table["engines"]:
        lines += ["", f"engine {engine['engine']}, planned on: {engine['placement']}"]
        if not engine["terms"]:
            lines.append("  has reported nothing: not started yet, or an engine that does not")
            continue
        lines.append(f"  {'memory':<12}{'planned':>12}{'taken':>12}")
        for term in engine["terms"]:
            planned, found = (_amount(term[side], term["unit"]) for side in ("planned", "found"))
            differs = "   DIFFERS" if term["large"] else ""
            lines.append(f"  {term['name']:<12}{planned:>12}{found:>12}{differs}")
    return "\n".join(lines)


def _amount(size: int, unit: str) -> str:
    return format_bytes(size) if unit == "bytes" else f"{size:,}"
