"""The models that Modelfiles make: those a release carries, and those made on the host.

Those made on the host lie in two files. Releases that know nothing of TEMPLATE do not start when
they meet one, so these models have a file that such a release does not look for: after a rollback
it serves without them, and they are there again when the host goes forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.core.derived import (
    CARRIED_FOLDER,
    MAX_BYTES,
    DerivedModel,
    encode_derived,
    parse_derived,
)
from edgekit.core.modelfile import MAX_MODELFILE_BYTES, parse_modelfile
from edgekit.errors import FormatError
from edgekit.system.files import durable_write, read_bounded

TEMPLATED_NAME = "models-with-template.json"


def load_made_here(path: Path) -> tuple[DerivedModel, ...]:
    """Those made on this host: of `path` and of the file beside it. None without the files.

    Of a model that is in both, as a crash may leave it, the newer counts. Raises HostError or
    FormatError.
    """
    found = [*_load(path), *_load(path.with_name(TEMPLATED_NAME))]
    return tuple({model.name: model for model in sorted(found, key=_made_at)}.values())


def save_made_here(path: Path, models: Sequence[DerivedModel]) -> None:
    """Keep these and no others, durably: each file is replaced whole, the one with the newest
    model first. Raises HostError."""
    plain = [model for model in models if _is_plain(model)]
    others = [model for model in models if model not in plain]
    parts = [(path, plain), (path.with_name(TEMPLATED_NAME), others)]
    for place, part in sorted(parts, key=lambda one: -max(map(_made_at, one[1]), default=0)):
        if part or place.exists():
            durable_write(place, encode_derived(part))


def _load(path: Path) -> tuple[DerivedModel, ...]:
    return parse_derived(read_bounded(path, MAX_BYTES, path.name)) if path.exists() else ()


def _made_at(model: DerivedModel) -> int:
    return model.created


def _is_plain(model: DerivedModel) -> bool:
    """Whether every release reads it."""
    try:
        return parse_modelfile(model.modelfile.encode(), file=model.name).template is None
    except FormatError:
        return False  # a newer release's


def load_carried(generation: Path, created: int) -> tuple[DerivedModel, ...]:
    """Those of a release, whose Modelfiles lie in its folder under their models' names.

    `created` is the release's. Raises HostError or FormatError.
    """
    models = []
    for path in sorted((generation / CARRIED_FOLDER).glob("*")):
        data = read_bounded(path, MAX_MODELFILE_BYTES, path.name)
        try:
            models.append(DerivedModel(path.name, data.decode(), created))
        except UnicodeDecodeError as error:
            raise FormatError("Modelfile is not UTF-8", where=str(path)) from error
    return tuple(models)


def load_all(generation: Path, path: Path | None, created: int) -> tuple[DerivedModel, ...]:
    """Both; one made on the host stands for one of the same name that the release carries.

    Raises HostError or FormatError.
    """
    carried = {model.name: model for model in load_carried(generation, created)}
    made_here = {model.name: model for model in (load_made_here(path) if path else ())}
    return tuple((carried | made_here).values())
