"""Environments for the clients that are too heavy for the checkout's own: made once, by content.

Python clients come from `requirements/clients.txt`, npm's from `tests/clients/package-lock.json`;
both name every file by its digest. What was made lies beside the other caches of the tests and is
used until one of these files changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.rootfs import default_cache_dir
from tools.sealed_resources import locked

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPOSITORY / "requirements/clients.txt"
NPM = REPOSITORY / "tests/clients"
NPM_FILES = (NPM / "package.json", NPM / "package-lock.json")


def python_with_clients() -> Path:
    """A Python that can import LangChain, LiteLLM and Schemathesis."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return _made(f"python{version}", (REQUIREMENTS,), _install_python) / "bin/python"


def node_modules() -> Path:
    """The `node_modules` folder with OpenAI's and Ollama's clients."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"cannot run here: {program} is not installed")
    return _made("npm", NPM_FILES, _install_npm) / "node_modules"


def _made(name: str, inputs: tuple[Path, ...], make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills from these inputs; put into place whole, or not at all."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    cache = default_cache_dir().with_name("clients")
    final = cache / f"{name}-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{final.name}.lock", wait=True):
        if not (final / "complete").exists():
            shutil.rmtree(final, ignore_errors=True)
            final.mkdir()
            make(final)
            (final / "complete").touch()
    return final


def _install_python(folder: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    _run(uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder))
    target = ("--python", str(folder / "bin/python"))
    _run(uv, "pip", "install", "-q", *target, "--require-hashes", "-r", str(REQUIREMENTS))


def _install_npm(folder: Path) -> None:
    for path in NPM_FILES:
        shutil.copy(path, folder)
    _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)


def _run(*argv: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        argv, cwd=cwd, check=False, capture_output=True, text=True, timeout=300, env=os.environ
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
