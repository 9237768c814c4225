"""Freezing: PyInstaller makes programs that need no Python on the host.

Results are cached by everything that goes in (sources, libraries, Python and PyInstaller versions),
so an unchanged runtime or engine pack costs nothing the second time. The same inputs give the same
bytes, wherever and whenever they are frozen (tests/integration/test_reproducible.py).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.events import Finished, Listener, Started
from edgekit.errors import HostError
from edgekit.system.files import fsync_directory, remove_tree
from edgekit.system.process import run
from edgekit.system.resources import DATA_FOLDERS, data_folder, is_frozen

FREEZE_TIMEOUT_S = 900
CACHE_VERSION = 4

_SPEC = """
import os, subprocess

a = Analysis([{script!r}], pathex={paths!r}, hiddenimports={hidden!r}, datas={datas!r},
             excludes={excludes!r}, module_collection_mode={{}}, noarchive=False)

def slim(binary):
    # A Python built from source has 17 MB of debug information in its library.
    name, source, kind = binary
    if not name.startswith("libpython"):
        return binary
    target = os.path.join(SPECPATH, os.path.basename(name))
    subprocess.run(["strip", "--strip-debug", "-o", target, source], check=True)
    return name, target, kind

def is_installers_note(name):
    # Who installed a library, from where and with which tool is not part of it.
    folder, _, last = name.rpartition("/")
    return folder.endswith(".dist-info") and last in {notes!r}

a.binaries = sorted(slim(binary) for binary in a.binaries)
a.datas = sorted(data for data in a.datas if not is_installers_note(data[0]))
pyz = PYZ(a.pure)
exe = EXE(pyz, a.scripts, [], exclude_binaries=True, name={name!r}, strip=False, upx=False,
          console=True)
COLLECT(exe, a.binaries, a.datas, name="tree", strip=False, upx=False)
if {one_file!r}:
    EXE(pyz, a.scripts, a.binaries, a.datas, name="one-file", strip=False, upx=False, console=True)
"""

_INSTALLERS_NOTES = ("INSTALLER", "RECORD", "REQUESTED", "WHEEL", "direct_url.json")

_ENVIRONMENT = {
    # Not the packager's: a cached program serves sets of any SOURCE_DATE_EPOCH.
    "SOURCE_DATE_EPOCH": "1767225600",
    "PYTHONHASHSEED": "1",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # 9, the default, takes three and a half times as long for 0.4 % less.
    "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "6",
}
"""What PyInstaller runs with, so that the same inputs give the same bytes anywhere."""

_EXCLUDES = [
    "tkinter",
    "unittest",
    "pydoc",
    "doctest",
    "test",
    "lib2to3",
    "distutils",
    "setuptools",
    "pip",
    "ensurepip",
    "idlelib",
    "turtle",
    "curses",
    "numpy",
    "IPython",
    "matplotlib",
]

_RUNTIME_EXCLUDES = [
    # The host's program has no way to fetch: these reach networks and stay on the connected side.
    "edgekit.sources",
    "huggingface_hub",
    "hf_xet",
    "httpx",
    "httpcore",
    "requests",
    "urllib3",
    "PyInstaller",
    "pkcs11",  # hosts hold no signing keys
    "asn1crypto",
    # Libraries that offer plug-ins to test and type tools pull those tools in.
    "hypothesis",
    "mypy",
    "_pytest",
    "pytest",
    "pygments",
    "xllamacpp",
    "openai",
    "ollama",
    "fsspec",
    "yaml",
    # rich looks for it, and test tools bring it: what is installed beside must not matter.
    "attr",
    "attrs",
    "cyclonedx",
]

_RUNTIME_HIDDEN = [
    "uvicorn.loops.asyncio",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "uvicorn.lifespan.on",
    "uvicorn.lifespan.off",
    "edgekit.gateway",
    "edgekit.auditd",
    "edgekit.forwarder",
    "edgekit.supervisor",
]


@dataclass(frozen=True, slots=True)
class FrozenProgram:
    """A frozen program: `tree` is a folder with `name` and its libraries; `one_file` may be None.

    Both lie in the cache and must not be changed.
    """

    name: str
    tree: Path
    one_file: Path | None


def freeze_runtime(cache: Path, listener: Listener) -> FrozenProgram:
    """Freeze edgekit itself: the one-file installer and the installed runtime tree.

    Raises HostError when PyInstaller fails or when this edgekit is itself frozen.
    """
    package = Path(__file__).resolve().parent.parent
    datas = [(str(data_folder(name)), f"edgekit/_data/{name}") for name in DATA_FOLDERS]
    inputs = [package, *(Path(source) for source, _ in datas)]
    return _freeze(
        cache,
        "edgekit",
        package / "__main__.py",
        inputs=inputs,
        search=[package.parent],
        hidden=[*_RUNTIME_HIDDEN, *_command_modules(package)],
        datas=datas,
        excludes=_RUNTIME_EXCLUDES,
        one_file=True,
        listener=listener,
    )


def freeze_engine(
    cache: Path, name: str, script: Path, library: Path, key: str, listener: Listener
) -> FrozenProgram:
    """Freeze an engine's launcher with the unpacked wheel in `library`, identified by `key`."""
    return _freeze(
        cache,
        name,
        script,
        inputs=[script],
        search=[library],
        hidden=[],
        datas=[],
        excludes=["edgekit"],
        one_file=False,
        listener=listener,
        key=key,
    )


