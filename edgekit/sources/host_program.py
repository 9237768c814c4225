"""What is inside the frozen host program: which installed distributions PyInstaller put into it.

Their licences ask for their texts to go along, and whoever reads a bill of materials wants their
versions. Modules are taken from the program itself, distributions from the environment that froze
it: the two belong together, because the cache of frozen programs is keyed by that environment.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from PyInstaller.archive.readers import CArchiveReader

from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.licenses import WheelLicense, read_installed_license

_PYZ = "PYZ.pyz"
_OWN = "edgekit"


@dataclass(frozen=True, slots=True)
class FrozenLibrary:
    """A distribution inside the host program: name, version, and its licence with texts."""

    name: str
    version: str
    license: WheelLicense


def read_frozen_libraries(program: Path, cache: BlobCache) -> tuple[FrozenLibrary, ...]:
    """The distributions of which a one-file program holds modules, by name; edgekit left out.

    Raises RefusedContentError for licence texts over the limits.
    """
    owners = importlib.metadata.packages_distributions()
    names = {
        name for module in _top_modules(program) for name in owners.get(module, ()) if name != _OWN
    }
    found = []
    for name in sorted(names, key=str.lower):
        distribution = importlib.metadata.distribution(name)
        license_ = read_installed_license(distribution, cache)
        found.append(FrozenLibrary(name.lower(), distribution.version, license_))
    return tuple(found)


def _top_modules(program: Path) -> set[str]:
    """Names of top-level modules and packages, those in C included."""
    archive = CArchiveReader(str(program))
    pure = {str(name).partition(".")[0] for name in archive.open_embedded_archive(_PYZ).toc}
    files = {str(name).partition("/")[0] for name in archive.toc}
    return pure | {name.partition(".")[0] for name in files if name.endswith(".so")}
