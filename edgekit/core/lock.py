"""Locks: every name of a recipe resolved once to content.

A lock is JSON (`edgekit.lock/1`), written beside the recipe, reviewed and committed like code. It
records no host names: a name plus a digest is enough to fetch from any mirror and to refuse a lie.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgekit.core.adapter import FORMATS as ADAPTER_FORMATS
from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN, RelPath
from edgekit.core.strict_json import parse_strict
from edgekit.errors import EdgekitError, LockError

SCHEMA = "edgekit.lock/1"
MAX_LOCK_BYTES = 16 << 20
MAX_FILE_BYTES = 1 << 50
WHEEL_PATTERN = r"[A-Za-z0-9_.+!-]{1,200}\.(?:whl|tar\.gz)"
COMMIT_PATTERN = r"(?:[0-9a-f]{40})?"
REFERENCE_PATTERN = r"[a-zA-Z0-9][\w.:/@-]{2,300}"


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One file of a source: path below it, size in bytes, SHA-256 (the hubs' own algorithm)."""

    path: RelPath
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class LockedVariant:
    """A variant's files; `commit` is 40 hex digits for a hub source and None for a folder."""

    model: str
    index: int
    commit: str | None
    files: tuple[LockedFile, ...]


@dataclass(frozen=True, slots=True)
class LockedAdapter:
    """An adapter's files, by its model, name and format; `commit` as of a variant."""

    model: str
    name: str
    format: str
    commit: str | None
    files: tuple[LockedFile, ...]


@dataclass(frozen=True, slots=True)
class LockedWheel:
    """One wheel by its distribution name, version, file name, size in bytes and SHA-256.

    Of an engine from source it is the source archive (`.tar.gz`).
    """

    name: str
    version: str
    filename: str
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class LockedWheelhouse:
    """The closed set of wheels of one `[[wheels]]` entry or one engine package."""

    owner: str
    wheels: tuple[LockedWheel, ...]


