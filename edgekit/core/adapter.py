"""LoRA adapters, weights that change what a model's own compute.

How the manifest describes them, and how engines are asked to use them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgekit.core.canaries import Canaries, canary_tables, parse_canaries
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN, RelPath
from edgekit.errors import FormatError

FORMATS = ("gguf", "safetensors")
MAX_ADAPTERS = 16
MAX_RANKS = {"gguf": 1024, "safetensors": 512}
"""By format: of safetensors, the most that vLLM makes room for (config/lora.py MaxLoRARanks)."""
MAX_WIDTH = 1 << 24
MAX_ADAPTER_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What planning reads of an adapter: bytes of its tensors, and its greatest rank and width.

    A width is the number of outputs of a matrix that it changes.
    """

    bytes: int
    rank: int
    width: int


@dataclass(frozen=True, slots=True)
class CarriedAdapter:
    """An adapter of one model of the set. `canaries` are what the model answers with it."""

    name: str
    format: str
    license: str
    files: tuple[RelPath, ...]
    shape: AdapterShape
    canaries: Canaries = ()

    @property
    def weights(self) -> RelPath:
        """The file with the tensors; one of safetensors has a configuration beside it."""
        return next(path for path in self.files if not str(path).endswith(".json"))


def adapter_table(adapter: CarriedAdapter) -> dict[str, Any]:
    """An adapter as plain JSON values, for the manifest."""
    shape = adapter.shape
    return {
        "name": adapter.name,
        "format": adapter.format,
        "license": adapter.license,
        "files": [str(path) for path in adapter.files],
        "shape": {"bytes": shape.bytes, "rank": shape.rank, "width": shape.width},
        "canaries": canary_tables(adapter.canaries),
    }


def parse_adapter(fields: Fields) -> CarriedAdapter:
    """One adapter of a manifest. Raises FormatError."""
    format_ = fields.text("format", choices=FORMATS)
    adapter = CarriedAdapter(
        name=fields.text("name", pattern=NAME_PATTERN),
        format=format_,
        license=fields.text("license", max_length=100),
        files=tuple(map(RelPath, fields.texts("files", max_items=16, max_length=1024))),
        shape=_shape(fields.table("shape"), format_),
        canaries=parse_canaries(fields),
    )
    fields.finish()
    if not any(not str(path).endswith(".json") for path in adapter.files):
        raise fields.fail("files", "an adapter has no file of tensors")
    return adapter


def _shape(fields: Fields, format_: str) -> AdapterShape:
    shape = AdapterShape(
        bytes=fields.integer("bytes", low=1, high=MAX_ADAPTER_BYTES),
        rank=fields.integer("rank", low=1, high=MAX_RANKS[format_]),
        width=fields.integer("width", low=1, high=MAX_WIDTH),
    )
    fields.finish()
    return shape


def asked_with(numbers: Iterable[int]) -> list[dict[str, Any]]:
    """How llama.cpp is asked to use adapters, by their numbers; all others have no effect."""
    return [{"id": number, "scale": 1.0} for number in numbers]


def vllm_adapter(number: int) -> str:
    """The name by which vLLM is asked to use an adapter, in the place of a model's.

    Begins as no model's name does (NAME_PATTERN): the model beside it has none of these.
    """
    return f"_adapter-{number}"


def check_adapters(model: str, adapters: Iterable[CarriedAdapter]) -> None:
    """Refuse two adapters that could be meant by one name. Raises FormatError."""
    names = [(adapter.name, adapter.format) for adapter in adapters]
    if len(set(names)) != len(names):
        raise FormatError("a model has two adapters of one name", found=f"model {model}")
