"""Models as the manifest describes them: their weights, what they can do, what planning reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.core.adapter import (
    MAX_ADAPTERS,
    CarriedAdapter,
    adapter_table,
    check_adapters,
    parse_adapter,
)
from edgekit.core.canaries import Canaries, canary_tables, parse_canaries
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN, RelPath
from edgekit.errors import FormatError

MAX_WEIGHTS_BYTES = 1 << 50
CAPABILITIES = ("completion", "embedding", "insert", "rerank", "thinking", "tools", "vision")
ALONE = ("embedding", "rerank")
"""A model that can do one of these can do nothing else."""
POOLINGS = ("mean", "cls", "last")
PLACEMENTS = ("cpu", "gpu", "mixed")
"""Where weights lie: the kind of host, as far as the rate of an answer goes."""
MAX_MIN_RATE = 100_000
ShapeValue = int | tuple[int, ...]
MAX_SHAPE_ITEMS = 1024


@dataclass(frozen=True, slots=True)
class CarriedVariant:
    """One variant of a model's weights, with the facts that planning needs.

    `shape` holds what the weights' own header says (layers, heads, widths, in elements; sizes in
    bytes), numbers or one number per layer, read and checked on the connected side.
    """

    format: str
    quantization: str
    files: tuple[RelPath, ...]
    bytes: int
    shape: tuple[tuple[str, ShapeValue], ...]
    mmproj: RelPath | None = None
    """The last of the files, where it is a vision projector."""

    @property
    def weights(self) -> tuple[RelPath, ...]:
        """The files without the projector."""
        return self.files[:-1] if self.mmproj else self.files


AUTO, ALWAYS, DEMAND = "auto", "always", "demand"
LOADS = (AUTO, ALWAYS, DEMAND)
"""When a model is in memory: always where all fit, always, or while somebody asks for it."""


@dataclass(frozen=True, slots=True)
class CarriedModel:
    """A model in the set; `context` is the wanted context in tokens per request.

    `capabilities` are Ollama's words for what it can do, and `rerank`; see `ALONE`.
    `pooling` is empty where the weights themselves say it. `min_tokens_per_second` is what
    a host must reach, by where its plan lays the weights (`PLACEMENTS`).
    """

    name: str
    context: int
    license: str
    family: str
    parameter_count: int
    variants: tuple[CarriedVariant, ...]
    canaries: Canaries
    capabilities: tuple[str, ...] = ("completion",)
    pooling: str = ""
    load: str = AUTO
    adapters: tuple[CarriedAdapter, ...] = ()
    min_tokens_per_second: tuple[tuple[str, int], ...] = ()

    @property
    def files(self) -> tuple[RelPath, ...]:
        """Every file of weights: all variants' and all adapters'."""
        files = [path for variant in self.variants for path in variant.files]
        return (*files, *(path for adapter in self.adapters for path in adapter.files))

    def fitting(self, variant: CarriedVariant) -> tuple[CarriedAdapter, ...]:
        """The adapters that go with a variant, in the order in which its engine has them."""
        return tuple(adapter for adapter in self.adapters if adapter.format == variant.format)


SHAPE_KEYS = frozenset(
    (
        "layers",
        "width",
        "ffn",
        "heads",
        "kv_heads",
        "key_width",
        "value_width",
        "context",
        "vocabulary",
    )
)
"""What planning reads of a GGUF variant's shape."""
INFILL_KEYS = ("infill_prefix", "infill_suffix", "infill_middle")
"""What else the shape of every variant has where the model can `insert`."""
VISION_KEYS = ("vision_bytes", "vision_patches", "vision_patch", "vision_width", "vision_ffn",
               "vision_tokens")
"""What else the shape of a variant with a projector has."""


def check_variants(model: CarriedModel) -> None:
    """Refuse a model whose variants do not say what planning reads. Raises FormatError."""
    check_adapters(model.name, model.adapters)
    for variant in model.variants:
        if not variant.files:
            raise FormatError("a variant has no files", found=f"model {model.name}")
        if variant.format == "gguf" and not set(dict(variant.shape)) >= SHAPE_KEYS:
            raise FormatError("a GGUF variant lacks its shape", found=f"model {model.name}")
        shape = dict(variant.shape)
        if "insert" in model.capabilities and not all(
            isinstance(shape.get(key), int) for key in INFILL_KEYS
        ):
            raise FormatError("a variant cannot insert", found=f"model {model.name}")
        if variant.mmproj is not None and (
            variant.files[-1] != variant.mmproj
            or len(variant.files) < 2
            or not all(isinstance(shape.get(key), int) for key in VISION_KEYS)
        ):
            raise FormatError("a variant cannot see", found=f"model {model.name}")
        if "vision" in model.capabilities and variant.mmproj is None:
            raise FormatError("a variant has no projector", found=f"model {model.name}")


