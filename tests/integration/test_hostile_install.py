"""A signed set with hostile weights: `install` refuses it after the copy and leaves no trace.

Who signs a set can be wrong about what is in it, so the host looks for itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgekit.core.carried_model import CarriedModel, CarriedVariant, ShapeValue
from edgekit.core.engine_pack import EnginePack
from edgekit.core.host_layout import HostLayout
from edgekit.core.names import RelPath
from edgekit.core.trust import fingerprint
from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.operations.install import InstallOptions, install
from edgekit.system.weights import check_weights
from tests.support.appliance import free_port
from tests.support.chat_templates import HOSTILE
from tests.support.gguf import TEXT, U32, TensorEntry, value
from tests.support.hostile_models import gguf, good_tensors
from tests.support.sets import RootBuilder, SetBuilder, quiet

WEIGHTS = "models/m/0-f32/m.gguf"
PACK = EnginePack("llama.cpp", "wheel", "1.0", RelPath("engines/e"), RelPath("engines/e/run"))
OTHER_SHAPE = [("layers", 1)]

CASES: dict[str, tuple[bytes, ExitCode]] = {
    "a tensor beyond the file": (
        gguf(tensors=[*good_tensors()[:2], TensorEntry("blk.1.w", (1 << 20,), 0, 800)]),
        ExitCode.MODEL_FORMAT),
    "more layers than there are": (
        gguf({"llama.block_count": value(U32, 9)}), ExitCode.MODEL_FORMAT),
    "a template that runs code": (
        gguf({"tokenizer.chat_template": value(TEXT, HOSTILE["llama drama"])}),
        ExitCode.REFUSED_CONTENT),
    "a pickle": (b"\x80\x04K\x01.", ExitCode.REFUSED_CONTENT),
}


def shape_of_good(tmp_path: Path) -> tuple[tuple[str, ShapeValue], ...]:
    path = tmp_path / "good.gguf"
    path.write_bytes(gguf())
    return tuple(sorted(check_weights("gguf", {RelPath("good.gguf"): path}).shape.items()))


def hostile_set(tmp_path: Path, weights: bytes, shape: tuple[tuple[str, ShapeValue], ...]) -> Path:
    variant = CarriedVariant("gguf", "F32", (RelPath(WEIGHTS),), len(weights), shape)
    return SetBuilder(
        entries={WEIGHTS: weights, "engines/e/run": b"#!/bin/sh\n"}, role="weights",
        engines=(PACK,),
        models=(CarriedModel("m", 64, "x", "llama", 1, (variant,), (("Hello", "x"),)),),
    ).write(tmp_path / "set")


def refused(folder: Path, root: Path) -> EdgekitError:
    layout = HostLayout(root)
    print_ = fingerprint(RootBuilder().data())
    options = InstallOptions((folder,), layout, listen=f"127.0.0.1:{free_port()}",
                             fingerprint=print_)
    with pytest.raises(EdgekitError) as caught:
        install(options, quiet)
    return caught.value


def left_behind(root: Path) -> dict[str, str]:
    """Files that matter below a root: not the audit log, the lock and the trusted root."""
    found = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
             for path in root.rglob("*") if path.is_file()}
    return {name: digest for name, digest in found.items()
            if "/audit/" not in name and "/trust/" not in name and not name.endswith("lock")}


@pytest.mark.parametrize(("weights", "code"), CASES.values(), ids=CASES.keys())
def test_hostile_weights_in_a_signed_set_are_not_installed(
    tmp_path: Path, weights: bytes, code: ExitCode
) -> None:
    root = tmp_path / "root"
    error = refused(hostile_set(tmp_path, weights, shape_of_good(tmp_path)), root)
    assert error.exit_code == code, error
    assert str(error.where).startswith(WEIGHTS)
    assert left_behind(root) == {}


def test_a_manifest_that_lies_about_the_shape_is_not_installed(tmp_path: Path) -> None:
    shape = tuple(sorted((dict(shape_of_good(tmp_path)) | dict(OTHER_SHAPE)).items()))
    error = refused(hostile_set(tmp_path, gguf(), shape), tmp_path / "root")
    assert error.exit_code == ExitCode.MODEL_FORMAT
    assert "manifest" in error.message
    assert left_behind(tmp_path / "root") == {}
