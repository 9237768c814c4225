"""Gathering: all that a lock names, fetched by digest, checked, and given its place in the set.

What is written of it, how and where, is decided in `bundle.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.adapter import CarriedAdapter
from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.derived import CARRIED_FOLDER
from edgekit.core.engine_pack import EnginePack
from edgekit.core.events import Listener
from edgekit.core.lock import Lock, LockedFile, LockedWheel
from edgekit.core.modelfile import parse_modelfile
from edgekit.core.names import RelPath
from edgekit.core.preflight import MIN_SYSTEMD
from edgekit.core.provenance import Input
from edgekit.core.recipe import (
    AdapterRecipe,
    DerivedRecipe,
    EngineRecipe,
    FolderSource,
    HubSource,
    ModelRecipe,
    Recipe,
    Variant,
)
from edgekit.core.release import CarriedImage, Requirements
from edgekit.engines.pack import PackFile, tree_files, tree_glibc_floor
from edgekit.errors import IncompatibleHostError, RecipeError, SourceError
from edgekit.operations.packs import gather_pack, read_wheel_licenses
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.folder import fetch_folder
from edgekit.sources.host_program import FrozenLibrary, read_frozen_libraries
from edgekit.sources.hub import fetch_hub
from edgekit.sources.images import fetch_image
from edgekit.sources.licenses import WheelLicense, read_terms
from edgekit.sources.wheels import fetch_wheels
from edgekit.system.digest_cache import DigestCache
from edgekit.system.freeze import freeze_runtime
from edgekit.system.weights import WeightsHeader, check_adapter, check_weights


@dataclass(frozen=True, slots=True)
class Part:
    """A file on its way into the set."""

    path: RelPath
    role: str
    source: Path
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Gathered:
    """Everything that goes into the set, fetched and checked.

    `wheel_licenses` maps wheel file names to what they say of their licence; `terms` are the
    licence files that the recipe names and no lock does, `libraries` what is in the installer.
    """

    parts: tuple[Part, ...]
    engines: tuple[EnginePack, ...]
    models: tuple[CarriedModel, ...]
    images: tuple[CarriedImage, ...]
    requirements: Requirements
    installer: Path
    program: Path
    wheel_licenses: dict[str, str]
    terms: tuple[Input, ...]
    libraries: tuple[FrozenLibrary, ...]


def gather(
    recipe: Recipe,
    lock: Lock,
    *,
    base: Path,
    cache: Path,
    digests: DigestCache,
    listener: Listener,
) -> Gathered:
    """Fetch and check all that the set will hold; `base` is the folder of the recipe.

    What comes from afar, or is frozen here, is kept in `cache` and taken from there. Raises
    RecipeError, LockError, SourceError, RefusedContentError or IncompatibleHostError.
    """
    return _Gatherer(recipe, lock, base, cache, digests, listener).gather()


class _Gatherer:
    """Fetches what a lock names and turns it into the set's parts."""

    def __init__(
        self,
        recipe: Recipe,
        lock: Lock,
        base: Path,
        cache: Path,
        digests: DigestCache,
        listener: Listener,
    ) -> None:
        self._recipe = recipe
        self._lock = lock
        self._base = base
        self._folder = cache
        self._cache = BlobCache(cache)
        self._digests = digests
        self._listener = listener
        self._parts: list[Part] = []
        self._license_texts: dict[RelPath, Path] = {}
        self._wheel_licenses: dict[str, str] = {}
        self._terms: list[Input] = []

    def gather(self) -> Gathered:
        models = tuple(self._model(model) for model in self._recipe.models)
        packs = tuple(self._engine(engine) for engine in self._recipe.engines)
        images = tuple(self._image(image.name) for image in self._recipe.images)
        for wheels in self._recipe.wheels:
            self._wheels(wheels.name)
        for derived in self._recipe.derived:
            self._derived(derived)
        runtime = freeze_runtime(self._folder, self._listener)
        assert runtime.one_file is not None
        files = tree_files(runtime.tree, "runtime", "edgekit")
        self._take(files, "runtime")
        libraries = read_frozen_libraries(runtime.one_file, self._cache)
        for library in libraries:
            self._take_license_texts(f"host/{library.name}-{library.version}", library.license)
        self._parts += [Part(path, "license", text) for path, text in self._license_texts.items()]
        return Gathered(
            parts=tuple(sorted(self._parts, key=lambda part: str(part.path))),
            engines=packs,
            models=models,
            images=images,
            requirements=self._requirements(files, packs),
            installer=runtime.one_file,
            program=runtime.tree / "edgekit",
            wheel_licenses=self._wheel_licenses,
            terms=tuple(self._terms),
            libraries=libraries,
        )

    def _requirements(
        self, runtime: tuple[PackFile, ...], packs: tuple[EnginePack, ...]
    ) -> Requirements:
        """The strictest of all parts; a part newer than the recipe's target is refused."""
        target = self._recipe.target
        floor = max([tree_glibc_floor(runtime), *(pack.glibc for pack in packs)])
        if floor > target.glibc:
            raise IncompatibleHostError(
                "frozen programs need a newer C library than the recipe's target",
                found=f"glibc {floor[0]}.{floor[1]}",
                needed=f"glibc {target.glibc[0]}.{target.glibc[1]} or older",
                hint="bundle on an older distribution, or raise target.glibc in the recipe",
            )
        machine = os.uname().machine
        if machine != target.arch:
            raise IncompatibleHostError(
                "programs can only be frozen for this machine's own architecture",
                found=machine,
                needed=target.arch,
                hint="bundle on a machine of the target's architecture",
            )
        needed = [set(pack.cpu_flags) for pack in packs]
        flags = sorted(set.intersection(*needed)) if needed else []
        return Requirements(target.arch, floor, tuple(flags), MIN_SYSTEMD)

    def _take(self, files: tuple[PackFile, ...], role: str) -> None:
        self._parts += [Part(f.path, role, f.source, f.executable) for f in files]

    def _model(self, model: ModelRecipe) -> CarriedModel:
        variants = []
        headers = []
        weights = []
        for index, variant in enumerate(model.variants):
            locked = self._lock.variant(model.name, index)
            fetched = self._fetch(model.name, variant.source, locked.commit, locked.files)
            carried, header = self._variant(model, index, variant, fetched)
            variants.append(carried)
            headers.append(header)
            own = {name: path for name, path in fetched.items() if name != variant.mmproj}
            weights.append((variant.format, own))
        self._terms_of(f"models/{model.name}", model.terms)
        return CarriedModel(
            name=model.name,
            context=model.context,
            license=model.license,
            family=headers[-1].family,
            parameter_count=headers[-1].parameter_count,
            variants=tuple(variants),
            canaries=tuple((canary.prompt, canary.answer) for canary in model.canaries),
            capabilities=_capabilities(model, headers),
            pooling=model.pooling,
            load=model.load,
            min_tokens_per_second=model.min_tokens_per_second,
            adapters=tuple(self._adapter(model, one, weights) for one in model.adapters),
        )

    def _terms_of(self, owner: str, terms: str) -> None:
        """Carry the licence or terms that the recipe names for a model or an adapter."""
        if not terms:
            return
        text = read_terms(self._base / terms, f"terms of {owner}", self._cache)
        path = RelPath(f"licenses/{owner}/{text.name}")
        self._license_texts[path] = text.place
        self._terms.append(Input(str(path), text.digest))

    def _derived(self, derived: DerivedRecipe) -> None:
        """Carry a Modelfile that makes a model of another one of this recipe."""
        where = f"Modelfile of model {derived.name}"
        text = read_terms(self._base / derived.modelfile, where, self._cache)
        data = text.place.read_bytes()
        made = parse_modelfile(data, file=derived.modelfile)
        bases = {model.name: model for model in self._recipe.models}
        if made.base not in bases:
            raise RecipeError(
                "a Modelfile names a model that the recipe does not have",
                where=derived.modelfile, found=f"FROM {made.base}",
                needed=", ".join(bases) or "a model",
            )
        names = {adapter.name for adapter in bases[made.base].adapters}
        if unknown := sorted(set(made.adapters) - names):
            raise RecipeError(
                "a Modelfile names an adapter that the recipe's model does not have",
                where=derived.modelfile, found=f"ADAPTER {unknown[0]}",
                needed=", ".join(sorted(names)) or f"[[model.adapter]] of {made.base}",
            )
        base = bases[made.base]
        formats = {variant.format for variant in base.variants}
        if made.template and (base.task != "chat" or formats != {"gguf"}):
            raise RecipeError(
                "a TEMPLATE is for models that chat and that llama.cpp serves",
                where=derived.modelfile, found=f"FROM {made.base}",
                needed="a model with the task chat, all of whose variants are GGUF",
            )
        if len(made.adapters) > 1 and "safetensors" in formats:
            raise RecipeError(
                "vLLM computes a request with one adapter", where=derived.modelfile,
                found=f"{len(made.adapters)} times ADAPTER", needed="one, or a model in GGUF alone",
            )
        path = RelPath(f"{CARRIED_FOLDER}/{derived.name}")
        self._parts.append(Part(path, "document", text.place))
        self._terms.append(Input(str(path), text.digest))

    def _note_wheel_licenses(self, found: dict[LockedWheel, WheelLicense]) -> None:
        """Carry the licence texts of wheels, once however often a wheel is used."""
        for wheel, license_ in found.items():
            self._wheel_licenses[wheel.filename] = license_.name
            self._take_license_texts(f"wheels/{wheel.name}-{wheel.version}", license_)

    def _take_license_texts(self, folder: str, found: WheelLicense) -> None:
        for text in found.texts:
            self._license_texts[RelPath(f"licenses/{folder}/{text.name}")] = text.place

    def _fetch(
        self,
        model: str,
        source: FolderSource | HubSource,
        commit: str | None,
        files: tuple[LockedFile, ...],
    ) -> dict[RelPath, Path]:
        if isinstance(source, FolderSource):
            return fetch_folder(self._base / source.path, files, self._digests, self._listener)
        if commit is None:
            raise SourceError(f"lock of {model} has no commit", hint="edgekit lock RECIPE")
        return fetch_hub(source.repository, commit, files, self._cache, self._listener)

    def _adapter(
        self,
        model: ModelRecipe,
        adapter: AdapterRecipe,
        weights: list[tuple[str, dict[RelPath, Path]]],
    ) -> CarriedAdapter:
        """Carry an adapter that fits every variant which an engine could give it to."""
        where = f"adapter {adapter.name} of model {model.name}"
        bases = [files for format_, files in weights if format_ == adapter.format]
        if not bases:
            raise RecipeError(
                "no variant of the model has the adapter's format", where=where,
                found=adapter.format, needed=f"a variant with format = {adapter.format!r}",
            )
        locked = self._lock.adapter(model.name, adapter.name, adapter.format)
        fetched = self._fetch(model.name, adapter.source, locked.commit, locked.files)
        shapes = [check_adapter(adapter.format, fetched, base) for base in bases]
        folder = f"models/{model.name}/adapters/{adapter.name}"
        self._terms_of(folder, adapter.terms)
        places = {RelPath(f"{folder}/{adapter.format}/{name}"): fetched[name] for name in fetched}
        self._parts += [Part(path, "weights", source) for path, source in sorted(places.items())]
        return CarriedAdapter(
            name=adapter.name,
            format=adapter.format,
            license=adapter.license,
            files=tuple(sorted(places)),
            shape=shapes[0],
            canaries=tuple((canary.prompt, canary.answer) for canary in adapter.canaries),
        )

    def _variant(
        self, model: ModelRecipe, index: int, variant: Variant, fetched: dict[RelPath, Path]
    ) -> tuple[CarriedVariant, WeightsHeader]:
        prefix = f"models/{model.name}/{index}-{variant.quantization.lower()}"
        paths = []
        # the projector last: what an engine opens is the first
        ordered = sorted(fetched.items(), key=lambda item: (item[0] == variant.mmproj, item[0]))
        for name, source in ordered:
            path = RelPath(f"{prefix}/{name}")
            self._parts.append(Part(path, "weights", source))
            paths.append(path)
        header = check_weights(variant.format, dict(ordered), variant.mmproj)
        size = sum(source.stat().st_size for source in fetched.values())
        carried = CarriedVariant(
            format=variant.format,
            quantization=variant.quantization,
            files=tuple(paths),
            bytes=size,
            shape=tuple(sorted(header.shape.items())),
            mmproj=paths[-1] if variant.mmproj else None,
        )
        return carried, header

    def _engine(self, engine: EngineRecipe) -> EnginePack:
        gathered = gather_pack(
            engine, self._lock, self._recipe.target, self._cache, self._folder,
            self._listener,
        )
        self._note_wheel_licenses(gathered.wheel_licenses)
        self._take(gathered.built.files, "engine")
        self._parts += [Part(path, "wheel", source) for path, source in gathered.wheels.items()]
        return gathered.built.pack

    def _wheels(self, name: str) -> None:
        wheels = self._lock.wheelhouse(f"wheels:{name}").wheels
        paths = fetch_wheels(wheels, self._recipe.target, self._cache, self._listener)
        self._note_wheel_licenses(read_wheel_licenses(wheels, paths, self._cache))
        self._parts += [
            Part(RelPath(f"wheels/{name}/{filename}"), "wheel", path)
            for filename, path in sorted(paths.items())
        ]

    def _image(self, name: str) -> CarriedImage:
        locked = self._lock.image(name)
        blobs = fetch_image(locked, self._cache, self._listener)
        paths = []
        for digest, source in sorted(blobs.items()):
            path = RelPath(f"images/{name}/{digest.value}")
            self._parts.append(Part(path, "image", source))
            paths.append(path)
        return CarriedImage(name, locked.reference, locked.manifest.digest, tuple(paths))


def _capabilities(model: ModelRecipe, headers: list[WeightsHeader]) -> tuple[str, ...]:
    """What the model can do, whichever variant a host takes. Raises RecipeError."""
    if model.task == "embedding":
        if not model.pooling and not all(header.pooling for header in headers):
            raise RecipeError(
                f"the weights of {model.name} do not say how they pool",
                where=f"model {model.name}",
                needed='pooling = "mean", "cls" or "last" in the recipe',
            )
        return ("embedding",)
    if model.task == "rerank":
        if not all(header.ranks for header in headers):
            raise RecipeError(
                f"the weights of {model.name} have no head that ranks",
                where=f"model {model.name}",
                needed="a GGUF file with cls.weight or cls.output.weight",
            )
        return ("rerank",)
    shared = set.intersection(*(set(header.capabilities) for header in headers))
    return ("completion", *sorted(shared))
