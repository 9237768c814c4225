"""`edgekit model list|show|ps`: the models of this host, and which of them are in memory."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgekit.core.appliance import Appliance, ServedModel
from edgekit.core.derived import with_derived
from edgekit.core.host_layout import HostLayout
from edgekit.core.modelfile import render_modelfile
from edgekit.core.planning.engine_report import TOKENS
from edgekit.errors import ModelNotFoundError
from edgekit.operations.host_records import (
    load_appliance,
    local_key,
    require_generation,
)
from edgekit.system.derived_models import load_all
from edgekit.system.health import get_table


def list_models(layout: HostLayout) -> dict[str, Any]:
    """Every installed model as plain JSON values (`edgekit.models/1`). Raises NotInstalledError."""
    appliance = _installed(layout)
    return {
        "schema": "edgekit.models/1",
        "generation": appliance.generation,
        "models": [_summary(appliance, model) for model in appliance.models],
    }


def show_model(layout: HostLayout, name: str) -> dict[str, Any]:
    """One model with its plan and weights (`edgekit.model/1`).

    Raises NotInstalledError, ModelNotFoundError.
    """
    appliance = _installed(layout)
    model = find_installed(appliance, name)
    engine = appliance.engine(model.engine)
    return {
        "schema": "edgekit.model/1",
        "generation": appliance.generation,
        **_summary(appliance, model),
        "created": model.created,
        "modelfile": render_modelfile(model.defaults) if model.defaults else "",
        "adapters": [asdict(adapter) for adapter in model.adapters],
        "memory_plan": {name: size for name, size in engine.planned if name != TOKENS},
        "placement": engine.placement,
        "known_questions": len(engine.canaries),
        "weights": [asdict(weights) for weights in engine.weights],
    }


def running_models(layout: HostLayout) -> dict[str, Any]:
    """The models that are in memory now, as the API says (`edgekit.running-models/1`).

    Raises NotInstalledError, EngineNotReadyError when the API does not answer, PrivilegeError.
    """
    appliance = _installed(layout)
    told = get_table(appliance.listen, local_key(layout), "/api/ps")
    return {
        "schema": "edgekit.running-models/1",
        "models": [
            {
                "name": str(model["name"]),
                "size": int(model["size"]),
                "size_vram": int(model["size_vram"]),
                "context": int(model["context_length"]),
                "expires_at": str(model["expires_at"]),
            }
            for model in told["models"]
        ],
    }


def find_installed(appliance: Appliance, name: str) -> ServedModel:
    """The model of this name; `:latest` may be left out or added. Raises ModelNotFoundError."""
    wanted = name.removesuffix(":latest")
    for model in appliance.models:
        if model.name.removesuffix(":latest") == wanted:
            return model
    names = ", ".join(model.name for model in appliance.models)
    raise ModelNotFoundError(
        "no such model on this host", found=name, needed=names or "a set with a model",
        hint="edgekit model list",
    )


def _installed(layout: HostLayout) -> Appliance:
    """With the models that were made here; one whose base is gone is left out."""
    generation = require_generation(layout)
    appliance = load_appliance(layout, generation)
    created = max((model.created for model in appliance.models), default=0)
    found = load_all(layout.generation(generation), layout.derived_models, created)
    return with_derived(appliance, found)[0]


def _summary(appliance: Appliance, model: ServedModel) -> dict[str, Any]:
    engine = appliance.engine(model.engine)
    return {
        "name": model.name,
        "digest": model.digest,
        "size": model.size,
        "format": model.format,
        "family": model.family,
        "parameters": model.parameter_size,
        "quantization": model.quantization,
        "context": model.context,
        "slots": engine.slots,
        "engine": engine.kind,
        "memory_bytes": engine.memory,
        "on_demand": bool(engine.lease),
        "made_from": model.defaults.base if model.defaults else "",
        "capabilities": list(model.capabilities),
        "license": model.license,
    }
