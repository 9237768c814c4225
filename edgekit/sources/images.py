"""Container images from a registry, through skopeo.

A reference is resolved to one architecture's manifest when the lock is made; fetching asks for that
manifest by its digest, so a tag that moves changes nothing. Environment: CONTAINERS_REGISTRIES_CONF
names another registries.conf, REGISTRY_AUTH_FILE the credentials.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Finished, Listener, Started, ignore_events
from edgekit.core.lock import LockedBlob, LockedImage
from edgekit.core.recipe import Target
from edgekit.core.strict_json import parse_strict
from edgekit.errors import (
    DiskFullError,
    EdgekitError,
    FormatError,
    RefusedContentError,
    SourceDigestError,
    SourceError,
    UnreachableError,
)
from edgekit.sources.blob_cache import BlobCache
from edgekit.system.process import redact, run

MAX_MANIFEST_BYTES = 4 << 20
MAX_LAYERS = 128
INSPECT_TIMEOUT_S = 120.0
COPY_TIMEOUT_S = 6 * 3600.0

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
CONFIG_TYPES = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
LAYER_TYPES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_BASE_VARIANTS = (None, "", "v1", "v8")
_OFFLINE = ("connection refused", "no such host", "i/o timeout", "network is unreachable",
            "no route to host", "dial tcp", "TLS handshake timeout", "connection reset",
            "temporary failure in name resolution", "503 Service Unavailable")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image reference taken apart: `name[:tag][@digest]`."""

    name: str
    tag: str | None
    digest: Digest | None


def parse_reference(text: str) -> Reference:
    """Split a reference. Raises SourceError when it is not one."""
    match = re.fullmatch(
        r"([\w.-]+(?::\d+(?=/))?(?:/[\w.-]+)*)(?::([\w][\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?",
        text,
    )
    if match is None:
        raise SourceError("not an image reference", where=text,
                          needed="name:tag, name@sha256:digest, or both")
    name, tag, digest = match.groups()
    return Reference(name, tag, Digest.parse(digest) if digest else None)


def lock_image(
    name: str, reference: str, target: Target, listener: Listener = ignore_events
) -> LockedImage:
    """The manifest, configuration and layers that `reference` names now for the target's arch.

    A reference with tag and digest is refused when the tag no longer names that digest. Raises
    RefusedContentError (foreign layers, schema 1, unknown media types), UnreachableError,
    MissingToolError, SourceDigestError, or SourceError for what the registry does not have.
    """
    task = f"resolve {reference}"
    listener(Started(task))
    parsed = parse_reference(reference)
    manifest, data = _resolve(parsed, target)
    table = _document(data, f"manifest of {reference}")
    blobs = _blobs(table, reference)
    _check_platform(parsed, manifest, blobs[0], target)
    listener(Finished(task, manifest.digest.short))
    return LockedImage(name, reference, manifest, blobs)


def fetch_image(
    locked: LockedImage, cache: BlobCache, listener: Listener = ignore_events
) -> dict[Digest, Path]:
    """The place in the cache of the manifest and of every blob, fetching what is not there yet.

    Raises SourceDigestError naming a blob of which other bytes arrived (they are not kept),
    UnreachableError, MissingToolError, DiskFullError or SourceError.
    """
    wanted = (locked.manifest, *locked.blobs)
    if not all(cache.has(blob.digest, blob.size) for blob in wanted):
        task = f"fetch {locked.reference}"
        listener(Started(task, sum(blob.size for blob in wanted)))
        _copy(locked, wanted, cache, listener, task)
        listener(Finished(task))
    return {blob.digest: cache.path(blob.digest) for blob in wanted}


def _copy(
    locked: LockedImage, wanted: tuple[LockedBlob, ...], cache: BlobCache, listener: Listener,
    task: str,
) -> None:
    source = f"docker://{parse_reference(locked.reference).name}@{locked.manifest.digest}"
    with cache.scratch() as folder:
        _skopeo(locked.reference, COPY_TIMEOUT_S, "copy", "--quiet", "--preserve-digests",
                "--retry-times", "3", source, f"dir:{folder}")
        for blob in wanted:
            file = folder / ("manifest.json" if blob is locked.manifest else blob.digest.value)
            _adopt(locked, blob, file, cache)
            listener(Advanced(task, blob.size))


