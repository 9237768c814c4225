"""What an installation will do, as data: `plan` prints it, `install` executes the same object.

Pure. The order of the steps is the order of the invariants I1 to I10 in bundle-v1 section 11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.core.adapter import CarriedAdapter
from edgekit.core.appliance import (
    HOST_MEMORY,
    Appliance,
    CanaryCheck,
    EngineSettings,
    ServedAdapter,
    ServedModel,
    WeightsFile,
)
from edgekit.core.carried_model import ALONE, INFILL_KEYS, ShapeValue
from edgekit.core.cpu_levels import FOLDER as LEVELS_FOLDER
from edgekit.core.cpu_levels import HELPER, fitting_levels
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.engine_unit import unit_values
from edgekit.core.environment import PlannedEnvironment, plan_environment
from edgekit.core.host_layout import HostLayout
from edgekit.core.infill import InfillTokens
from edgekit.core.launch import CONTAINER_USER, OWN_POOLING, RANKING, Start, plan_launch
from edgekit.core.planning.engine_report import need_terms, vllm_terms
from edgekit.core.planning.explain import selection_table
from edgekit.core.planning.values import CPU, MIB, Candidate, Selection
from edgekit.core.preflight import Check, checks_table
from edgekit.core.release import CarriedImage, Entry, Manifest
from edgekit.core.trust import ReleaseStatement
from edgekit.core.units import escape_argument, render_unit

TREE_ROLES = ("runtime", "engine", "license", "document")
"""Entries that become files of the generation; the others are used where the blob lies."""

ENGINE_UNIT = "edgekit-engine.service"
GPU_ENGINE_UNIT = "edgekit-engine-gpu.service"
IMAGE_ENGINE_UNIT = "edgekit-engine-image.service"
ENGINE_UNITS = (ENGINE_UNIT, GPU_ENGINE_UNIT, IMAGE_ENGINE_UNIT)
"""Templates that are rendered once per model, each under the name of its engine."""
START_TIMEOUT_S = {"llama.cpp": 300, "vllm": 900}
"""By kind of engine: vLLM imports two gigabytes of libraries, twice, before it loads anything."""
MEMORY_MARGIN_PERCENT = 25
WHEEL_GROWTH = 5
"""Installed size of wheels by their own, rounded up: 4.1 for vLLM's (docs/reference/vllm.md)."""


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """One installation: everything `install` needs to act without deciding anything.

    `missing` are the blobs to copy from the medium, `copy_bytes` their sum in bytes, `units` the
    unit files by name, `previous` the generation that serves now.
    """

    generation: str
    statement: ReleaseStatement
    layout: HostLayout
    appliance: Appliance
    selections: tuple[Selection, ...]
    tree: tuple[Entry, ...]
    blobs: tuple[Digest, ...]
    missing: tuple[Digest, ...]
    copy_bytes: int
    disk_needs: tuple[tuple[str, int], ...]
    units: tuple[tuple[str, str], ...]
    images: tuple[CarriedImage, ...]
    previous: str | None
    checks: tuple[Check, ...] = ()
    environments: tuple[PlannedEnvironment, ...] = ()

    def steps(self) -> tuple[str, ...]:
        """The plan in words, in the order it is carried out."""
        words = [
            f"copy and verify {len(self.missing)} blobs, {self.copy_bytes / MIB:.1f} MiB",
            f"build generation {self.generation}, {len(self.tree)} files",
        ]
        words += [
            f"install {len(environment.wheels)} wheels offline into {environment.prefix}"
            for environment in self.environments
        ]
        words += [f"load container image {image.reference}" for image in self.images]
        if self.units:
            words.append("link units " + ", ".join(name for name, _ in self.units))
        questions = sum(len(engine.canaries) for engine in self.appliance.engines)
        words += [
            f"switch from {self.previous or 'nothing'} to {self.generation}",
            f"start, listen on {self.appliance.listen}, and ask {questions} known questions",
            f"raise the floor to epoch {self.statement.epoch}, sequence {self.statement.sequence}",
        ]
        return tuple(words)


