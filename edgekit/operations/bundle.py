"""`edgekit bundle`: from a recipe and its lock to one signed set on disk.

Everything is fetched by digest, laid out deterministically, signed last. The set appears under its
final name only when it is complete and has passed its own verification.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit import __version__
from edgekit.core import trust
from edgekit.core.adapter import CarriedAdapter
from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.derived import CARRIED_FOLDER
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.events import Finished, Listener, Started
from edgekit.core.facts import HostReport
from edgekit.core.layout import LARGE_BLOB_BYTES
from edgekit.core.lock import Lock, LockedFile, LockedWheel
from edgekit.core.modelfile import parse_modelfile
from edgekit.core.names import RelPath
from edgekit.core.planning.select import check_compatible
from edgekit.core.planning.trim import is_dropped, trim
from edgekit.core.provenance import Input, describe_build
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
from edgekit.core.release import (
    BLOCK_BYTES,
    MAX_VOLUME_BYTES,
    CarriedImage,
    Entry,
    Manifest,
    Requirements,
)
from edgekit.engines.pack import PackFile, tree_files, tree_glibc_floor
from edgekit.errors import (
    FormatError,
    IncompatibleHostError,
    RecipeError,
    SetShapeError,
    SourceError,
    TrustError,
)
from edgekit.operations.keys import expiry
from edgekit.operations.lock import load_lock, load_recipe, make_lock
from edgekit.operations.packs import gather_pack, read_wheel_licenses
from edgekit.operations.rehearse import Stage, rehearse
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.folder import fetch_folder, find_large
from edgekit.sources.host_program import FrozenLibrary, read_frozen_libraries
from edgekit.sources.hub import fetch_hub
from edgekit.sources.images import fetch_image
from edgekit.sources.licenses import WheelLicense, read_terms
from edgekit.sources.sbom import Gathered as SbomInputs
from edgekit.sources.sbom import render_sbom
from edgekit.sources.wheels import fetch_wheels
from edgekit.system.bundle_set import DraftSet, open_set, verify_draft_set, verify_set
from edgekit.system.digest_cache import DigestCache
from edgekit.system.early_volumes import write_early
from edgekit.system.files import (
    fsync_directory,
    read_bounded,
    remove_tree,
    translate_os_error,
)
from edgekit.system.freeze import freeze_runtime
from edgekit.system.set_writer import SetDraft, write_set
from edgekit.system.signing import PairSigner, load_signer
from edgekit.system.trust_store import HostTrust
from edgekit.system.volume_index import VolumeIndex
from edgekit.system.volume_writer import BlobSource
from edgekit.system.volumes import worker_count
from edgekit.system.weights import WeightsHeader, check_adapter, check_weights

RELEASE_YEARS = 5
MIN_SYSTEMD = 249


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """What the packager says. `keys` are signer URIs, `roots` the root documents to carry,
    oldest first."""

    recipe: Path
    out: Path
    cache: Path
    keys: tuple[str, ...]
    roots: tuple[Path, ...]
    locked: bool
    volume_bytes: int = MAX_VOLUME_BYTES
    host: HostReport | None = None
    """A host, or the floor of a class of hosts, that must be able to run the set."""
    rehearse: bool = True


@dataclass(frozen=True, slots=True)
class BundleResult:
    """A set: its folder, size in bytes, fingerprint of the root to read aloud.

    With `missing` above 0 it is a draft: so many of `may_sign` must sign before a host takes it.
    """

    directory: Path
    generation: str
    total_bytes: int
    volumes: int
    fingerprint: str
    developer: bool
    signed_by: tuple[str, ...]
    missing: int
    may_sign: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Part:
    """A file on its way into the set."""

    path: RelPath
    role: str
    source: Path
    executable: bool = False


def bundle(options: BundleOptions, listener: Listener) -> BundleResult:
    """Build, sign and verify a set.

    With fewer signatures than the root asks for it is a draft, verified in everything else. Raises
    RecipeError, LockError, SourceError, DiskFullError, TrustError; on failure nothing is
    left under the final name and the cache stays usable.
    """
    started = time.monotonic()
    recipe, digest = load_recipe(options.recipe)
    final = options.out / f"{recipe.name}-{recipe.version}"
    if final.exists():
        raise SetShapeError(
            "this set is already there and is never overwritten",
            where=str(final),
            hint="give another --out, or raise `version`",
        )
    roots = _load_roots(options.roots)
    signers = tuple(load_signer(uri) for uri in options.keys)
    if options.locked:
        load_lock(options.recipe, digest)
    _check_signers(signers, roots[-1])
    volumes = VolumeIndex(options.cache)
    early = _new_work_folder(options.out, f"{final.name}-new")
    try:
        _write_large_files(early, options, recipe, volumes, listener)
        return _bundle(
            options, recipe, digest, final=final, roots=roots, signers=signers, volumes=volumes,
            listener=listener, started=started,
        )
    finally:
        remove_tree(early)


def _write_large_files(
    folder: Path, options: BundleOptions, recipe: Recipe, volumes: VolumeIndex, listener: Listener
) -> None:
    """Volumes of large files that are new, of the read that names them; the set will link them."""
    if options.host is not None:
        return  # it may take no more than one of several variants
    base = options.recipe.resolve().parent
    files = [
        path
        for model in recipe.models
        for variant in model.variants if isinstance(variant.source, FolderSource)
        for path in find_large(base / variant.source.path, variant.files, LARGE_BLOB_BYTES)
    ]
    with DigestCache(options.cache) as digests:
        write_early(
            files, folder, algorithm=recipe.digest_algorithm,
            volume_bytes=options.volume_bytes // BLOCK_BYTES * BLOCK_BYTES, digests=digests,
            index=volumes, listener=listener,
        )


def _bundle(
    options: BundleOptions,
    recipe: Recipe,
    digest: Digest,
    *,
    final: Path,
    roots: tuple[trust.TrustedRoot, ...],
    signers: tuple[PairSigner, ...],
    volumes: VolumeIndex,
    listener: Listener,
    started: float,
) -> BundleResult:
    if not options.locked:
        make_lock(options.recipe, options.cache, listener)
    lock = load_lock(options.recipe, digest)
    with DigestCache(options.cache) as digests:
        gathered = _Gatherer(options, recipe, lock, digests, listener).gather()
        draft = _draft(
            options, recipe, lock, gathered, digests, signers=signers, roots=roots,
            listener=listener,
        )
    work = _new_work_folder(options.out, final.name)
    try:
        write_set(work, draft, listener, volumes)
        verified = _verify_own(work, roots[0])
        work.rename(final)
        fsync_directory(options.out)
        volumes.save(final, draft.digest_algorithm)
    except OSError as error:
        raise translate_os_error(error, "writing the set") from error
    finally:
        remove_tree(work)
    return BundleResult(
        directory=final,
        generation=verified.statement.generation,
        total_bytes=draft.manifest.total_bytes(),
        volumes=len(verified.table.volumes),
        fingerprint=roots[-1].fingerprint,
        developer=verified.root.developer,
        signed_by=verified.statement.tally.signed,
        missing=verified.statement.tally.missing,
        may_sign=verified.statement.tally.may_sign,
        seconds=time.monotonic() - started,
    )


def _load_roots(paths: tuple[Path, ...]) -> tuple[trust.TrustedRoot, ...]:
    """The chain of roots, each vouching for the next. Raises SignatureError or TrustError."""
    documents = [read_bounded(path, trust.MAX_ROOT_BYTES, path.name) for path in paths]
    roots = [trust.restore_root(documents[0])]
    for data in documents[1:]:
        roots.append(trust.extend_root(roots[-1], data))
    return tuple(roots)


def _check_signers(signers: tuple[PairSigner, ...], root: trust.TrustedRoot) -> None:
    for signer in signers:
        if root.name_of(signer.signer_keys()) is None:
            raise TrustError(
                "the root does not name this signer, so the signature would not count",
                found=signer.name,
                needed=f"one of {', '.join(root.signers('targets'))}",
            )


def _verify_own(work: Path, oldest: trust.TrustedRoot) -> DraftSet:
    """The set as a host will see it; all of that but the threshold while signatures are missing."""
    draft = verify_draft_set(open_set((work,)))
    if not draft.statement.tally.missing:
        verify_set(open_set((work,)), HostTrust(oldest))
    return draft


def _new_work_folder(out: Path, name: str) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=out))
        work.chmod(0o755)
    except OSError as error:
        raise translate_os_error(error, "making the set's folder") from error
    return work


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Everything that goes into the set, fetched and checked.

    `wheel_licenses` maps wheel file names to what they say of their licence; `terms` are the
    licence files that the recipe names and no lock does, `libraries` what is in the installer.
    """

    parts: tuple[_Part, ...]
    engines: tuple[EnginePack, ...]
    models: tuple[CarriedModel, ...]
    images: tuple[CarriedImage, ...]
    requirements: Requirements
    installer: Path
    program: Path
    wheel_licenses: dict[str, str]
    terms: tuple[Input, ...]
    libraries: tuple[FrozenLibrary, ...]