def _adopt(locked: LockedImage, blob: LockedBlob, file: Path, cache: BlobCache) -> None:
    where = f"{locked.reference} {blob.digest}"
    if not file.is_file():
        raise SourceDigestError("the registry did not send a blob of the lock", where=where)
    if file.stat().st_size != blob.size:
        raise SourceDigestError("the registry sent other bytes than the lock recorded", where=where,
                                found=f"{file.stat().st_size} bytes", needed=f"{blob.size} bytes")
    cache.add_file(file, blob.digest, move=True, where=where)


def _resolve(parsed: Reference, target: Target) -> tuple[LockedBlob, bytes]:
    """The target's manifest and its bytes, through an index where there is one."""
    top = _top(parsed)
    table = _document(top, parsed.name)
    media_type = _media_type(table, parsed.name)
    if media_type in MANIFEST_TYPES:
        return LockedBlob(media_type, len(top), Digest.of(top, "sha256")), top
    if media_type not in INDEX_TYPES:
        raise _refused(parsed.name, f"media type {media_type}")
    entry = _pick(table, target, parsed.name)
    chosen = _descriptor(entry, MANIFEST_TYPES, parsed.name)
    data = _raw(f"{parsed.name}@{chosen.digest}")
    if len(data) != chosen.size or Digest.of(data, "sha256") != chosen.digest:
        raise SourceDigestError("the registry sent another manifest than its index names",
                                where=parsed.name, needed=str(chosen.digest))
    return chosen, data


def _top(parsed: Reference) -> bytes:
    """What the reference itself names: an index or a manifest."""
    if parsed.digest is None:
        return _raw(f"{parsed.name}:{parsed.tag or 'latest'}")
    if parsed.tag is not None:
        now = Digest.of(_raw(f"{parsed.name}:{parsed.tag}"), "sha256")
        if now != parsed.digest:
            raise SourceDigestError(
                "the tag names other content than the digest in the recipe",
                where=f"{parsed.name}:{parsed.tag}", found=str(now), needed=str(parsed.digest),
                hint="check with the publisher, then change the digest in the recipe",
            )
    data = _raw(f"{parsed.name}@{parsed.digest}")
    if Digest.of(data, "sha256") != parsed.digest:
        raise SourceDigestError("the registry sent other bytes than the digest names",
                                where=parsed.name, needed=str(parsed.digest))
    return data


def _pick(index: Mapping[str, Any], target: Target, where: str) -> Mapping[str, Any]:
    """The one entry of an index for Linux on the target's architecture, baseline variant."""
    wanted = _ARCHITECTURES[target.arch]
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _refused(where, "an index without a list of manifests")
    platforms = [(entry, entry.get("platform")) for entry in entries]
    fitting: list[dict[str, Any]] = [
        entry for entry, platform in platforms
        if isinstance(platform, dict) and platform.get("os") == "linux"
        and platform.get("architecture") == wanted and platform.get("variant") in _BASE_VARIANTS
    ]
    if len(fitting) != 1:
        raise SourceError(f"the index has {len(fitting)} images for linux/{wanted}", where=where,
                          needed="exactly one")
    return fitting[0]


def _check_platform(
    parsed: Reference, manifest: LockedBlob, config: LockedBlob, target: Target
) -> None:
    """What the configuration says of itself decides, not what an index says of it."""
    data = _inspect(f"{parsed.name}@{manifest.digest}", "--config", "--raw")
    if Digest.of(data, "sha256") != config.digest:
        raise SourceDigestError("the registry sent another configuration than the manifest names",
                                where=parsed.name, needed=str(config.digest))
    table = _document(data, f"configuration of {parsed.name}")
    found = f"{table.get('os')}/{table.get('architecture')}"
    wanted = f"linux/{_ARCHITECTURES[target.arch]}"
    if found != wanted:
        raise SourceError("the image is for another platform", where=parsed.name, found=found,
                          needed=wanted)