def plan_install(
    *,
    manifest: Manifest,
    statement: ReleaseStatement,
    selections: tuple[Selection, ...],
    layout: HostLayout,
    templates: dict[str, str],
    present: frozenset[Digest],
    listen: str,
    previous: str | None,
    links: bool = True,
    checks: tuple[Check, ...] = (),
    cpu_flags: tuple[str, ...] = (),
) -> InstallPlan:
    """Decide everything. `present` are blobs the host already holds.

    `links` is false where a generation cannot hard-link blobs, because state and releases lie on
    different file systems. `checks` are what the preflight found out before, `cpu_flags` what the
    kernel shows of the processor.
    """
    generation = statement.generation
    weights = _chosen_weights(manifest, selections)
    images = manifest.images
    tree = tuple(entry for entry in manifest.entries if entry.role in TREE_ROLES)
    wheels = [entry for chosen in selections for entry in pack_wheels(manifest, chosen.pack)]
    environments = plan_environments(manifest, selections)
    entries = (*tree, *weights, *wheels, *_image_entries(manifest))
    used = {entry.digest: entry.size for entry in entries}
    missing = tuple(sorted(digest for digest in used if digest not in present))
    appliance = _appliance(manifest, statement, selections, layout, listen, cpu_flags)
    disk_needs = _disk_needs(
        layout, used, missing, tree, _image_entries(manifest), wheels, links=links
    )
    units = (
        ()
        if layout.is_private
        else _units(appliance, selections, layout, templates)
    )
    return InstallPlan(
        generation=generation,
        statement=statement,
        layout=layout,
        appliance=appliance,
        selections=selections,
        tree=tree,
        blobs=tuple(sorted(used)),
        missing=missing,
        copy_bytes=sum(used[digest] for digest in missing),
        disk_needs=disk_needs,
        units=units,
        images=images,
        previous=previous,
        checks=checks,
        environments=environments,
    )


def pack_wheels(manifest: Manifest, pack: EnginePack) -> list[Entry]:
    """The wheels of which a host makes this pack's environment; none for most packs."""
    prefix = f"{pack.prefix}/"
    return [e for e in manifest.entries if e.role == "wheel" and str(e.path).startswith(prefix)]


def plan_environments(
    manifest: Manifest, selections: tuple[Selection, ...]
) -> tuple[PlannedEnvironment, ...]:
    """One for each chosen pack that comes as wheels."""
    packs = {chosen.pack.prefix: chosen.pack for chosen in selections}
    found = [
        plan_environment(pack.prefix, _pack_tree(manifest, pack), pack_wheels(manifest, pack))
        for _, pack in sorted(packs.items())
    ]
    return tuple(environment for environment in found if environment.wheels)


def _pack_tree(manifest: Manifest, pack: EnginePack) -> list[Entry]:
    prefix = f"{pack.prefix}/"
    return [e for e in manifest.entries if e.role == "engine" and str(e.path).startswith(prefix)]


def _chosen_weights(manifest: Manifest, selections: tuple[Selection, ...]) -> list[Entry]:
    return [manifest.entry(path) for chosen in selections for path in chosen.files]


def _image_entries(manifest: Manifest) -> list[Entry]:
    return [manifest.entry(path) for image in manifest.images for path in image.blobs]


def _disk_needs(
    layout: HostLayout,
    used: dict[Digest, int],
    missing: tuple[Digest, ...],
    tree: tuple[Entry, ...],
    images: list[Entry],
    wheels: list[Entry],
    *,
    links: bool,
) -> tuple[tuple[str, int], ...]:
    """(place, peak bytes): one copy of what is missing, and what cannot be hard-linked.

    Wheels are installed beside what they are kept as, at most WHEEL_GROWTH times as large.

    podman unpacks an image beside the archive it is given, so each takes twice its size there.
    """
    copies = sum(entry.size for entry in tree if entry.executable or not links)
    copies += WHEEL_GROWTH * sum({entry.digest: entry.size for entry in wheels}.values())
    needs = [
        (str(layout.state), sum(used[digest] for digest in missing)),
        (str(layout.opt), copies),
    ]
    if images and not layout.is_private:
        needs.append((str(layout.containers), 2 * sum(entry.size for entry in images)))
    return tuple(needs)


