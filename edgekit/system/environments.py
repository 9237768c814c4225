"""Environments: a pack's wheelhouse installed into the Python that came with it, offline.

The pack holds the interpreter, the installer (uv) and a list of exact versions under their hashes.
What is installed is a function of these bytes; no index, cache or setting of the host takes part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from edgekit.errors import HostError, InstallError
from edgekit.system.files import remove_tree, translate_os_error
from edgekit.system.process import run

INSTALL_TIMEOUT_S = 1800.0
COMPILE_TIMEOUT_S = 1800.0


def install_wheels(pack: Path, wheels: Mapping[str, Path], *, compiled: bool = True) -> None:
    """Install all of `wheels` (file name to place) into the interpreter below `pack`/python.

    With `compiled` byte code is written, too: a unit cannot write it, and would compile at every
    start. The folder may be renamed afterwards. Raises InstallError, DiskFullError or HostError;
    what is there then is the caller's to remove.
    """
    python = _interpreter(pack)
    site = python.parents[1] / "lib" / python.name / "site-packages"
    work = pack / ".installing"
    try:
        remove_tree(work)
        (work / "wheels").mkdir(parents=True)
        for name, place in wheels.items():
            (work / "wheels" / name).symlink_to(place.resolve())
    except OSError as error:
        raise translate_os_error(error, "installing wheels") from error
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(work),
        "TMPDIR": str(work),
        "LD_LIBRARY_PATH": str(python.parents[1] / "lib"),
        "UV_CACHE_DIR": str(work / "cache"),
    }
    argv = [
        str(pack / "bin/uv"), "pip", "install", "--python", str(python), "--target", str(site),
        "--no-index", "--offline", "--no-config", "--no-deps", "--require-hashes", "--no-build",
        "--reinstall", "--link-mode", "hardlink", "--find-links", str(work / "wheels"), "--quiet",
        "--requirements", str(pack / "requirements.txt"),
    ]
    try:
        run(argv, timeout_s=INSTALL_TIMEOUT_S, env=environment, cwd=work)
        remove_tree(site / "bin")  # nobody runs what is there, and it names this folder
        if compiled:
            _compile(python, environment, work)
    except HostError as error:
        raise InstallError(
            "the engine's wheels cannot be installed", where=str(pack), found=error.found
        ) from error
    finally:
        remove_tree(work)


def _interpreter(pack: Path) -> Path:
    found = sorted((pack / "python/bin").glob("python3.*"))
    if len(found) != 1:
        raise InstallError("the engine comes without its Python", where=str(pack))
    return found[0]


def _compile(python: Path, environment: Mapping[str, str], work: Path) -> None:
    """Byte code that is never checked against its source: nothing here changes any more.

    Files that no Python of this version reads (templates, other versions' syntax) are passed over.
    """
    library = python.parents[1] / "lib" / python.name
    argv = [
        str(python), "-I", "-m", "compileall", "-qq", "-j", str(os.cpu_count() or 1),
        "--invalidation-mode", "unchecked-hash", "-s", str(library), str(library),
    ]
    run(argv, timeout_s=COMPILE_TIMEOUT_S, env=environment, cwd=work, check=False)