class _Gatherer:
    """Fetches what a lock names and turns it into the set's parts."""

    def __init__(
        self,
        options: BundleOptions,
        recipe: Recipe,
        lock: Lock,
        digests: DigestCache,
        listener: Listener,
    ) -> None:
        self._options = options
        self._digests = digests
        self._recipe = recipe
        self._lock = lock
        self._listener = listener
        self._cache = BlobCache(options.cache)
        self._base = options.recipe.resolve().parent
        self._parts: list[_Part] = []
        self._license_texts: dict[RelPath, Path] = {}
        self._wheel_licenses: dict[str, str] = {}
        self._terms: list[Input] = []

    def gather(self) -> _Gathered:
        models = tuple(self._model(model) for model in self._recipe.models)
        packs = tuple(self._engine(engine) for engine in self._recipe.engines)
        images = tuple(self._image(image.name) for image in self._recipe.images)
        for wheels in self._recipe.wheels:
            self._wheels(wheels.name)
        for derived in self._recipe.derived:
            self._derived(derived)
        runtime = freeze_runtime(self._options.cache, self._listener)
        assert runtime.one_file is not None
        files = tree_files(runtime.tree, "runtime", "edgekit")
        self._take(files, "runtime")
        libraries = read_frozen_libraries(runtime.one_file, self._cache)
        for library in libraries:
            self._take_license_texts(f"host/{library.name}-{library.version}", library.license)
        self._parts += [_Part(path, "license", text) for path, text in self._license_texts.items()]
        return _Gathered(
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
        self._parts += [_Part(f.path, role, f.source, f.executable) for f in files]

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
            weights.append((variant.format, fetched))
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
        path = RelPath(f"{CARRIED_FOLDER}/{derived.name}")
        self._parts.append(_Part(path, "document", text.place))
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
        shapes = [check_adapter(fetched, base) for base in bases]
        folder = f"models/{model.name}/adapters/{adapter.name}"
        self._terms_of(folder, adapter.terms)
        places = {RelPath(f"{folder}/{adapter.format}/{name}"): fetched[name] for name in fetched}
        self._parts += [_Part(path, "weights", source) for path, source in sorted(places.items())]
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
        for name, source in sorted(fetched.items()):
            path = RelPath(f"{prefix}/{name}")
            self._parts.append(_Part(path, "weights", source))
            paths.append(path)
        header = check_weights(variant.format, dict(sorted(fetched.items())))
        size = sum(source.stat().st_size for source in fetched.values())
        carried = CarriedVariant(
            format=variant.format,
            quantization=variant.quantization,
            files=tuple(paths),
            bytes=size,
            shape=tuple(sorted(header.shape.items())),
        )
        return carried, header

    def _engine(self, engine: EngineRecipe) -> EnginePack:
        gathered = gather_pack(
            engine, self._lock, self._recipe.target, self._cache, self._options.cache,
            self._listener,
        )
        self._note_wheel_licenses(gathered.wheel_licenses)
        self._take(gathered.built.files, "engine")
        self._parts += [_Part(path, "wheel", source) for path, source in gathered.wheels.items()]
        return gathered.built.pack

    def _wheels(self, name: str) -> None:
        wheels = self._lock.wheelhouse(f"wheels:{name}").wheels
        paths = fetch_wheels(wheels, self._recipe.target, self._cache, self._listener)
        self._note_wheel_licenses(read_wheel_licenses(wheels, paths, self._cache))
        self._parts += [
            _Part(RelPath(f"wheels/{name}/{filename}"), "wheel", path)
            for filename, path in sorted(paths.items())
        ]

    def _image(self, name: str) -> CarriedImage:
        locked = self._lock.image(name)
        blobs = fetch_image(locked, self._cache, self._listener)
        paths = []
        for digest, source in sorted(blobs.items()):
            path = RelPath(f"images/{name}/{digest.value}")
            self._parts.append(_Part(path, "image", source))
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


def _draft(
    options: BundleOptions,
    recipe: Recipe,
    lock: Lock,
    gathered: _Gathered,
    digests: DigestCache,
    *,
    signers: tuple[PairSigner, ...],
    roots: tuple[trust.TrustedRoot, ...],
    listener: Listener,
) -> SetDraft:
    """Hash every part and decide the set; nothing is written."""
    entries, blobs = _hash_parts(gathered.parts, BlobCache(options.cache), digests, listener)
    manifest = Manifest(
        name=recipe.name,
        version=recipe.version,
        created=_created(),
        users=recipe.users,
        requirements=gathered.requirements,
        entries=entries,
        engines=gathered.engines,
        models=gathered.models,
        images=gathered.images,
        rehearsed_on="",
    )
    if options.host is not None:
        check_compatible(manifest, options.host)
        whole, manifest = manifest, trim(manifest, options.host)
        kept = tuple(
            e for e in entries if not is_dropped(e.path, whole, manifest, options.host)
        )
        used = {entry.digest for entry in kept}
        manifest = replace(manifest, entries=kept)
        blobs = tuple(blob for blob in blobs if blob.digest in used)
    if options.rehearse:
        places = {blob.digest: blob.path for blob in blobs}
        stage = Stage(places, gathered.program, options.cache)
        manifest = replace(manifest, rehearsed_on=rehearse(manifest, stage, listener))
    return SetDraft(
        manifest=manifest,
        blobs=blobs,
        installer=gathered.installer,
        epoch=recipe.epoch,
        sequence=recipe.sequence,
        expires=expiry(manifest.created, RELEASE_YEARS),
        digest_algorithm=recipe.digest_algorithm,
        roots=tuple(root.data for root in roots),
        signers=signers,
        volume_bytes=options.volume_bytes,
        sbom=render_sbom(
            SbomInputs(
                recipe,
                lock,
                manifest,
                gathered.wheel_licenses,
                gathered.libraries,
                platform.python_version(),
            )
        ),
        build=describe_build(
            recipe,
            lock,
            created=manifest.created,
            locked=options.locked,
            edgekit=__version__,
            terms=gathered.terms,
        ),
    )


def _hash_parts(
    parts: tuple[_Part, ...], cache: BlobCache, digests: DigestCache, listener: Listener
) -> tuple[tuple[Entry, ...], tuple[BlobSource, ...]]:
    """Entries for the manifest, and the distinct blobs in the order they are laid out.

    Files that did not change since an earlier bundle with the same cache are not hashed again.
    """
    listener(Started("hash", None))
    entries = []
    blobs: dict[Digest, BlobSource] = {}
    with ThreadPoolExecutor(worker_count()) as pool:
        hashed = pool.map(digests.digests, [part.source for part in parts])
    for part, found in zip(parts, hashed, strict=True):
        cache.confirm(part.source, found.sha256)
        entries.append(Entry(part.path, part.role, found.size, found.sha384, part.executable))
        blobs.setdefault(found.sha384, BlobSource(found.sha384, found.size, part.source))
    listener(Finished("hash", f"{len(entries)} files"))
    return tuple(entries), tuple(blobs.values())


def _created() -> int:
    """Unix seconds of the set: SOURCE_DATE_EPOCH when given, for reproducible sets, else now."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text and not text.isdigit():
        raise FormatError("SOURCE_DATE_EPOCH is not a number of seconds", found=text[:40])
    return int(text) if text else int(time.time())
