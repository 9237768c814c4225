"""The llama.cpp `source` provider: `llama-server` built from the pinned llama-cpp-python archive.

One build has the arithmetic for every level of processor, each in a library of its own; which one
a host loads is decided by `core.cpu_levels` and tried in a child first. With `accelerator` a
backend for CUDA or Vulkan is built beside them. A build takes half an hour on two idle cores, so
its result is cached by everything that goes in: archive, options, and the tools' versions.

The build runs no script of the archive but its CMake files, fetches nothing (the web page that
upstream downloads while it builds is left out), and has neither TLS nor a way to start programs:
the server is spoken to on a unix socket.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.cpu_levels import FOLDER, HELPER, LEVELS, level_of
from edgekit.core.engine_pack import EnginePack
from edgekit.core.events import Finished, Listener, Started
from edgekit.core.launch import missing_options
from edgekit.core.names import RelPath
from edgekit.engines.pack import BuiltPack, PackFile, tree_files, tree_glibc_floor
from edgekit.errors import FormatError, HostError, MissingToolError
from edgekit.system.files import exclusive_lock, fsync_directory, fsync_tree, remove_tree
from edgekit.system.process import run

PROGRAM = "llama-server"
PREFIX = "engines/llama.cpp-source"
CPU_FLAGS: dict[str, tuple[str, ...]] = {"x86_64": (), "aarch64": ("asimd",)}
"""The lowest level needs no more than every processor of its kind has."""
BUILD_TIMEOUT_S = 4 * 3600.0
PROBE_TIMEOUT_S = 120.0
MAX_FILES = 20_000
MAX_UNPACKED_BYTES = 2 << 30
_VENDORED = "vendor/llama.cpp"
_RUNTIME_LIBRARIES = ("libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1")
"""What the compiler's own output needs; carried, so that a host needs the C library alone."""

OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
    "-DGGML_OPENMP=ON",
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_SUBPROCESS=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DCMAKE_SHARED_LINKER_FLAGS=-Wl,-s",
    "-DCMAKE_EXE_LINKER_FLAGS=-Wl,-s",
    "-DCMAKE_MODULE_LINKER_FLAGS=-Wl,-s",
)
_ACCELERATORS = {"cpu": (), "cuda": ("-DGGML_CUDA=ON",), "vulkan": ("-DGGML_VULKAN=ON",)}
_TOOLS = {
    "cpu": (("cmake", "pip install cmake"), ("ninja", "pip install ninja"),
            ("cc", "apt-get install g++"), ("c++", "apt-get install g++")),
    "cuda": (("nvcc", "install NVIDIA's CUDA toolkit"),),
    "vulkan": (("glslc", "apt-get install glslc libvulkan-dev"),),
}
_PASSED = ("PATH", "HOME", "TMPDIR", "CCACHE_DIR", "CMAKE_C_COMPILER_LAUNCHER",
           "CMAKE_CXX_COMPILER_LAUNCHER", "CUDACXX")
"""Of the packager's environment: where tools are. Nothing that changes what they make."""


@dataclass(frozen=True, slots=True)
class SourceArchive:
    """The archive in the cache, with what the lock says of it."""

    place: Path
    version: str
    sha256: str


def build_pack(
    archive: SourceArchive, *, accelerator: str, arch: str, cache: Path, listener: Listener
) -> BuiltPack:
    """Build once, then take from the cache.

    Raises MissingToolError naming the first tool that is not there, HostError when building fails
    (what was compiled so far is removed), FormatError when what was built is not what this edgekit
    knows how to start.
    """
    tools = _tool_versions(accelerator)
    final = _folder(archive, accelerator, cache, tools)
    if not final.is_dir():
        with exclusive_lock(cache.resolve() / "build" / ".lock", "this cache's build folder"):
            if not final.is_dir():
                _build(archive, accelerator, cache.resolve() / "build/llama.cpp", final, listener)
    files = _pack_files(final)
    cuda = _cuda_version(tools.get("nvcc", ""))
    pack = EnginePack(
        kind="llama.cpp",
        provider="source",
        version=archive.version,
        prefix=RelPath(PREFIX),
        program=RelPath(f"{PREFIX}/{PROGRAM}"),
        cpu_flags=CPU_FLAGS[arch],
        glibc=tree_glibc_floor(files),
        accelerator=accelerator,
        cuda=cuda,
    )
    return BuiltPack(pack, files)


