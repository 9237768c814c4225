"""Sealing weights with fs-verity, where the file system has it, so that engines start at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.core.appliance import Appliance, EngineSettings, WeightsFile
from edgekit.core.digest import Digest
from edgekit.errors import DigestError
from edgekit.system import verity
from edgekit.system.volumes import hash_file


def seal_weights(appliance: Appliance) -> Appliance:
    """Seal every weights file, then hash it in full; the appliance with the measurements.

    Sealing comes first: what is hashed afterwards can no longer be changed. Files that cannot be
    sealed stay without a measurement and are hashed before every engine start. Raises DigestError.
    """
    engines = tuple(_sealed(engine) for engine in appliance.engines)
    return replace(appliance, engines=engines)


def _sealed(engine: EngineSettings) -> EngineSettings:
    return replace(engine, weights=tuple(_measured(weights) for weights in engine.weights))


def _measured(weights: WeightsFile) -> WeightsFile:
    measurement = verity.seal(Path(weights.path))
    if not measurement:
        return weights
    wanted = Digest.parse(weights.digest)
    found, _ = hash_file(Path(weights.path), wanted.algorithm)
    if found != wanted:
        raise DigestError(
            "a weights file changed on this host's disk",
            where=weights.path,
            found=found.short,
            needed=wanted.short,
            hint="edgekit install, from the same set, once more",
        )
    return replace(weights, verity=measurement)
