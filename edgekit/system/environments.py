"""Environments: a pack's wheelhouse installed into the Python that came with it, offline.

The pack holds the interpreter, the installer (uv) and a list of exact versions under their hashes.
What is installed is a function of these bytes; no index, cache or setting of the host takes part.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgekit.core.digest import Digest, new_hasher
from edgekit.errors import EdgekitError, HostError, InstallError
from edgekit.system.files import all_files, remove_others, remove_tree, translate_os_error
from edgekit.system.process import run
from edgekit.system.volumes import hash_file

INSTALL_TIMEOUT_S = 1800.0
COMPILE_TIMEOUT_S = 1800.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What installing again would not get around; every other reason not to link is one to install."""


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


def added_digest(pack: Path, before: frozenset[str]) -> Digest:
    """One digest of all files below `pack` but those named in `before`: names, bytes, who may run.

    Raises HostError.
    """
    added = sorted(all_files(pack) - before)

    def line(name: str) -> bytes:
        path = pack / name
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe would be read for ever
            raise HostError("not a regular file", where=str(path))
        digest, _ = hash_file(path, "sha256")  # the fastest; nobody is to be convinced by it
        return f"{digest.value} {mode & 0o111:03o} {name}\0".encode()

    hasher = new_hasher("sha384")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        try:
            for part in threads.map(line, added):
                hasher.update(part)
        except OSError as error:
            raise translate_os_error(error, "reading an environment") from error
    return Digest("sha384", hasher.hexdigest())


def share_environment(source: Path, pack: Path, installed: Digest) -> bool:
    """Link into `pack` what was once installed into `source`, the same pack of another release.

    True when it is there, and is byte by byte what `installed` says. False, and `pack` is as it
    was, when it is something else, or cannot be linked or read. Raises DiskFullError, or HostError
    when what was linked cannot be removed again.
    """
    before = all_files(pack)
    try:
        for name in sorted(all_files(source) - before):
            path = pack / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source / name, path, follow_symlinks=False)
        if added_digest(pack, before) == installed:
            return True
    except OSError as error:
        if error.errno in _FULL:
            raise translate_os_error(error, "linking an environment") from error
    except EdgekitError:
        pass  # it cannot be read: it is made again
    try:
        remove_others(pack, before)
    except OSError as error:
        raise translate_os_error(error, "unlinking an environment") from error
    return False


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
