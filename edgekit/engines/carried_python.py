"""A Python that travels: this machine's own CPython as files that run from any folder.

Hosts have none, and a frozen program holds only the modules that were found by reading imports,
which is no way to carry torch. CPython finds its library from where its program lies, so a copy of
program, libpython and standard library is enough; `LD_LIBRARY_PATH` names the folder of the shared
libraries. The C library is the host's, as for every engine.
"""

from __future__ import annotations

import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from PyInstaller.depend import bindepend, dylib

from edgekit.core.elf import is_elf
from edgekit.core.names import RelPath
from edgekit.engines.pack import PackFile
from edgekit.errors import HostError, MissingToolError

_NOT_CARRIED = frozenset(
    ("__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter",
     "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "turtle.py")
)
"""Tests, window programs, installers; `__pycache__` is made anew on the host."""
_NOT_LOADED = re.compile(
    r"(_tkinter|_test\w*|_ctypes_test|_xxtestfuzz|_xxsubinterpreters|xxlimited\w*|nis|readline|"
    r"_curses\w*|_dbm|_gdbm|ossaudiodev)\."
)
"""Extension modules that need libraries of terminals, windows or the distribution's own."""


def python_version() -> str:
    """`3.11`, as wheels and the manifest name it."""
    return "{}.{}".format(*sys.version_info[:2])


def python_program(prefix: str) -> RelPath:
    """Where the interpreter lies below a pack's prefix."""
    return RelPath(f"{prefix}/python/bin/python{python_version()}")


def carried_python(prefix: str, libraries: Iterable[str] = ()) -> tuple[PackFile, ...]:
    """This interpreter's files below `prefix`/python. Raises HostError when it cannot travel.

    `libraries` are shared libraries, by the names that programs load them by, which wheels expect
    of a system: MissingToolError names one that is not here.
    """
    if platform.python_implementation() != "CPython":
        raise HostError("only CPython can be carried", found=platform.python_implementation())
    library = Path(sysconfig.get_path("stdlib"))
    program = Path(sys.executable).resolve()
    files = [PackFile(python_program(prefix), program, executable=True)]
    base = f"{prefix}/python/lib/python{python_version()}"
    modules = list(_modules(library))
    files += [PackFile(RelPath(f"{base}/{m.relative_to(library)}"), m, False) for m in modules]
    elf = [program, *(path for path in modules if _is_elf(path))]
    expected = {name: _find_library(name) for name in libraries}
    elf += expected.values()
    found = expected | _shared_libraries(elf)
    files += [
        PackFile(RelPath(f"{prefix}/python/lib/{name}"), path.resolve(), executable=False)
        for name, path in found.items()
    ]
    return tuple(sorted(files, key=lambda file: str(file.path)))


def _modules(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _NOT_CARRIED or path.name.startswith("config-"):
            continue
        if path.is_dir():
            yield from _modules(path)
        elif path.suffix in (".py", ".txt", ".so") and not _NOT_LOADED.match(path.name):
            yield path


def _find_library(name: str) -> Path:
    place = bindepend.resolve_library_path(name)
    if place is None:
        raise MissingToolError(
            f"{name} is not here, and a host would need it",
            hint=f"apt-get install {name.partition('.')[0]}1",
        )
    return Path(place)


def _shared_libraries(programs: Iterable[Path]) -> dict[str, Path]:
    """What these load, and what that loads, without what belongs to the host's C library."""
    found: dict[str, Path] = {}
    waiting = list(programs)
    while waiting:
        for name, place in sorted(bindepend.get_imports(str(waiting.pop()))):
            if place is None:
                raise HostError("a library of this Python is missing", found=name)
            if name not in found and dylib.include_library(name):
                found[name] = Path(place)
                waiting.append(Path(place))
    return found


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return is_elf(file.read(4))


def extra_glibc(filenames: Iterable[str]) -> tuple[int, int]:
    """The C library that wheels promise to need at most, by their platform tags (PEP 600)."""
    floor = (2, 17)
    for name in filenames:
        tags = [(int(a), int(b)) for a, b in re.findall(r"manylinux_(\d+)_(\d+)_", name)]
        if tags:
            floor = max(floor, min(tags))
    return floor
