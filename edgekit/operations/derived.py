"""`edgekit model create|rm`: models of this host, made from those that came in verified sets."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from edgekit.core.derived import MAX_DERIVED, DerivedModel, derive
from edgekit.core.host_layout import HostLayout
from edgekit.core.modelfile import parse_modelfile
from edgekit.core.names import NAME_PATTERN
from edgekit.errors import FormatError, ModelNotFoundError
from edgekit.operations.host_records import (
    audit_event,
    load_appliance,
    load_derived,
    require_generation,
)
from edgekit.system.derived_models import save_made_here
from edgekit.system.files import exclusive_lock
from edgekit.system.services import SystemdServices


@dataclass(frozen=True, slots=True)
class Made:
    """What became of it: whether an older one was replaced, what had no effect, and when it is in
    force (`in_force` is false below a private root, whose service reads it when it starts)."""

    name: str
    base: str
    digest: str
    replaced: bool
    ignored: tuple[str, ...]
    in_force: bool


def create_model(layout: HostLayout, name: str, data: bytes, *, file: str) -> Made:
    """Make a model, or replace one that was made here.

    Raises FormatError (the Modelfile's line, or a base that is not here), NotInstalledError,
    PrivilegeError, AuditUnavailableError, HostError when the gateway does not start again.
    """
    name = name.removesuffix(":latest")
    if not re.fullmatch(NAME_PATTERN, name):
        raise FormatError("malformed model name", found=name[:80], needed=NAME_PATTERN)
    made = parse_modelfile(data, file=file)
    with exclusive_lock(layout.lock, "this host"):
        released = load_appliance(layout, require_generation(layout))
        model = DerivedModel(name, data.decode(), int(time.time()))
        derive(released, model)
        older = load_derived(layout)
        others = tuple(one for one in older if one.name != name)
        if len(others) >= MAX_DERIVED:
            raise FormatError("there are too many models made here", needed=f"{MAX_DERIVED}")
        in_force = _replace(layout, (*others, model), "model_create", model)
    return Made(
        name, made.base, str(model.digest), len(others) < len(older), made.ignored, in_force
    )


def remove_model(layout: HostLayout, name: str) -> Made:
    """Forget a model that was made here. Raises ModelNotFoundError and what `create_model` does."""
    with exclusive_lock(layout.lock, "this host"):
        require_generation(layout)
        older = load_derived(layout)
        model = next((one for one in older if one.name == name.removesuffix(":latest")), None)
        if model is None:
            raise ModelNotFoundError(
                "no model of this name was made here", found=name,
                needed=", ".join(one.name for one in older) or "one made by model create",
                hint="edgekit model list",
            )
        left = tuple(one for one in older if one is not model)
        in_force = _replace(layout, left, "model_remove", model)
    return Made(model.name, "", str(model.digest), True, (), in_force)


def _replace(
    layout: HostLayout, models: tuple[DerivedModel, ...], kind: str, model: DerivedModel
) -> bool:
    """Record the change, write the file, restart the gateway; whether one was there."""
    audit_event(
        layout,
        {
            "type": kind,
            "model": model.name,
            "modelfile": str(model.digest),
            "actor": f"uid {os.getuid()}",
        },
    )
    save_made_here(layout.derived_models, models)
    if layout.is_private:
        return False
    SystemdServices(layout).restart_gateway()
    return True
