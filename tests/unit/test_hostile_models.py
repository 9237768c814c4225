"""Hostile models at both doors: none is carried, and none that was carried is installed."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from edgekit.core.names import RelPath
from edgekit.errors import EdgekitError, RefusedContentError
from edgekit.exit_codes import ExitCode
from edgekit.sources.folder import fetch_folder, lock_folder
from edgekit.system.digest_cache import DigestCache
from edgekit.system.weights import WeightsHeader, check_weights
from tests.support.hostile_models import gguf, good_folder, hostile_models


def written(folder: Path, files: dict[str, bytes]) -> dict[RelPath, Path]:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {RelPath(name): folder / name for name in files}


def bundled(folder: Path, format_: str, files: dict[RelPath, Path]) -> WeightsHeader:
    """What `edgekit lock` and `edgekit bundle` do with a folder of weights."""
    with DigestCache(folder.parent) as digests:
        fetched = fetch_folder(folder, lock_folder(folder, files, digests), digests)
    return check_weights(format_, dict(sorted(fetched.items())))


def installed(folder: Path, format_: str, files: dict[RelPath, Path]) -> WeightsHeader:
    """What `edgekit install` does with blobs, which have no names of their own."""
    blobs = {}
    for number, (name, path) in enumerate(files.items()):
        blobs[RelPath(f"models/m/0-x/{name}")] = path.rename(folder / f"blob-{number}")
    return check_weights(format_, blobs)


def test_models_that_are_right_pass(tmp_path: Path) -> None:
    folder = written(tmp_path / "s", good_folder())
    header = bundled(tmp_path / "s", "safetensors", folder)
    assert (header.family, header.parameter_count, header.shape) == ("llama", 16, {})
    assert installed(tmp_path / "s", "safetensors", folder) == header
    file = written(tmp_path / "g", {"m.gguf": gguf()})
    header = bundled(tmp_path / "g", "gguf", file)
    assert (header.family, header.parameter_count) == ("llama", 64 * 3 + 16)
    assert header.shape["vocabulary"] == 3
    assert installed(tmp_path / "g", "gguf", file) == header


def test_hostile_models_are_refused_at_both_doors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = hostile_models()
    assert len({model.name for model in models}) == len(models)
    fired: Counter[ExitCode] = Counter()
    wrong = []
    doors = (bundled, installed)
    for (number, model), door in itertools.product(enumerate(models), doors):
        folder = tmp_path / f"{door.__name__}-{number}"
        try:
            door(folder, model.format, written(folder, model.files))
        except EdgekitError as error:
            if error.exit_code == model.exit_code and error.where:
                fired[error.exit_code] += 1
            else:
                wrong.append(f"{model.name}: {door.__name__}: {error.exit_code!r} {error}")
        else:
            wrong.append(f"{model.name}: {door.__name__} let it pass")
    with capsys.disabled():
        print(f"\nhostile models: {len(models)}, at {len(doors)} doors: planned "
              f"{len(models) * len(doors)}, refused {fired.total()}, of them as content "
              f"{fired[ExitCode.REFUSED_CONTENT]}, as lies {fired[ExitCode.MODEL_FORMAT]}")
    assert wrong == []
    assert len(models) >= 60
    assert fired.total() == len(models) * len(doors)


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "m.gguf"
    outside.write_bytes(gguf())
    (tmp_path / "in").mkdir()
    (tmp_path / "in/m.gguf").symlink_to(outside)
    with pytest.raises(RefusedContentError), DigestCache(tmp_path) as digests:
        lock_folder(tmp_path / "in", [RelPath("m.gguf")], digests)
