"""Looking into weights files on the connected side: bounded headers only, never tensor data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.gguf import read_gguf_header
from edgekit.core.names import RelPath
from edgekit.errors import WeightsError


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """What planning and the API need: architecture, number of weights, shape in elements."""

    family: str
    parameter_count: int
    shape: dict[str, int]


def read_weights_header(format_: str, files: dict[RelPath, Path]) -> WeightsHeader:
    """Check and read the header of a variant's weights.

    Raises WeightsError naming file and problem. Safetensors variants are carried as they are in
    this version; their shape is empty and llama.cpp never gets them.
    """
    if format_ != "gguf":
        return WeightsHeader("", 0, {})
    name, path = next(iter(files.items()))
    if len(files) != 1:
        raise WeightsError(
            "a GGUF variant is one file in this version",
            where=str(name),
            found=f"{len(files)} files",
        )
    with path.open("rb") as file:
        header = read_gguf_header(file, path.stat().st_size, str(name))
    return WeightsHeader(
        family=header.text("general.architecture", "unknown")[:60],
        parameter_count=header.parameter_count(),
        shape=header.shape(),
    )