def built_folder(archive: SourceArchive, *, accelerator: str, cache: Path) -> Path:
    """Where the result lies, or would: it is there once it was built with these tools.

    Raises MissingToolError.
    """
    return _folder(archive, accelerator, cache, _tool_versions(accelerator))


def _folder(
    archive: SourceArchive, accelerator: str, cache: Path, tools: dict[str, str]
) -> Path:
    return cache.resolve() / "built" / f"llama.cpp-{_identity(archive, accelerator, tools)}"


def _build(
    archive: SourceArchive, accelerator: str, work: Path, final: Path, listener: Listener
) -> None:
    """Compile in a folder whose name is always the same, so that the same inputs give the same
    bytes; the result appears under its final name in one step."""
    task = f"build llama.cpp {archive.version} ({accelerator})"
    listener(Started(task))
    remove_tree(work)
    work.mkdir(parents=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".llama.cpp-", dir=final.parent))
    try:
        unpack_source(archive.place, work / "src")
        _compile(work, accelerator)
        tree = staging / "tree"
        collect(work / "out/bin", tree)
        _compile_helper(work, tree)
        for name in _RUNTIME_LIBRARIES:
            shutil.copyfile(_compiler_file(name), tree / name)
        check_built(tree)
        fsync_tree(tree)
        tree.rename(final)
        fsync_directory(final.parent)
    finally:
        remove_tree(work)
        remove_tree(staging)
    listener(Finished(task))


def _compile(work: Path, accelerator: str) -> None:
    flags = f"-ffile-prefix-map={work}=."
    argv = [
        _find("cmake"), "-S", str(work / "src" / _VENDORED), "-B", str(work / "out"), "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={_find('ninja')}",
        *OPTIONS, *_ACCELERATORS[accelerator],
        f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}",
    ]
    environment = _environment()
    run(argv, timeout_s=PROBE_TIMEOUT_S * 5, env=environment)
    run([_find("ninja"), "-C", str(work / "out"), PROGRAM], timeout_s=BUILD_TIMEOUT_S,
        env=environment)


def _compile_helper(work: Path, tree: Path) -> None:
    source = Path(__file__).parent / "native" / "edgekit_ggml.cpp"
    run(
        [_find("c++"), "-std=c++17", "-O2", f"-ffile-prefix-map={source.parent}=.",
         f"-I{work / 'src' / _VENDORED / 'ggml/include'}", str(source), "-o", str(tree / HELPER),
         f"-L{work / 'out/bin'}", "-lggml", "-lggml-base", "-Wl,-s", "-Wl,-rpath,$ORIGIN",
         f"-Wl,-rpath-link,{work / 'out/bin'}"],
        timeout_s=PROBE_TIMEOUT_S, env=_environment(),
    )


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return {**passed, "LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": "1767225600"}


def unpack_source(archive: Path, target: Path) -> None:
    """The regular files of the vendored llama.cpp, below `target`. tarfile only reads here.

    Raises FormatError for an archive without them, or with names that lead elsewhere.
    """
    total, count = 0, 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                inside = member.name.partition("/")[2]
                if not member.isreg() or not inside.startswith(f"{_VENDORED}/"):
                    continue
                total, count = total + member.size, count + 1
                if total > MAX_UNPACKED_BYTES or count > MAX_FILES:
                    raise FormatError("the source archive is too large", where=archive.name)
                path = target / str(RelPath(inside))
                path.parent.mkdir(parents=True, exist_ok=True)
                stream = tar.extractfile(member)
                assert stream is not None
                with path.open("xb") as file:
                    shutil.copyfileobj(stream, file)
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise FormatError("the source archive is damaged", where=archive.name,
                          found=str(error)[:200]) from error
    if not (target / _VENDORED / "CMakeLists.txt").is_file():
        raise FormatError("the source archive holds no llama.cpp", where=archive.name,
                          needed=f"{_VENDORED}/CMakeLists.txt")


