"""What of a set a host can use at all: `bundle --host` carries no more. Pure."""

from __future__ import annotations

from dataclasses import replace

from edgekit.core.carried_model import CarriedModel
from edgekit.core.cpu_levels import fitting_levels, level_of
from edgekit.core.engine_pack import EnginePack
from edgekit.core.facts import HostReport
from edgekit.core.names import RelPath
from edgekit.core.planning.devices import pack_problem, usable_devices
from edgekit.core.planning.select import select_all
from edgekit.core.planning.values import Selection
from edgekit.core.release import Manifest


def trim(manifest: Manifest, report: HostReport) -> Manifest:
    """The set without the engine packs and variants that no way to serve on this host uses.

    Entries are left as they are; `is_dropped` says which of them go. Raises what `select_all` does.
    """
    selections = select_all(manifest, report)
    engines = tuple(p for p in manifest.engines if _is_usable(p, report, selections))
    models = tuple(_trimmed(model, selection) for model, selection in zip(
        manifest.models, selections, strict=True))
    gone = {pack.image for pack in manifest.engines} - {pack.image for pack in engines}
    images = tuple(image for image in manifest.images if image.name not in gone)
    return replace(manifest, engines=engines, models=models, images=images)


def is_dropped(
    path: RelPath, before: Manifest, after: Manifest, report: HostReport | None = None
) -> bool:
    """Whether a file belongs to a pack or variant that `trim` took away.

    With the host's report also whether it is a level of arithmetic that its processor cannot run.
    """
    if report is not None and level_of(path.parts[-1]) is not None and not fitting_levels(
        [path.parts[-1]], report.cpu.flags.value or ()
    ):
        return True
    kept = {file for model in after.models for file in model.files}
    weights = {file for model in before.models for file in model.files}
    gone = {pack.prefix for pack in before.engines} - {pack.prefix for pack in after.engines}
    return (path in weights and path not in kept) or any(
        str(path).startswith(f"{prefix}/") for prefix in gone
    )


def _is_usable(pack: EnginePack, report: HostReport, selections: tuple[Selection, ...]) -> bool:
    if any(pack == selection.pack for selection in selections):
        return True
    if pack_problem(pack, report) is not None:
        return False
    if pack.accelerator != "cpu" and not usable_devices(pack, report).devices:
        return False
    return any(
        candidate.fits and (candidate.engine, candidate.provider) == (pack.kind, pack.provider)
        for selection in selections
        for candidate in selection.candidates
    )


def _trimmed(model: CarriedModel, selection: Selection) -> CarriedModel:
    fitting = {(c.format, c.quantization) for c in selection.candidates if c.fits}
    variants = tuple(v for v in model.variants if (v.format, v.quantization) in fitting)
    variants = variants or (selection.variant,)
    formats = {variant.format for variant in variants}
    adapters = tuple(adapter for adapter in model.adapters if adapter.format in formats)
    return replace(model, variants=variants, adapters=adapters)
