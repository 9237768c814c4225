"""`edgekit lock`: every name of a recipe resolved to content, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.core.digest import Digest
from edgekit.core.events import Listener
from edgekit.core.lock import (
    MAX_LOCK_BYTES,
    Lock,
    LockedAdapter,
    LockedFile,
    LockedVariant,
    LockedWheel,
    LockedWheelhouse,
    encode_lock,
    parse_lock,
)
from edgekit.core.recipe import (
    MAX_RECIPE_BYTES,
    AdapterRecipe,
    FolderSource,
    Recipe,
    Variant,
    parse_recipe,
)
from edgekit.errors import HostError, LockError
from edgekit.operations.packs import WheelRequirements, wheel_requirements
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.folder import lock_folder
from edgekit.sources.hub import lock_hub
from edgekit.sources.images import lock_image
from edgekit.sources.sdists import lock_sdist
from edgekit.sources.wheels import lock_wheels
from edgekit.system.digest_cache import DigestCache
from edgekit.system.files import durable_write, read_bounded


def load_recipe(path: Path) -> tuple[Recipe, Digest]:
    """A recipe and the SHA-384 of its bytes. Raises RecipeError or HostError."""
    data = read_bounded(path, MAX_RECIPE_BYTES, "recipe")
    return parse_recipe(data, file=str(path)), Digest.of(data)


def lock_path(recipe: Path) -> Path:
    """`demo.toml` locks into `demo.lock.json` beside it."""
    return recipe.with_name(recipe.stem + ".lock.json")


def load_lock(recipe: Path, digest: Digest) -> Lock:
    """The lock beside a recipe. Raises LockError when missing, malformed or of another recipe."""
    path = lock_path(recipe)
    if not path.exists():
        raise LockError("this recipe has no lock", where=str(path), hint=f"edgekit lock {recipe}")
    lock = parse_lock(read_bounded(path, MAX_LOCK_BYTES, "lock"), file=str(path))
    if lock.recipe != digest:
        raise LockError(
            "the lock is of an older recipe",
            where=str(path),
            found=f"recipe {lock.recipe.short}",
            needed=f"recipe {digest.short}",
            hint=f"edgekit lock {recipe}",
        )
    return lock


def make_lock(recipe_path: Path, cache_dir: Path, listener: Listener) -> Lock:
    """Resolve a recipe and write its lock beside it.

    Raises SourceError and its kin; on failure an older lock is untouched.
    """
    recipe, digest = load_recipe(recipe_path)
    cache = BlobCache(cache_dir)
    base = recipe_path.resolve().parent
    with DigestCache(cache_dir) as digests:
        variants = tuple(
            LockedVariant(
                model.name, index, *_lock_files(variant, base, cache, digests, listener)
            )
            for model in recipe.models
            for index, variant in enumerate(model.variants)
        )
        adapters = tuple(
            LockedAdapter(
                model.name, adapter.name, adapter.format,
                *_lock_files(adapter, base, cache, digests, listener),
            )
            for model in recipe.models
            for adapter in model.adapters
        )
    lock = Lock(
        recipe=digest,
        variants=variants,
        wheelhouses=_lock_wheelhouses(recipe, _earlier(recipe_path, digest), cache, listener),
        images=tuple(
            lock_image(image.name, image.reference, recipe.target, listener)
            for image in recipe.images
        ),
        adapters=adapters,
    )
    durable_write(lock_path(recipe_path), encode_lock(lock))
    return lock


def _lock_files(
    wanted: Variant | AdapterRecipe,
    base: Path,
    cache: BlobCache,
    digests: DigestCache,
    listener: Listener,
) -> tuple[str | None, tuple[LockedFile, ...]]:
    """The commit, where there is one, and every file of weights by its content."""
    source = wanted.source
    if isinstance(source, FolderSource):
        return None, lock_folder(base / source.path, wanted.files, digests, listener)
    return lock_hub(source.repository, source.revision, wanted.files, cache, listener)


def _earlier(recipe_path: Path, digest: Digest) -> Mapping[str, Sequence[LockedWheel]]:
    """The wheels, by their owner, of the lock that this very recipe has by now."""
    try:
        lock = load_lock(recipe_path, digest)
    except (LockError, HostError):
        return {}  # none, an older recipe's, or a damaged one: it is written anew
    return {wheelhouse.owner: wheelhouse.wheels for wheelhouse in lock.wheelhouses}


def _lock_wheelhouses(
    recipe: Recipe,
    earlier: Mapping[str, Sequence[LockedWheel]],
    cache: BlobCache,
    listener: Listener,
) -> tuple[LockedWheelhouse, ...]:
    engines = [
        (f"engine:{e.kind}:{e.provider}", e) for e in recipe.engines if e.provider != "image"
    ]
    sources = tuple(
        LockedWheelhouse(owner, (lock_sdist(engine.package, cache, listener),))
        for owner, engine in engines
        if engine.provider == "source"
    )
    wanted = [
        (owner, wheel_requirements(engine))
        for owner, engine in engines
        if engine.provider != "source"
    ]
    wanted += [(f"wheels:{w.name}", WheelRequirements(w.requirements)) for w in recipe.wheels]
    return sources + tuple(
        LockedWheelhouse(
            owner,
            lock_wheels(
                asked.requirements, recipe.target, cache, listener, without=asked.without,
                allow_scripts=asked.scripts, earlier=earlier.get(owner, ()),
            ),
        )
        for owner, asked in wanted
    )
