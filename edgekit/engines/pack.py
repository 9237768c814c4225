"""Engine packs: a frozen engine as a list of files, with what a host needs to run it."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.elf import is_elf, needed_glibc
from edgekit.core.engine_pack import EnginePack
from edgekit.core.names import RelPath


@dataclass(frozen=True, slots=True)
class PackFile:
    """A file of a tree: where it goes in the set, where it is now, and whether it is run."""

    path: RelPath
    source: Path
    executable: bool


@dataclass(frozen=True, slots=True)
class BuiltPack:
    """An engine ready to be carried: what the manifest says of it, and its files."""

    pack: EnginePack
    files: tuple[PackFile, ...]


def tree_files(tree: Path, prefix: str, program: str) -> tuple[PackFile, ...]:
    """Every file of a frozen tree below `prefix`; only `program` is executable."""
    return tuple(
        PackFile(
            RelPath(f"{prefix}/{path.relative_to(tree)}"),
            path,
            executable=str(path.relative_to(tree)) == program,
        )
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    )


def tree_glibc_floor(files: tuple[PackFile, ...]) -> tuple[int, int]:
    """The newest C library that any ELF file of a tree needs; (2, 17) when none says."""
    floor = (2, 17)
    for file in files:
        with file.source.open("rb") as handle:
            if not is_elf(handle.read(4)):
                continue
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                floor = max(floor, needed_glibc(data) or floor)
    return floor