def _blobs(manifest: Mapping[str, Any], where: str) -> tuple[LockedBlob, ...]:
    """Configuration first, then the layers in order; a layer used twice is listed once."""
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise _refused(where, "a manifest without a list of layers, or with too many")
    found = [_descriptor(manifest.get("config"), CONFIG_TYPES, where)]
    found.extend(_descriptor(layer, LAYER_TYPES, where) for layer in layers)
    return tuple({blob.digest: blob for blob in found}.values())


def _descriptor(entry: Any, types: tuple[str, ...], where: str) -> LockedBlob:
    if not isinstance(entry, dict):
        raise _refused(where, "a descriptor that is not a table")
    media_type, size, digest = entry.get("mediaType"), entry.get("size"), entry.get("digest")
    if media_type not in types:
        raise _refused(where, f"media type {media_type!r}")
    if entry.get("urls"):
        raise _refused(where, "a foreign layer, whose bytes are elsewhere")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise _refused(where, f"size {size!r}")
    if not isinstance(digest, str) or not digest.startswith("sha256:"):
        raise _refused(where, f"digest {str(digest)[:80]!r}")
    return LockedBlob(media_type, size, Digest.parse(digest))


def _media_type(table: Mapping[str, Any], where: str) -> str:
    """The document's own media type; OCI allows it to be absent, so the shape decides then."""
    if table.get("schemaVersion") != 2:
        raise _refused(where, f"manifest schema {table.get('schemaVersion')!r}")
    named = table.get("mediaType")
    if isinstance(named, str):
        return named
    return INDEX_TYPES[0] if "manifests" in table else MANIFEST_TYPES[0]


def _document(data: bytes, what: str) -> dict[str, Any]:
    try:
        table = parse_strict(data, max_bytes=MAX_MANIFEST_BYTES, what=what)
    except FormatError as error:
        raise _refused(what, error.message) from error
    if not isinstance(table, dict):
        raise _refused(what, "not a table")
    return table


def _refused(where: str, reason: str) -> RefusedContentError:
    return RefusedContentError(f"{where} is refused: {reason}", where=where, found=reason)


def _raw(reference: str) -> bytes:
    return _inspect(reference, "--raw")


def _inspect(reference: str, *options: str) -> bytes:
    return _skopeo(reference, INSPECT_TIMEOUT_S, "inspect", "--retry-times", "2", *options,
                   f"docker://{reference}")


def _skopeo(reference: str, timeout_s: float, *arguments: str) -> bytes:
    """Run skopeo and return its output; its complaint becomes an error that names `reference`."""
    argv = ["skopeo"]
    # skopeo 1.9 does not read the variable that podman reads.
    if config := os.environ.get("CONTAINERS_REGISTRIES_CONF"):
        argv += ["--registries-conf", config]
    done = run([*argv, *arguments], timeout_s=timeout_s, check=False)
    if done.returncode != 0:
        raise _explain(redact(done.stderr.decode("utf-8", "replace")), reference)
    return done.stdout


def _explain(complaint: str, reference: str) -> EdgekitError:
    match = re.search(r'level=fatal msg="(.*)"', complaint)
    text = (match[1] if match else complaint.strip())[-400:]
    low = complaint.lower()
    if "no space left on device" in low:
        return DiskFullError("fetching an image: the file system is full", where=reference,
                             hint="df -h")
    if any(phrase.lower() in low for phrase in _OFFLINE):
        return UnreachableError(f"{reference}: the registry cannot be reached", found=text,
                                hint="check the network and the registry's name, then run it again")
    if "digest mismatch" in low or "does not match" in low or "digest did not match" in low:
        return SourceDigestError("the registry sent other bytes than the digest names",
                                 where=reference, found=text)
    if "manifest unknown" in low or "blob unknown" in low or "name unknown" in low:
        return SourceError(f"{reference} is not in the registry", found=text,
                           hint="check the name; if the image was removed, edgekit lock RECIPE")
    return SourceError(f"{reference} cannot be fetched", found=text)
