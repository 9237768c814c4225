"""Sealed weights are hashed once; whatever is not sealed, or sealed otherwise, every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.appliance import WeightsFile
from edgekit.core.digest import Digest
from edgekit.errors import DigestError
from edgekit.operations.sealing import seal_weights
from edgekit.supervisor import weights as supervisor_weights
from edgekit.system import verity
from tests.gateway.conftest import make_appliance

CONTENT = b"weights" * 1000
MEASUREMENT = "sha256:" + "ab" * 32


def weights_at(path: Path) -> WeightsFile:
    path.write_bytes(CONTENT)
    return WeightsFile(str(path), str(Digest.of(CONTENT)), len(CONTENT))


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with fs-verity: this machine has none to offer."""
    monkeypatch.setattr(verity, "seal", lambda path: MEASUREMENT)
    monkeypatch.setattr(supervisor_weights, "measure", lambda path: MEASUREMENT)


def appliance_with(weights: WeightsFile):  # type: ignore[no-untyped-def]
    appliance = make_appliance(Path("/run/x"), 1, engine_socket="/run/x/s")
    engine = replace(appliance.engines[0], weights=(weights,))
    return replace(appliance, engines=(engine,))


def test_a_real_file_is_measured_only_where_the_file_system_can(tmp_path: Path) -> None:
    weights = weights_at(tmp_path / "w")
    measurement = verity.seal(tmp_path / "w")
    assert measurement in ("", verity.measure(tmp_path / "w"))
    after = seal_weights(appliance_with(weights)).engines[0].weights[0]
    assert after == replace(weights, verity=measurement)
    supervisor_weights.verify_weights([after])
    assert verity.seal(tmp_path / "none") == verity.measure(tmp_path / "none") == ""


@pytest.mark.usefixtures("sealed")
def test_sealed_weights_are_hashed_once(tmp_path: Path) -> None:
    weights = weights_at(tmp_path / "w")
    after = seal_weights(appliance_with(weights)).engines[0].weights[0]
    assert after.verity == MEASUREMENT
    (tmp_path / "w").write_bytes(b"not even read")
    supervisor_weights.verify_weights([after])


@pytest.mark.usefixtures("sealed")
def test_another_measurement_means_hashing(tmp_path: Path) -> None:
    weights = replace(weights_at(tmp_path / "w"), verity="sha256:00")
    (tmp_path / "w").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DigestError, match="not what was signed"):
        supervisor_weights.verify_weights([weights])


@pytest.mark.usefixtures("sealed")
def test_what_changed_before_it_was_sealed_is_found(tmp_path: Path) -> None:
    weights = weights_at(tmp_path / "w")
    (tmp_path / "w").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DigestError, match="changed on this host"):
        seal_weights(appliance_with(weights))