@dataclass(frozen=True, slots=True)
class LockedBlob:
    """An OCI blob: media type, size in bytes, SHA-256."""

    media_type: str
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class LockedImage:
    """An image for one architecture: its manifest, config and layers, all by digest."""

    name: str
    reference: str
    manifest: LockedBlob
    blobs: tuple[LockedBlob, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """All of a recipe, resolved. `recipe` is the SHA-384 of the recipe's bytes."""

    recipe: Digest
    variants: tuple[LockedVariant, ...]
    wheelhouses: tuple[LockedWheelhouse, ...]
    images: tuple[LockedImage, ...]
    adapters: tuple[LockedAdapter, ...] = ()

    def variant(self, model: str, index: int) -> LockedVariant:
        """The locked files of one variant. Raises LockError."""
        for item in self.variants:
            if (item.model, item.index) == (model, index):
                return item
        raise _stale(f"variant {index} of model {model}")

    def adapter(self, model: str, name: str, format_: str) -> LockedAdapter:
        """The locked files of one adapter. Raises LockError."""
        for item in self.adapters:
            if (item.model, item.name, item.format) == (model, name, format_):
                return item
        raise _stale(f"adapter {name} of model {model}")

    def wheelhouse(self, owner: str) -> LockedWheelhouse:
        """The wheels of one owner (`wheels:<name>` or `engine:<kind>:<provider>`)."""
        for item in self.wheelhouses:
            if item.owner == owner:
                return item
        raise _stale(owner)

    def image(self, name: str) -> LockedImage:
        """One locked image. Raises LockError."""
        for item in self.images:
            if item.name == name:
                return item
        raise _stale(f"image {name}")


def _stale(what: str) -> LockError:
    return LockError(f"the lock has no {what}", hint="edgekit lock RECIPE")


def encode_lock(lock: Lock) -> bytes:
    """Readable, diffable, deterministic JSON with a final newline."""
    table = {
        "schema": SCHEMA,
        "recipe": str(lock.recipe),
        "variants": [
            {
                "model": v.model,
                "index": v.index,
                "commit": v.commit or "",
                "files": _files_table(v.files),
            }
            for v in lock.variants
        ],
        **({"adapters": [_adapter_table(a) for a in lock.adapters]} if lock.adapters else {}),
        "wheelhouses": [
            {
                "owner": h.owner,
                "wheels": [
                    {
                        "name": w.name,
                        "version": w.version,
                        "filename": w.filename,
                        "size": w.size,
                        "sha256": w.sha256.value,
                    }
                    for w in h.wheels
                ],
            }
            for h in lock.wheelhouses
        ],
        "images": [
            {
                "name": i.name,
                "reference": i.reference,
                "manifest": _blob_table(i.manifest),
                "blobs": [_blob_table(blob) for blob in i.blobs],
            }
            for i in lock.images
        ],
    }
    return json.dumps(table, indent=1, sort_keys=True).encode() + b"\n"


def _files_table(files: tuple[LockedFile, ...]) -> list[dict[str, Any]]:
    return [{"path": str(f.path), "size": f.size, "sha256": f.sha256.value} for f in files]


def _adapter_table(adapter: LockedAdapter) -> dict[str, Any]:
    return {
        "model": adapter.model,
        "name": adapter.name,
        "format": adapter.format,
        "commit": adapter.commit or "",
        "files": _files_table(adapter.files),
    }


def _blob_table(blob: LockedBlob) -> dict[str, Any]:
    return {"media_type": blob.media_type, "size": blob.size, "digest": str(blob.digest)}


def parse_lock(data: bytes, *, file: str) -> Lock:
    """Lock bytes to a Lock. Raises LockError that names file and key."""

    def fail(message: str, path: str) -> EdgekitError:
        return LockError(message, where=f"{file}, key {path}", hint="edgekit lock RECIPE")

    try:
        return _lock(Fields(parse_strict(data, max_bytes=MAX_LOCK_BYTES, what=file), error=fail))
    except LockError:
        raise
    except EdgekitError as error:
        raise LockError(
            error.message, where=file, found=error.found, hint="edgekit lock RECIPE"
        ) from error


def _lock(fields: Fields) -> Lock:
    fields.text("schema", choices=(SCHEMA,))
    lock = Lock(
        recipe=Digest.parse(fields.text("recipe")),
        variants=tuple(_variant(f) for f in fields.items("variants", max_items=2048)),
        wheelhouses=tuple(_wheelhouse(f) for f in fields.items("wheelhouses", max_items=32)),
        images=tuple(_image(f) for f in fields.items("images", max_items=64)),
        adapters=tuple(_adapter(f) for f in fields.items("adapters", max_items=1024, default=[])),
    )
    fields.finish()
    return lock


def _variant(fields: Fields) -> LockedVariant:
    commit = fields.text("commit", pattern=COMMIT_PATTERN)
    variant = LockedVariant(
        model=fields.text("model", pattern=NAME_PATTERN),
        index=fields.integer("index", low=0, high=31),
        commit=commit or None,
        files=tuple(_file(f) for f in fields.items("files", max_items=1000)),
    )
    fields.finish()
    return variant


def _adapter(fields: Fields) -> LockedAdapter:
    commit = fields.text("commit", pattern=COMMIT_PATTERN)
    adapter = LockedAdapter(
        model=fields.text("model", pattern=NAME_PATTERN),
        name=fields.text("name", pattern=NAME_PATTERN),
        format=fields.text("format", choices=ADAPTER_FORMATS),
        commit=commit or None,
        files=tuple(_file(f) for f in fields.items("files", max_items=16)),
    )
    fields.finish()
    return adapter


def _file(fields: Fields) -> LockedFile:
    file = LockedFile(
        path=RelPath(fields.text("path", max_length=1024)),
        size=fields.integer("size", low=0, high=MAX_FILE_BYTES),
        sha256=Digest("sha256", fields.text("sha256")),
    )
    fields.finish()
    return file


def _wheelhouse(fields: Fields) -> LockedWheelhouse:
    house = LockedWheelhouse(
        owner=fields.text("owner", pattern=r"[a-z0-9.:_-]{1,120}"),
        wheels=tuple(_wheel(f) for f in fields.items("wheels", max_items=1000)),
    )
    fields.finish()
    return house


def _wheel(fields: Fields) -> LockedWheel:
    wheel = LockedWheel(
        name=fields.text("name", pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}"),
        version=fields.text("version", pattern=r"[A-Za-z0-9.+!]{1,60}"),
        filename=fields.text("filename", pattern=WHEEL_PATTERN, max_length=210),
        size=fields.integer("size", low=1, high=MAX_FILE_BYTES),
        sha256=Digest("sha256", fields.text("sha256")),
    )
    fields.finish()
    return wheel


def _image(fields: Fields) -> LockedImage:
    image = LockedImage(
        name=fields.text("name", pattern=NAME_PATTERN),
        reference=fields.text("reference", pattern=REFERENCE_PATTERN, max_length=310),
        manifest=_blob(fields.table("manifest")),
        blobs=tuple(_blob(f) for f in fields.items("blobs", max_items=200)),
    )
    fields.finish()
    return image


def _blob(fields: Fields) -> LockedBlob:
    blob = LockedBlob(
        media_type=fields.text("media_type", pattern=r"[\w.+/-]{1,120}"),
        size=fields.integer("size", low=1, high=MAX_FILE_BYTES),
        digest=Digest.parse(fields.text("digest")),
    )
    fields.finish()
    return blob