def collect(built: Path, tree: Path) -> None:
    """What runs, out of a build's folder: the server, and every library under its loader's name."""
    (tree / FOLDER).mkdir(parents=True)
    shutil.copyfile(built / PROGRAM, tree / PROGRAM)
    for path in sorted(built.iterdir()):
        if level_of(path.name) is not None:
            shutil.copyfile(path, tree / FOLDER / path.name)
        elif re.fullmatch(r"lib[\w+-]+\.so\.\d+", path.name) or (
            re.fullmatch(r"lib[\w+-]+\.so", path.name) and not path.is_symlink()
        ):
            shutil.copyfile(path.resolve(strict=True), tree / path.name)
    (tree / PROGRAM).chmod(0o755)


def check_built(tree: Path) -> None:
    """Refuse what would not start as planned: options that are gone, levels nobody knows, or a
    program that does not run. Raises FormatError or HostError."""
    known = {level for level, _ in LEVELS}
    levels = {level_of(path.name) for path in (tree / FOLDER).iterdir()}
    if not levels or not levels <= known:
        raise FormatError("llama.cpp was built with other processor levels than edgekit knows",
                          found=", ".join(sorted(str(level) for level in levels - known)) or "none",
                          needed=", ".join(sorted(known)))
    environment = {"PATH": "/usr/bin:/bin"}
    shown = run([str(tree / PROGRAM), "--help"], timeout_s=PROBE_TIMEOUT_S, env=environment).text
    missing = missing_options(shown)
    if missing:
        raise FormatError("this llama-server does not know options that edgekit starts it with",
                          found=" ".join(missing), needed="an edgekit for this llama.cpp",
                          hint="edgekit lock with the version that this edgekit was tested with")
    run([str(tree / HELPER), "devices"], timeout_s=PROBE_TIMEOUT_S, env=environment)


def _pack_files(tree: Path) -> tuple[PackFile, ...]:
    files = tree_files(tree, PREFIX, PROGRAM)
    return tuple(
        PackFile(file.path, file.source, executable=file.source.name in (PROGRAM, HELPER))
        for file in files
    )


def _tool_versions(accelerator: str) -> dict[str, str]:
    """Every tool's own words about its version. Raises MissingToolError."""
    found = {}
    for name, hint in _wanted_tools(accelerator):
        found[name] = run([_find(name, hint), "--version"], timeout_s=PROBE_TIMEOUT_S).text.strip()
    return found


def _wanted_tools(accelerator: str) -> Iterator[tuple[str, str]]:
    yield from _TOOLS["cpu"]
    if accelerator != "cpu":
        yield from _TOOLS[accelerator]


def _find(name: str, hint: str = "") -> str:
    own = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([own, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise MissingToolError(f"{name} is not installed", needed=f"{name}, to build llama.cpp",
                               hint=hint or None)
    return found


def _compiler_file(name: str) -> Path:
    printed = run([_find("c++"), f"-print-file-name={name}"], timeout_s=PROBE_TIMEOUT_S).text
    path = Path(printed.strip())
    if not path.is_absolute():
        raise HostError("the compiler does not have its own run-time library", found=name)
    return path.resolve(strict=True)


def _identity(archive: SourceArchive, accelerator: str, tools: dict[str, str]) -> str:
    """Hex identity of everything that decides the bytes of the result."""
    own = Path(__file__)
    helper = own.parent / "native" / "edgekit_ggml.cpp"
    facts = {
        "archive": archive.sha256,
        "options": [*OPTIONS, *_ACCELERATORS[accelerator]],
        "tools": tools,
        "machine": os.uname().machine,
        "helper": hashlib.sha256(helper.read_bytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _cuda_version(text: str) -> tuple[int, int]:
    match = re.search(r"release (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