def _appliance(
    manifest: Manifest,
    statement: ReleaseStatement,
    selections: tuple[Selection, ...],
    layout: HostLayout,
    listen: str,
    cpu_flags: tuple[str, ...],
) -> Appliance:
    return Appliance(
        name=manifest.name,
        version=manifest.version,
        generation=statement.generation,
        listen=listen,
        audit_socket=str(layout.audit_socket()),
        models=tuple(_served_model(manifest, chosen) for chosen in selections),
        engines=tuple(
            engine_settings(manifest, chosen, layout, statement.generation, cpu_flags)
            for chosen in selections
        ),
        shared_room=max((chosen.shared_room for chosen in selections), default=0),
    )


def _served_model(manifest: Manifest, selection: Selection) -> ServedModel:
    variant, model = selection.variant, selection.model
    return ServedModel(
        name=model.name,
        engine=model.name,
        digest=str(manifest.entry(variant.files[0]).digest),
        size=variant.bytes,
        format=variant.format,
        family=model.family,
        parameter_size=format_parameters(model.parameter_count),
        quantization=variant.quantization,
        context=selection.chosen.context,
        license=model.license,
        created=manifest.created,
        capabilities=model.capabilities,
        infill=_infill(dict(variant.shape)) if "insert" in model.capabilities else None,
        adapters=tuple(
            ServedAdapter(
                adapter.name,
                str(manifest.entry(adapter.weights).digest),
                sum(manifest.entry(path).size for path in adapter.files),
                adapter.license,
            )
            for adapter in model.fitting(variant)
        ),
    )


def _pooling(task: str, pooling: str) -> str:
    return {"chat": "", "embedding": pooling or OWN_POOLING, "rerank": RANKING}[task]


def _infill(shape: Mapping[str, ShapeValue]) -> InfillTokens:
    prefix, suffix, middle = (shape[key] for key in INFILL_KEYS)
    # parsing the manifest has seen to it that they are numbers
    assert isinstance(prefix, int)
    assert isinstance(suffix, int)
    assert isinstance(middle, int)
    return InfillTokens(prefix, suffix, middle)


def engine_settings(
    manifest: Manifest,
    selection: Selection,
    layout: HostLayout,
    generation: str,
    cpu_flags: tuple[str, ...] = (),
) -> EngineSettings:
    """How one selected model is served from a generation's folder; `cpu_flags` are the kernel's."""
    model, chosen, pack = selection.model, selection.chosen, selection.pack
    adapters, projector = model.fitting(selection.variant), selection.variant.mmproj
    entries = [manifest.entry(path) for path in selection.files]
    socket = layout.engine_socket(model.name)
    folder = layout.generation(generation)
    program = folder / str(pack.program)
    levels = tuple(str(folder / path) for path in _levels(manifest, pack, cpu_flags))
    task = next((name for name in ALONE if name in model.capabilities), "chat")
    launch = plan_launch(
        pack,
        Start(
            program=str(program),
            model=model.name,
            weights=tuple(
                (path.parts[-1], str(layout.blob(manifest.entry(path).digest)))
                for path in selection.variant.weights
            ),
            mmproj=str(layout.blob(manifest.entry(projector).digest)) if projector else "",
            adapters=tuple(
                tuple(
                    (path.parts[-1], str(layout.blob(manifest.entry(path).digest)))
                    for path in adapter.files
                )
                for adapter in adapters
            ),
            adapter_rank=max((adapter.shape.rank for adapter in adapters), default=0),
            socket=str(socket),
            serving=chosen.serving,
            pooling=_pooling(task, model.pooling),
            image=next((i.pinned for i in manifest.images if i.name == pack.image), ""),
        ),
    )
    return EngineSettings(
        name=model.name,
        kind=pack.kind,
        argv=launch.argv,
        environment=launch.environment,
        socket=str(socket),
        slots=chosen.slots,
        context=chosen.context,
        start_timeout_s=START_TIMEOUT_S[pack.kind],
        weights=tuple(
            WeightsFile(str(layout.blob(entry.digest)), str(entry.digest), entry.size)
            for entry in entries
        ),
        canaries=tuple(
            CanaryCheck(model.name, prompt, answer) for prompt, answer in model.canaries
        )
        + tuple(
            CanaryCheck(model.name, prompt, answer, adapter=number)
            for number, adapter in enumerate(adapters)
            for prompt, answer in adapter.canaries
        ),
        task=task,
        planned=tuple(sorted(_reported(pack, chosen, adapters).items())),
        placement=chosen.serving.placement,
        min_tokens_per_second=dict(model.min_tokens_per_second).get(chosen.serving.placement, 0),
        claims=_claims(selection),
        lease=str(layout.lease_socket(model.name)) if selection.shared_room else "",
        levels=levels,
        helper=str(folder / str(pack.prefix) / HELPER) if levels else "",
        owner=CONTAINER_USER if pack.image else 0,
    )


