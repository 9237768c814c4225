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
from edgekit.core.digest import Digest
from edgekit.core.events import Finished, Listener, Started
from edgekit.core.facts import HostReport
from edgekit.core.layout import LARGE_BLOB_BYTES
from edgekit.core.lock import Lock
from edgekit.core.planning.select import check_compatible
from edgekit.core.planning.trim import is_dropped, trim
from edgekit.core.provenance import describe_build
from edgekit.core.recipe import (
    FolderSource,
    Recipe,
)
from edgekit.core.release import (
    BLOCK_BYTES,
    MAX_VOLUME_BYTES,
    Entry,
    Manifest,
)
from edgekit.errors import (
    FormatError,
    SetShapeError,
    TrustError,
)
from edgekit.operations.gather import Gathered, Part, gather
from edgekit.operations.keys import expiry
from edgekit.operations.lock import load_lock, load_recipe, make_lock
from edgekit.operations.rehearse import Stage, rehearse
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.folder import find_large
from edgekit.sources.sbom import Gathered as SbomInputs
from edgekit.sources.sbom import render_sbom
from edgekit.system.bundle_set import DraftSet, open_set, verify_draft_set, verify_set
from edgekit.system.digest_cache import DigestCache
from edgekit.system.early_volumes import write_early
from edgekit.system.files import (
    fsync_directory,
    read_bounded,
    remove_tree,
    translate_os_error,
)
from edgekit.system.set_writer import SetDraft, write_set
from edgekit.system.signing import PairSigner, load_signer
from edgekit.system.trust_store import HostTrust
from edgekit.system.volume_index import VolumeIndex
from edgekit.system.volume_writer import BlobSource
from edgekit.system.volumes import worker_count

RELEASE_YEARS = 5


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
        gathered = gather(
            recipe, lock, base=options.recipe.resolve().parent, cache=options.cache,
            digests=digests, listener=listener,
        )
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


def _draft(
    options: BundleOptions,
    recipe: Recipe,
    lock: Lock,
    gathered: Gathered,
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
    parts: tuple[Part, ...], cache: BlobCache, digests: DigestCache, listener: Listener
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
