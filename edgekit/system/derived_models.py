"""Reading the models that Modelfiles make: those a release carries, and those made on the host."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.derived import CARRIED_FOLDER, MAX_BYTES, DerivedModel, parse_derived
from edgekit.core.modelfile import MAX_MODELFILE_BYTES
from edgekit.errors import FormatError
from edgekit.system.files import read_bounded


def load_made_here(path: Path) -> tuple[DerivedModel, ...]:
    """Those made on this host; none without the file. Raises HostError or FormatError."""
    if not path.exists():
        return ()
    return parse_derived(read_bounded(path, MAX_BYTES, path.name))


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