def _command_modules(package: Path) -> list[str]:
    """Modules that are imported by name at run time, which PyInstaller cannot see."""
    return [
        f"edgekit.cli.{path.stem}"
        for path in sorted((package / "cli").glob("*.py"))
        if path.stem not in ("__init__", "connected")
    ]


def _freeze(
    cache: Path,
    name: str,
    script: Path,
    *,
    inputs: Sequence[Path],
    search: Sequence[Path],
    hidden: Sequence[str],
    datas: Sequence[tuple[str, str]],
    excludes: Sequence[str],
    one_file: bool,
    listener: Listener,
    key: str = "",
) -> FrozenProgram:
    if is_frozen():
        raise HostError(
            "a frozen edgekit cannot freeze itself", hint="bundle from a Python install"
        )
    identity = _identity(inputs, key)
    # Absolute, because PyInstaller runs in a folder of its own.
    final = cache.resolve() / "frozen" / f"{name}-{identity}"
    if not final.is_dir():
        listener(Started(f"freeze {name}"))
        spec = _SPEC.format(
            script=str(script),
            paths=[str(path) for path in search],
            hidden=list(hidden),
            datas=list(datas),
            excludes=[*_EXCLUDES, *excludes],
            name=name,
            one_file=one_file,
            notes=_INSTALLERS_NOTES,
        )
        _run_pyinstaller(final, name, spec)
        listener(Finished(f"freeze {name}"))
    return FrozenProgram(name, final / "tree", final / "one-file" if one_file else None)


def _run_pyinstaller(final: Path, name: str, spec: str) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=final.parent))
    try:
        (work / f"{name}.spec").write_text(spec, "utf-8")
        argv = [
            sys.executable,
            "-m",
            "PyInstaller",
            "--noconfirm",
            "--log-level",
            "WARN",
            "--distpath",
            str(work / "dist"),
            "--workpath",
            str(work / "build"),
            str(work / f"{name}.spec"),
        ]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            **_ENVIRONMENT,
            "PYINSTALLER_CONFIG_DIR": str(work / "config"),
        }
        run(argv, timeout_s=FREEZE_TIMEOUT_S, env=environment, cwd=work)
        _flatten_links(work / "dist" / "tree")
        try:
            (work / "dist").rename(final)
        except OSError as error:
            if not final.is_dir():  # another bundle finished the same freeze first
                raise HostError("frozen program cannot be stored", where=str(final)) from error
        fsync_directory(final.parent)
    finally:
        remove_tree(work)


def _flatten_links(tree: Path) -> None:
    """Replace symbolic links by the files they name: a set carries no links.

    Equal bytes are one blob in the set, so this costs nothing there.
    """
    for path in sorted(tree.rglob("*")):
        if path.is_symlink():
            target = path.resolve(strict=True)
            if not target.is_relative_to(tree.resolve()) or not target.is_file():
                raise HostError("frozen tree holds a link that leaves it", where=str(path))
            path.unlink()
            shutil.copy2(target, path)


def _identity(inputs: Sequence[Path], key: str) -> str:
    """Hex identity of everything that decides the result."""
    hasher = hashlib.sha256()
    facts = {
        "version": CACHE_VERSION,
        "key": key,
        "python": sys.version,
        "machine": platform.machine(),
        "prefix_libraries": sorted(
            f"{dist.metadata['Name']}=={dist.version}"
            for dist in importlib.metadata.distributions()
        ),
        "self": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    hasher.update(json.dumps(facts, sort_keys=True).encode())
    for root in inputs:
        for path in sorted([root] if root.is_file() else root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                hasher.update(str(path.relative_to(root.parent)).encode() + b"\0")
                hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()[:24]