def model_table(model: CarriedModel) -> dict[str, Any]:
    """A model as plain JSON values, for the manifest."""
    rates = model.min_tokens_per_second
    return {
        "name": model.name,
        "context": model.context,
        "license": model.license,
        "family": model.family,
        "parameter_count": model.parameter_count,
        "capabilities": list(model.capabilities),
        "pooling": model.pooling,
        **({"load": model.load} if model.load != AUTO else {}),
        "canaries": canary_tables(model.canaries),
        "variants": [
            {
                "format": v.format,
                "quantization": v.quantization,
                "bytes": v.bytes,
                "files": [str(path) for path in v.files],
                "shape": {k: n if isinstance(n, int) else list(n) for k, n in v.shape},
                **({"mmproj": str(v.mmproj)} if v.mmproj else {}),
            }
            for v in model.variants
        ],
        **({"min_tokens_per_second": dict(rates)} if rates else {}),
        **({"adapters": [adapter_table(a) for a in model.adapters]} if model.adapters else {}),
    }


def parse_model(fields: Fields) -> CarriedModel:
    """One model of a manifest. Raises FormatError."""
    model = CarriedModel(
        name=fields.text("name", pattern=NAME_PATTERN),
        context=fields.integer("context", low=1, high=1 << 24),
        license=fields.text("license", max_length=100),
        family=fields.text("family", max_length=60),
        parameter_count=fields.integer("parameter_count", low=0, high=1 << 50),
        variants=tuple(_variant(f) for f in fields.items("variants", max_items=32)),
        canaries=parse_canaries(fields),
        capabilities=_capabilities(fields),
        pooling=fields.text("pooling", choices=("", *POOLINGS)),
        load=fields.text("load", choices=LOADS, default=AUTO),
        adapters=tuple(
            parse_adapter(f) for f in fields.items("adapters", max_items=MAX_ADAPTERS, default=[])
        ),
        min_tokens_per_second=parse_min_rates(fields.table("min_tokens_per_second", {})),
    )
    fields.finish()
    return model


def parse_min_rates(fields: Fields) -> tuple[tuple[str, int], ...]:
    """Tokens per second by placement, of a manifest or a recipe. Raises FormatError."""
    rates = tuple(
        (place, fields.integer(place, low=1, high=MAX_MIN_RATE))
        for place in PLACEMENTS
        if place in fields
    )
    fields.finish()
    return rates


def _capabilities(fields: Fields) -> tuple[str, ...]:
    known = "|".join(CAPABILITIES)
    found = fields.texts("capabilities", max_items=len(CAPABILITIES), pattern=known)
    if not found or len(set(found)) != len(found):
        raise fields.fail("capabilities", "expected at least one, each once")
    if set(ALONE) & set(found) and len(found) > 1:
        raise fields.fail("capabilities", f"a model for {found[0]} can do nothing else")
    return found


def _variant(fields: Fields) -> CarriedVariant:
    shape = fields.mapping("shape", max_items=64)
    if not all(_is_shape_value(value) for value in shape.values()):
        raise fields.fail("shape", f"expected integers to 2^50, or {MAX_SHAPE_ITEMS} of them")
    projector = fields.text("mmproj", max_length=1024, default="")
    variant = CarriedVariant(
        format=fields.text("format", choices=("gguf", "safetensors")),
        quantization=fields.text("quantization", pattern=r"[A-Za-z0-9_]{2,20}"),
        files=tuple(map(RelPath, fields.texts("files", max_items=1000, max_length=1024))),
        bytes=fields.integer("bytes", low=0, high=MAX_WEIGHTS_BYTES),
        shape=tuple(
            (key, tuple(value) if isinstance(value, list) else value)
            for key, value in sorted(shape.items())
        ),
        mmproj=RelPath(projector) if projector else None,
    )
    fields.finish()
    return variant


def _is_shape_value(value: object) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return len(numbers) <= MAX_SHAPE_ITEMS and all(
        type(number) is int and 0 <= number < 1 << 50 for number in numbers
    )
