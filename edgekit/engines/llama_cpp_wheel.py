"""The llama.cpp `wheel` provider: xllamacpp's prebuilt wheel, frozen so that hosts need no Python.

The wheel is llama.cpp's own HTTP server with continuous batching as one shared library. Freezing it
takes seconds where building llama.cpp takes half an hour.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.core.engine_pack import EnginePack
from edgekit.core.events import Listener
from edgekit.core.names import RelPath
from edgekit.engines import launchers
from edgekit.engines.pack import BuiltPack, tree_files, tree_glibc_floor
from edgekit.system.freeze import freeze_engine

PROGRAM = "edgekit-llama"
PREFIX = "engines/llama.cpp-wheel"
CPU_FLAGS = {"x86_64": ("avx2", "f16c", "fma"), "aarch64": ("asimd",)}
"""What the prebuilt library was compiled for (research: serving, 1.2); it does not check itself."""


def build_pack(
    library: Path, *, version: str, key: str, arch: str, cache: Path, listener: Listener
) -> BuiltPack:
    """Freeze the unpacked wheel in `library`; `key` identifies its bytes for the cache.

    Raises HostError when freezing fails; the cache is unchanged then.
    """
    script = Path(launchers.__file__).parent / "llama_cpp_wheel.py"
    frozen = freeze_engine(cache, PROGRAM, script, library, key, listener)
    files = tree_files(frozen.tree, PREFIX, PROGRAM)
    pack = EnginePack(
        kind="llama.cpp",
        provider="wheel",
        version=version,
        prefix=RelPath(PREFIX),
        program=RelPath(f"{PREFIX}/{PROGRAM}"),
        cpu_flags=CPU_FLAGS[arch],
        glibc=tree_glibc_floor(files),
    )
    return BuiltPack(pack, files)
