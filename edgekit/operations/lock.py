"""`edgekit lock`: every name of a recipe resolved to content, once."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.digest import Digest
from edgekit.core.events import Listener
from edgekit.core.lock import (
    MAX_LOCK_BYTES,
    Lock,
    LockedVariant,
    LockedWheelhouse,
    encode_lock,
    parse_lock,
)
from edgekit.core.recipe import (
    MAX_RECIPE_BYTES,
    FolderSource,
    Recipe,
    Variant,
    parse_recipe,
)
from edgekit.errors import LockError
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
            _lock_variant(model.name, index, variant, base, cache, digests, listener)
            for model in recipe.models
            for index, variant in enumerate(model.variants)
        )
    lock = Lock(
        recipe=digest,
        variants=variants,
        wheelhouses=_lock_wheelhouses(recipe, cache, listener),
        images=tuple(
            lock_image(image.name, image.reference, recipe.target, listener)
            for image in recipe.images
        ),
    )
    durable_write(lock_path(recipe_path), encode_lock(lock))
    return lock


def _lock_variant(
    model: str,
    index: int,
    variant: Variant,
    base: Path,
    cache: BlobCache,
    digests: DigestCache,
    listener: Listener,
) -> LockedVariant:
    source = variant.source
    if isinstance(source, FolderSource):
        return LockedVariant(
            model, index, None, lock_folder(base / source.path, variant.files, digests, listener)
        )
    commit, files = lock_hub(source.repository, source.revision, variant.files, cache, listener)
    return LockedVariant(model, index, commit, files)


def _lock_wheelhouses(
    recipe: Recipe, cache: BlobCache, listener: Listener
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
                allow_scripts=asked.scripts,
            ),
        )
        for owner, asked in wanted
    )
