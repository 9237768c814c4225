"""The llama.cpp source pack of this machine: where it is, and how it is made.

Building takes half an hour of a small machine, so the usual tests take what the named job
`python -m tests.engines source` left in the cache, and say so when it is not there.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.core.digest import Digest
from edgekit.core.events import Listener
from edgekit.engines.llama_cpp_source import SourceArchive, build_pack, built_folder
from edgekit.engines.pack import BuiltPack
from edgekit.errors import EdgekitError
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.sdists import lock_sdist

VERSION = "0.3.36"
PACKAGE = f"llama-cpp-python=={VERSION}"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
CACHE = Path.home() / ".cache/edgekit"
COMMAND = "python -m tests.engines source"


def build(listener: Listener) -> BuiltPack:
    """Fetch the archive, build what is not built yet, and return the pack."""
    cache = BlobCache(CACHE)
    locked = lock_sdist(PACKAGE, cache, listener)
    assert locked.sha256.value == SHA256, "the index has another archive of this version"
    archive = SourceArchive(cache.path(locked.sha256), VERSION, SHA256)
    return build_pack(archive, accelerator="cpu", arch="x86_64", cache=CACHE, listener=listener)


def missing() -> str | None:
    """Why there is no pack to test with here; None when there is one."""
    archive = SourceArchive(BlobCache(CACHE).path(Digest("sha256", SHA256)), VERSION, SHA256)
    try:
        folder = built_folder(archive, accelerator="cpu", cache=CACHE)
    except EdgekitError as error:
        return error.message
    return None if folder.is_dir() else f"llama.cpp is not built from source yet ({COMMAND})"


def tree() -> Path:
    """The built pack's folder."""
    archive = SourceArchive(BlobCache(CACHE).path(Digest("sha256", SHA256)), VERSION, SHA256)
    return built_folder(archive, accelerator="cpu", cache=CACHE)
