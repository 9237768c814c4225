"""What an engine says it allocated, beside what was planned. Pure.

llama.cpp prints one line per buffer with its size in MiB, two decimals; so a planned size is right
when it rounds to what was printed, and nothing smaller than 10,486 bytes can be told apart.

vLLM is told how many bytes its cache has and prints how many tokens it made of them; on an
accelerator, too, what loading the weights took, in GiB, two decimals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.planning.values import CPU, GIB, GPU, MIB, MemoryNeed

TOLERANCE_PERCENT = 2
"""A difference above this is a warning with both numbers."""
_LINE = re.compile(r"(\S+) +(model|KV|RS|compute|output) buffer size = +([0-9]{1,9}\.[0-9]{2}) MiB")
_KINDS = {"model": "weights", "KV": "kv cache", "RS": "state", "compute": "compute",
          "output": "output"}
_TOKENS_LINE = re.compile(r"([A-Z]{2,10})(?: \+ host)? KV cache size: ([0-9,]{1,20}) tokens")
_LOADED_LINE = re.compile(r"Model loading took ([0-9]{1,7}\.[0-9]{1,2}) GiB")
TOKENS = "cache tokens"
"""The kind whose size is a number of tokens, not of bytes."""
WEIGHTS = "weights"
COMPARED = ("kv cache", "state", "compute", "output")
"""Of llama.cpp. Weights are not: a mapped file is counted by its range, a repacked one twice."""
VLLM_COMPARED = (TOKENS, WEIGHTS)
_ROUNDING = {TOKENS: 1, WEIGHTS: GIB // 100}
"""What an engine's printing hides, where it is not a hundredth of a MiB."""
_HOST_NAMES = ("CPU", "CPU_Mapped", "CPU_REPACK", "CPU_AMX", "Host")
MAX_LOG_LINE = 2000
REPORT_SUFFIX = "-engine-report.json"
"""Follows the name of an engine's socket, without its ending: where its report is kept."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """One buffer: what it is for, the engine's name of the device, bytes as far as printed.

    Of the kind TOKENS the size is how many tokens fit into the cache.
    """

    kind: str
    device: str
    size: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One term, planned and found, in bytes, or tokens for TOKENS."""

    name: str
    planned: int
    found: int

    @property
    def unit(self) -> str:
        """What both numbers count: `bytes` or `tokens`."""
        return "tokens" if self.name == TOKENS else "bytes"

    @property
    def percent(self) -> float:
        """How much more was found than planned, in percent of what was planned."""
        if abs(self.found - self.planned) <= _ROUNDING.get(self.name, MIB // 100):
            return 0.0
        return 100 * (self.found - self.planned) / self.planned if self.planned else 100.0

    @property
    def is_large(self) -> bool:
        """Whether the plan was wrong by more than is tolerated."""
        return abs(self.percent) > TOLERANCE_PERCENT


def parse_buffers(lines: Iterable[str]) -> tuple[Buffer, ...]:
    """The buffers that an engine's log names, in order; other lines are passed over."""
    found = (_parse_line(line[:MAX_LOG_LINE]) for line in lines)
    return tuple(buffer for buffer in found if buffer is not None)


def _parse_line(line: str) -> Buffer | None:
    if match := _LINE.search(line):
        return Buffer(_KINDS[match[2]], match[1], round(float(match[3]) * MIB))
    if match := _TOKENS_LINE.search(line):
        return Buffer(TOKENS, match[1], int(match[2].replace(",", "") or 0))
    if match := _LOADED_LINE.search(line):  # by what runs models on accelerators alone
        return Buffer(WEIGHTS, "accelerator", round(float(match[1]) * GIB))
    return None


def buffers_table(buffers: tuple[Buffer, ...]) -> dict[str, Any]:
    """The report as plain JSON values, for the host's own records."""
    return {
        "schema": "edgekit.engine-report/1",
        "buffers": [{"kind": b.kind, "device": b.device, "size": b.size} for b in buffers],
    }


def need_terms(need: MemoryNeed) -> dict[str, int]:
    """The terms of a need that an engine reports, too."""
    return {name: need.of(name) for name in COMPARED if need.of(name)}


def vllm_terms(need: MemoryNeed, tokens: int, ranks: int, files: int = 0) -> dict[str, int]:
    """What vLLM is held to: tokens of its cache where they are foreseen, and, on one accelerator,
    the weights: of several, each says only its own part.

    It makes the room for adapters while it loads the weights and counts it with them. What was read
    of the adapters' own files, `files` bytes of that term, comes later.
    """
    loaded = need.of(WEIGHTS) + need.of("adapters") - files
    weights = loaded if need.device and ranks == 1 else 0
    return {name: size for name, size in ((TOKENS, tokens), (WEIGHTS, weights)) if size}


def compare(planned: Mapping[str, int], buffers: tuple[Buffer, ...]) -> tuple[Difference, ...]:
    """Every compared term that was planned or found, by the engine that reports."""
    first = _at_start(buffers)
    found: dict[str, int] = {}
    for buffer in first:
        found[buffer.kind] = found.get(buffer.kind, 0) + buffer.size
    if TOKENS in found:
        return tuple(
            Difference(name, planned[name], found[name])
            for name in VLLM_COMPARED
            if name in planned and name in found
        )
    return tuple(
        Difference(name, planned.get(name, 0), found.get(name, 0))
        for name in COMPARED
        if planned.get(name, 0) or found.get(name, 0)
    )


def _at_start(buffers: tuple[Buffer, ...]) -> list[Buffer]:
    """Without later graphs' buffers: one is made again when another adapter is asked for."""
    kept, computing = [], set()
    for buffer in buffers:
        if buffer.kind != "compute" or buffer.device not in computing:
            kept.append(buffer)
        if buffer.kind == "compute":
            computing.add(buffer.device)
    return kept


def device_problem(placement: str, buffers: tuple[Buffer, ...]) -> str | None:
    """Why weights or cache do not lie where the plan put them; None when they do.

    llama.cpp falls back to the processor in silence and keeps answering. The embedding stays on the
    host even when every layer is on an accelerator, the cache of those layers does not. vLLM says
    of its cache alone where it lies.
    """
    caches = [b for b in buffers if b.kind in ("kv cache", "state", TOKENS)]
    weights = [buffer for buffer in buffers if buffer.kind == WEIGHTS]
    on_device = [b for b in weights if not b.device.startswith(_HOST_NAMES)]
    if placement == CPU:
        return None
    if weights and not on_device:
        return "the weights are on the processor, planned was an accelerator"
    if placement == GPU and any(b.device.startswith(_HOST_NAMES) for b in caches):
        return "the cache is on the processor, planned was an accelerator for every layer"
    return None
