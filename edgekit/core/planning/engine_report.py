"""What llama.cpp says it allocated, beside what was planned. Pure.

The engine prints one line per buffer with its size in MiB, two decimals; so a planned size is right
when it rounds to what was printed, and nothing smaller than 10,486 bytes can be told apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.planning.values import CPU, GPU, MIB, MemoryNeed

TOLERANCE_PERCENT = 2
"""A difference above this is a warning with both numbers."""
_ROUNDING = MIB // 100
_LINE = re.compile(r"(\S+) +(model|KV|RS|compute|output) buffer size = +([0-9]{1,9}\.[0-9]{2}) MiB")
_KINDS = {"model": "weights", "KV": "kv cache", "RS": "state", "compute": "compute",
          "output": "output"}
COMPARED = ("kv cache", "state", "compute", "output")
"""Weights are not compared: a mapped file is counted by its range, a repacked one twice."""
_HOST_NAMES = ("CPU", "CPU_Mapped", "CPU_REPACK", "CPU_AMX", "Host")
MAX_LOG_LINE = 2000
REPORT_SUFFIX = "-engine-report.json"
"""Follows the name of an engine's socket, without its ending: where its report is kept."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """One buffer: what it is for, the engine's name of the device, bytes as far as printed."""

    kind: str
    device: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One term, planned and found, in bytes."""

    name: str
    planned: int
    found: int

    @property
    def percent(self) -> float:
        """How much more was found than planned, in percent of what was planned."""
        if abs(self.found - self.planned) <= _ROUNDING:
            return 0.0
        return 100 * (self.found - self.planned) / self.planned if self.planned else 100.0

    @property
    def is_large(self) -> bool:
        """Whether the plan was wrong by more than is tolerated."""
        return abs(self.percent) > TOLERANCE_PERCENT


def parse_buffers(lines: Iterable[str]) -> tuple[Buffer, ...]:
    """The buffers that an engine's log names, in order; other lines are passed over."""
    found = []
    for line in lines:
        match = _LINE.search(line[:MAX_LOG_LINE])
        if match is not None:
            size = round(float(match[3]) * MIB)
            found.append(Buffer(_KINDS[match[2]], match[1], size))
    return tuple(found)


def buffers_table(buffers: tuple[Buffer, ...]) -> dict[str, Any]:
    """The report as plain JSON values, for the host's own records."""
    return {
        "schema": "edgekit.engine-report/1",
        "buffers": [{"kind": b.kind, "device": b.device, "bytes": b.bytes} for b in buffers],
    }


def need_terms(need: MemoryNeed) -> dict[str, int]:
    """The terms of a need that an engine reports, too."""
    return {name: need.of(name) for name in COMPARED if need.of(name)}


def compare(planned: Mapping[str, int], buffers: tuple[Buffer, ...]) -> tuple[Difference, ...]:
    """Every compared term that was planned or found."""
    first = _at_start(buffers)
    found = {name: sum(b.bytes for b in first if b.kind == name) for name in COMPARED}
    return tuple(
        Difference(name, planned.get(name, 0), found[name])
        for name in COMPARED
        if planned.get(name, 0) or found[name]
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
    host even when every layer is on an accelerator, the cache of those layers does not.
    """
    weights = [buffer for buffer in buffers if buffer.kind == "weights"]
    on_device = [b for b in weights if not b.device.startswith(_HOST_NAMES)]
    if placement == CPU or not weights:
        return None
    if not on_device:
        return "the weights are on the processor, planned was an accelerator"
    if placement == GPU and any(
        b.kind in ("kv cache", "state") and b.device.startswith(_HOST_NAMES) for b in buffers
    ):
        return "the cache is on the processor, planned was an accelerator for every layer"
    return None
