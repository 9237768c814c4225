"""Models made on this host from those that came with it, by a Modelfile each. Pure.

A derived model has no weights and no engine of its own: the gateway adds its words and settings to
what its base is asked, and says which of its base's adapters to use. They are kept as the texts
they were made from (`edgekit.derived/1`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from edgekit.core.appliance import Appliance, ServedModel
from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.modelfile import parse_modelfile
from edgekit.core.names import NAME_PATTERN
from edgekit.core.ollama_template import Template
from edgekit.core.strict_json import parse_strict
from edgekit.errors import FormatError

SCHEMA = "edgekit.derived/1"
UNTEMPLATED = frozenset({"tools", "thinking", "vision"})
"""What engines do by the template of the weights alone: finding calls and thoughts in an answer,
placing pictures in a prompt."""
MAX_DERIVED = 64
CARRIED_FOLDER = "modelfiles"
"""Where a set, and then a release, has the Modelfiles of its recipe, named as their models."""
MAX_BYTES = 8 << 20
"""64 texts of 64 KiB, whose characters JSON may need to escape."""


@dataclass(frozen=True, slots=True)
class DerivedModel:
    """A name, the Modelfile's text, and when it was made (Unix time)."""

    name: str
    modelfile: str
    created: int

    @property
    def digest(self) -> Digest:
        """Of the Modelfile."""
        return Digest.of(self.modelfile.encode())


def encode_derived(models: Iterable[DerivedModel]) -> bytes:
    """Readable deterministic JSON, by name."""
    rows = sorted((asdict(model) for model in models), key=lambda row: str(row["name"]))
    return json.dumps({"schema": SCHEMA, "models": rows}, indent=1).encode() + b"\n"


def parse_derived(data: bytes) -> tuple[DerivedModel, ...]:
    """Bytes of the file to models. Raises FormatError.

    Their Modelfiles are read by `derive`: one that a newer release wrote must not end this one.
    """
    fields = Fields(parse_strict(data, max_bytes=MAX_BYTES, what="derived models"))
    fields.text("schema", choices=(SCHEMA,))
    models = tuple(_derived(item) for item in fields.items("models", max_items=MAX_DERIVED))
    fields.finish()
    if len({model.name for model in models}) != len(models):
        raise FormatError("two derived models have the same name")
    return models


def _derived(fields: Fields) -> DerivedModel:
    model = DerivedModel(
        name=fields.text("name", pattern=NAME_PATTERN),
        modelfile=fields.take("modelfile", str),  # it has lines; its parser has the limits
        created=fields.integer("created", low=0, high=1 << 40),
    )
    fields.finish()
    return model


def derive(appliance: Appliance, model: DerivedModel) -> ServedModel:
    """The model as the API serves it.

    Raises FormatError for a Modelfile that cannot be read, and when its base does not serve here.
    """
    made = parse_modelfile(model.modelfile.encode(), file=model.name)
    own = {one.name: one for one in appliance.models if one.defaults is None}
    base = own.get(made.base)
    if base is None:
        raise FormatError(
            "the model that it is made from is not in this release", where=model.name,
            found=made.base, needed=", ".join(own) or "a set with a model",
        )
    if model.name in own:
        raise FormatError("the release has a model of this name", found=model.name)
    adapters = {adapter.name: adapter for adapter in base.adapters}
    if unknown := [name for name in made.adapters if name not in adapters]:
        raise FormatError(
            "no such adapter came with the model that it is made from", where=model.name,
            found=unknown[0], needed=", ".join(adapters) or f"an adapter for {base.name} in a set",
        )
    if made.template and (base.format != "gguf" or "completion" not in base.capabilities):
        raise FormatError(
            "TEMPLATE is for models that chat and that llama.cpp serves", where=model.name,
            found=f"{base.format}, {', '.join(base.capabilities)}", needed="gguf, completion",
        )
    if base.format == "safetensors" and len(made.adapters) > 1:
        raise FormatError(
            "vLLM computes a request with one adapter", where=model.name,
            found=f"{len(made.adapters)} times ADAPTER", needed="one",
        )
    used = [adapters[name] for name in made.adapters]
    return replace(
        base,
        name=model.name,
        digest=str(model.digest),
        created=model.created,
        size=base.size + sum(adapter.size for adapter in used),
        license="\n".join((base.license, *(one.license for one in used), *made.licenses)),
        capabilities=_capabilities(base, made.template),
        defaults=made,
    )


def _capabilities(base: ServedModel, template: Template | None) -> tuple[str, ...]:
    if template is None:
        return base.capabilities
    kept = [able for able in base.capabilities if able not in UNTEMPLATED]
    return (*kept, "insert") if template.inserts and "insert" not in kept else tuple(kept)


def with_derived(
    appliance: Appliance, models: Iterable[DerivedModel]
) -> tuple[Appliance, tuple[str, ...]]:
    """The appliance with these models, and why some of them cannot serve in this release."""
    found, problems = [], []
    for model in models:
        try:
            found.append(derive(appliance, model))
        except FormatError as error:
            problems.append(f"model {model.name}: {error.message} ({error.found})")
    return replace(appliance, models=(*appliance.models, *found)), tuple(problems)