def _reported(
    pack: EnginePack, chosen: Candidate, adapters: Sequence[CarriedAdapter]
) -> dict[str, int]:
    """What was planned and the engine will say something about."""
    serving = chosen.serving
    terms = need_terms(chosen.need) if chosen.need else {}
    if pack.kind == "vllm" and chosen.need:
        ranks = serving.tensor_parallel * serving.pipeline_parallel
        files = sum(adapter.shape.bytes for adapter in adapters)
        terms |= vllm_terms(chosen.need, serving.kv_cache_tokens, ranks, files)
    return terms


def _levels(manifest: Manifest, pack: EnginePack, cpu_flags: tuple[str, ...]) -> list[str]:
    """The pack's libraries of arithmetic for this processor, best first, as paths in the set."""
    folder = f"{pack.prefix}/{LEVELS_FOLDER}"
    names = [
        entry.path.parts[-1]
        for entry in manifest.entries
        if "/".join(entry.path.parts[:-1]) == folder
    ]
    return [f"{folder}/{name}" for name in fitting_levels(names, cpu_flags)]


def _claims(selection: Selection) -> tuple[tuple[str, int], ...]:
    """What this way to serve takes of the host and of each accelerator, in bytes."""
    serving = selection.chosen.serving
    devices = tuple((share.identity, share.bytes) for share in serving.devices)
    return tuple(sorted(((HOST_MEMORY, selection.host_claim), *devices)))


def _units(
    appliance: Appliance,
    selections: tuple[Selection, ...],
    layout: HostLayout,
    templates: dict[str, str],
) -> tuple[tuple[str, str], ...]:
    generation = layout.generation(appliance.generation)
    values = {
        "GENERATION": str(generation),
        "RUNTIME": str(generation / "runtime/edgekit"),
        "APPLIANCE": str(generation / "appliance.json"),
        "LISTEN": appliance.listen,
        "API_KEYS": str(layout.api_keys),
        "CONFIG": str(layout.site_config),
        "CONTROL": str(layout.gateway_control()),
        "AUDIT_SOCKET": appliance.audit_socket,
        "BLOBS": str(layout.state / "blobs"),
        "ENGINES": " ".join(f"edgekit-engine@{e.name}.service" for e in appliance.engines),
    }
    units = {
        name: render_unit(text, values) for name, text in templates.items()
        if name not in ENGINE_UNITS
    }
    for selection in selections:
        name = selection.model.name
        assert selection.chosen.need is not None
        limit = selection.chosen.need.host * (100 + MEMORY_MARGIN_PERCENT) // 100 + 64 * MIB
        units[f"edgekit-engine@{name}.service"] = render_unit(
            templates[_engine_unit(selection)],
            values
            | unit_values(selection.pack.kind)
            | {"NAME": name, "ARGUMENT": escape_argument(name), "MEMORY_MAX": str(limit)},
        )
    return tuple(sorted(units.items()))


def _engine_unit(selection: Selection) -> str:
    """Which template: what an engine may open depends on where it computes."""
    if selection.pack.image:
        return IMAGE_ENGINE_UNIT
    return ENGINE_UNIT if selection.chosen.serving.placement == CPU else GPU_ENGINE_UNIT


def format_parameters(count: int) -> str:
    """A parameter count as Ollama prints it: 3.2M, 8.0B."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)


def plan_table(plan: InstallPlan) -> dict[str, Any]:
    """The plan as plain JSON values (`edgekit.plan/1`)."""
    return {
        "schema": "edgekit.plan/1",
        "generation": plan.generation,
        "previous": plan.previous or "",
        "listen": plan.appliance.listen,
        "signers": list(plan.statement.signers),
        "policy": plan.statement.policy,
        "copy_bytes": plan.copy_bytes,
        "disk": [{"place": place, "needed_bytes": needed} for place, needed in plan.disk_needs],
        "models": [selection_table(selection) for selection in plan.selections],
        "units": [name for name, _ in plan.units],
        "checks": checks_table(plan.checks),
        "steps": list(plan.steps()),
    }
