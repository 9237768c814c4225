"""Engine packs for a set: what the lock names of an engine, fetched and made into a pack."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from edgekit.core.engine_pack import EnginePack
from edgekit.core.events import Listener
from edgekit.core.lock import Lock, LockedImage, LockedWheel
from edgekit.core.names import RelPath
from edgekit.core.recipe import EngineRecipe, Target
from edgekit.engines import llama_cpp_source, llama_cpp_wheel, vllm_wheel
from edgekit.engines.pack import BuiltPack
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.licenses import WheelLicense, read_sdist_license, read_wheel_license
from edgekit.sources.sdists import fetch_sdist
from edgekit.sources.wheel_file import unpack_wheel
from edgekit.sources.wheels import fetch_wheels


@dataclass(frozen=True, slots=True)
class GatheredPack:
    """A pack, and the licences of the wheels that went into it."""

    built: BuiltPack
    wheel_licenses: dict[LockedWheel, WheelLicense] = field(default_factory=dict)
    wheels: dict[RelPath, Path] = field(default_factory=dict)
    """Wheels that the host installs, by where they go in the set."""


@dataclass(frozen=True, slots=True)
class WheelRequirements:
    """Exact requirements, distributions to leave out, programs that wheels may bring."""

    requirements: tuple[str, ...]
    without: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()


def gather_pack(
    engine: EngineRecipe,
    lock: Lock,
    target: Target,
    cache: BlobCache,
    cache_dir: Path,
    listener: Listener,
) -> GatheredPack:
    """The pack of one `[[engine]]`; made once and then taken from the cache.

    Raises LockError for a lock without it, and what fetching and building raise.
    """
    if engine.provider == "image":
        return GatheredPack(_from_image(engine, lock.image(engine.image)))
    wheels = lock.wheelhouse(f"engine:{engine.kind}:{engine.provider}").wheels
    if engine.provider == "source":
        return _from_source(engine, wheels[0], target, cache, cache_dir, listener)
    if engine.kind == "vllm":
        return _gather_vllm(engine, wheels, target, cache, cache_dir, listener)
    paths = fetch_wheels(wheels, target, cache, listener)
    with tempfile.TemporaryDirectory(prefix="edgekit-engine-") as folder:
        library = unpack_together(wheels, paths, Path(folder))
        built = llama_cpp_wheel.build_pack(
            library,
            version=wheels[0].version,
            key=",".join(sorted(wheel.sha256.value for wheel in wheels)),
            arch=target.arch,
            cache=cache_dir,
            listener=listener,
        )
    return GatheredPack(built, read_wheel_licenses(wheels, paths, cache))


def _from_image(engine: EngineRecipe, image: LockedImage) -> BuiltPack:
    """The image's own blobs are carried as an image is; the pack only says that it is an engine."""
    prefix = f"images/{image.name}"
    pack = EnginePack(
        kind=engine.kind,
        provider="image",
        version=engine.version,
        prefix=RelPath(prefix),
        program=RelPath(f"{prefix}/{image.manifest.digest.value}"),
        accelerator=engine.accelerator,
        cuda=engine.cuda,
        image=image.name,
    )
    return BuiltPack(pack, ())


def _from_source(
    engine: EngineRecipe,
    locked: LockedWheel,
    target: Target,
    cache: BlobCache,
    cache_dir: Path,
    listener: Listener,
) -> GatheredPack:
    place = fetch_sdist(locked, cache, listener)
    built = llama_cpp_source.build_pack(
        llama_cpp_source.SourceArchive(place, locked.version, locked.sha256.value),
        accelerator=engine.accelerator,
        arch=target.arch,
        cache=cache_dir,
        listener=listener,
    )
    return GatheredPack(built, {locked: read_sdist_license(place, locked.filename, cache)})


def _gather_vllm(
    engine: EngineRecipe,
    wheels: tuple[LockedWheel, ...],
    target: Target,
    cache: BlobCache,
    cache_dir: Path,
    listener: Listener,
) -> GatheredPack:
    """The wheels as they are, and what installs and runs them."""
    scripts = vllm_wheel.ALLOWED_SCRIPTS
    paths = fetch_wheels(wheels, target, cache, listener, allow_scripts=scripts)
    key = sha256(",".join(sorted(wheel.sha256.value for wheel in wheels)).encode()).hexdigest()
    work = cache_dir.resolve() / "vllm" / key[:24]
    work.mkdir(parents=True, exist_ok=True)
    built = vllm_wheel.build_pack(
        wheels, paths, package=engine.package, arch=target.arch, target_python=target.python,
        work=work,
    )
    carried = vllm_wheel.carried_wheels(wheels)
    return GatheredPack(
        built,
        read_wheel_licenses(wheels, paths, cache),
        {place: paths[filename] for filename, place in carried.items()},
    )


def wheel_requirements(engine: EngineRecipe) -> WheelRequirements:
    """What an engine's wheelhouse is resolved from."""
    if engine.kind == "vllm":
        return WheelRequirements(
            (engine.package, vllm_wheel.INSTALLER),
            vllm_wheel.left_out(engine.package),
            vllm_wheel.ALLOWED_SCRIPTS,
        )
    return WheelRequirements((engine.package,))


def unpack_together(
    wheels: Iterable[LockedWheel], paths: Mapping[str, Path], folder: Path
) -> Path:
    """All wheels' files in one tree below `folder`, as an installer would lay them."""
    library = folder / "library"
    for position, wheel in enumerate(wheels):
        unpacked = folder / str(position)
        unpack_wheel(paths[wheel.filename], unpacked, filename=wheel.filename)
        shutil.copytree(unpacked, library, dirs_exist_ok=True)
    return library


def read_wheel_licenses(
    wheels: Iterable[LockedWheel], paths: Mapping[str, Path], cache: BlobCache
) -> dict[LockedWheel, WheelLicense]:
    """What every wheel says of its licence, with the texts."""
    return {
        wheel: read_wheel_license(paths[wheel.filename], wheel.filename, cache) for wheel in wheels
    }
