"""The signed documents of a set: release statement, manifest, volume table (bundle-v1 section 6).

All three are canonical JSON. The release statement is a TUF targets document and is handled in
core/trust.py; this module holds what it vouches for.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.carried_model import CarriedModel, check_variants, model_table, parse_model
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack, engine_table, parse_engine, parse_pair
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN, RelPath
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import FormatError

FORMAT = 1
MAX_MANIFEST_BYTES = 64 << 20
MAX_VOLUMES_BYTES = 64 << 20
MAX_ENTRIES = 100_000
MAX_VOLUMES = 10_000
MAX_SET_BYTES = 1 << 50
BLOCK_BYTES = 8 << 20
MAX_VOLUME_BYTES = 3900 << 20
"""FAT32 cannot hold a file of 4 GiB; 3,900 MiB leaves room for rounding by copy tools."""

ROLES = ("runtime", "engine", "weights", "wheel", "image", "unit", "license", "document")
VERSION_PATTERN = r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}(?:-[a-z0-9.]{1,30})?"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file the set installs: where, what for, how big (bytes), and which blob it is."""

    path: RelPath
    role: str
    size: int
    digest: Digest
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a host must have: architecture, C library, CPU flags, systemd; sizes in bytes."""

    arch: str
    glibc: tuple[int, int]
    cpu_flags: tuple[str, ...]
    systemd: int


@dataclass(frozen=True, slots=True)
class CarriedImage:
    """A container image as OCI blobs; `manifest` is its sha256 digest, `blobs` entries' paths."""

    name: str
    reference: str
    manifest: Digest
    blobs: tuple[RelPath, ...]

    @property
    def pinned(self) -> str:
        """`name@sha256:...`: the only form under which a carried image is run."""
        return f"{self._named[0]}@{self.manifest}"

    @property
    def tagged(self) -> str:
        """`name:tag`, for people; the tag is `latest` where the reference has none."""
        name, tag = self._named
        return f"{name}:{tag or 'latest'}"

    @property
    def _named(self) -> tuple[str, str]:
        head, separator, last = self.reference.partition("@")[0].rpartition("/")
        name, _, tag = last.partition(":")
        return f"{head}{separator}{name}", tag


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything in a set. Entries are sorted by path and unique without case."""

    name: str
    version: str
    created: int
    users: int
    requirements: Requirements
    entries: tuple[Entry, ...]
    engines: tuple[EnginePack, ...]
    models: tuple[CarriedModel, ...]
    images: tuple[CarriedImage, ...]
    rehearsed_on: str

    def __post_init__(self) -> None:
        folded = [str(entry.path).casefold() for entry in self.entries]
        paths = [str(entry.path) for entry in self.entries]
        if paths != sorted(paths) or len(set(folded)) != len(folded):
            raise FormatError("manifest entries are not sorted and unique without case")
        for kind, names in (
            ("model", [model.name for model in self.models]),
            ("image", [image.name for image in self.images]),
        ):
            if len(set(names)) != len(names):
                raise FormatError(f"manifest lists a {kind} twice")
        for model in self.models:
            check_variants(model)
        carried = {image.name for image in self.images}
        for pack in self.engines:
            if pack.image and pack.image not in carried:
                raise FormatError("an engine is an image that is not carried", found=pack.image)

    def entry(self, path: RelPath) -> Entry:
        """The entry at a path. Raises FormatError: a manifest that names a missing file is bad."""
        for entry in self.entries:
            if entry.path == path:
                return entry
        raise FormatError("manifest names a file it does not carry", found=str(path))

    def total_bytes(self) -> int:
        """Bytes of all distinct blobs."""
        return sum({entry.digest: entry.size for entry in self.entries}.values())


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of a blob's bytes inside a volume: index of the volume, offset and length in bytes."""

    volume: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume: file name, size, digest of the whole file and of each block, in order."""

    name: str
    size: int
    digest: Digest
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VolumeTable:
    """Where every blob's bytes lie, and what every block of every volume hashes to.

    `algorithm` is the digest of the blocks, `block_bytes` their size (the last may be shorter).
    """

    algorithm: str
    block_bytes: int
    volumes: tuple[Volume, ...]
    blobs: tuple[tuple[Digest, tuple[Extent, ...]], ...]

    def __post_init__(self) -> None:
        for index, volume in enumerate(self.volumes):
            if volume.name != volume_name(index):
                raise FormatError(
                    "volume has the wrong name", found=volume.name, needed=volume_name(index)
                )
            if len(volume.blocks) != -(-volume.size // self.block_bytes):
                raise FormatError("volume has the wrong number of blocks", found=volume.name)
        if len({digest for digest, _ in self.blobs}) != len(self.blobs):
            raise FormatError("volume table lists a blob twice")
        _check_extents(self)


def volume_name(index: int) -> str:
    """`vol-0001.ekv` for index 0."""
    return f"vol-{index + 1:04d}.ekv"


def _check_extents(table: VolumeTable) -> None:
    """Every byte of every volume belongs to exactly one blob: nothing hides, nothing overlaps."""
    runs = sorted(
        (extent.volume, extent.offset, extent.length)
        for _, extents in table.blobs
        for extent in extents
    )
    position = (0, 0)
    for volume, offset, length in runs:
        if length < 1:
            raise FormatError("extent holds no bytes", found=f"volume {volume} offset {offset}")
        if volume >= len(table.volumes):
            raise FormatError("extent names a volume that does not exist", found=str(volume))
        if position[1] == table.volumes[position[0]].size and volume == position[0] + 1:
            position = (volume, 0)
        if (volume, offset) != position or offset + length > table.volumes[volume].size:
            raise FormatError(
                "extents overlap, leave a gap or leave the volume",
                found=f"volume {volume} offset {offset} length {length}",
                needed=f"volume {position[0]} offset {position[1]}",
            )
        position = (volume, offset + length)
    if table.volumes and position != (len(table.volumes) - 1, table.volumes[-1].size):
        raise FormatError("volumes hold bytes that belong to no blob")


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical bytes of a manifest."""
    requirements = manifest.requirements
    return encode_canonical(
        {
            "format": FORMAT,
            "name": manifest.name,
            "version": manifest.version,
            "created": manifest.created,
            "users": manifest.users,
            "rehearsed_on": manifest.rehearsed_on,
            "requirements": {
                "arch": requirements.arch,
                "glibc": list(requirements.glibc),
                "cpu_flags": list(requirements.cpu_flags),
                "systemd": requirements.systemd,
            },
            "entries": [
                {
                    "path": str(e.path),
                    "role": e.role,
                    "size": e.size,
                    "digest": str(e.digest),
                    "executable": e.executable,
                }
                for e in manifest.entries
            ],
            "engines": [engine_table(e) for e in manifest.engines],
            "models": [model_table(model) for model in manifest.models],
            "images": [
                {
                    "name": i.name,
                    "reference": i.reference,
                    "manifest": str(i.manifest),
                    "blobs": [str(path) for path in i.blobs],
                }
                for i in manifest.images
            ],
        }
    )


def parse_manifest(data: bytes) -> Manifest:
    """Canonical bytes to a Manifest (V5). Raises FormatError."""
    fields = Fields(parse_canonical(data, max_bytes=MAX_MANIFEST_BYTES, what="manifest.json"))
    fields.integer("format", low=FORMAT, high=FORMAT)
    manifest = Manifest(
        name=fields.text("name", pattern=NAME_PATTERN),
        version=fields.text("version", pattern=VERSION_PATTERN),
        created=fields.integer("created", low=0, high=1 << 40),
        users=fields.integer("users", low=1, high=10_000),
        rehearsed_on=fields.text("rehearsed_on", max_length=200),
        requirements=_requirements(fields.table("requirements")),
        entries=tuple(_entry(f) for f in fields.items("entries", max_items=MAX_ENTRIES)),
        engines=tuple(parse_engine(f) for f in fields.items("engines", max_items=16)),
        models=tuple(parse_model(f) for f in fields.items("models", max_items=64)),
        images=tuple(_image(f) for f in fields.items("images", max_items=64)),
    )
    fields.finish()
    return manifest


def _requirements(fields: Fields) -> Requirements:
    requirements = Requirements(
        arch=fields.text("arch", choices=("x86_64", "aarch64")),
        glibc=parse_pair(fields, "glibc"),
        cpu_flags=fields.texts("cpu_flags", max_items=64, pattern=r"[a-z0-9_]{1,30}"),
        systemd=fields.integer("systemd", low=0, high=10_000),
    )
    fields.finish()
    return requirements


def _entry(fields: Fields) -> Entry:
    entry = Entry(
        path=RelPath(fields.text("path", max_length=1024)),
        role=fields.text("role", choices=ROLES),
        size=fields.integer("size", low=0, high=MAX_SET_BYTES),
        digest=Digest.parse(fields.text("digest")),
        executable=fields.boolean("executable"),
    )
    fields.finish()
    return entry


def _image(fields: Fields) -> CarriedImage:
    image = CarriedImage(
        name=fields.text("name", pattern=NAME_PATTERN),
        reference=fields.text("reference", max_length=310),
        manifest=Digest.parse(fields.text("manifest")),
        blobs=tuple(map(RelPath, fields.texts("blobs", max_items=300, max_length=1024))),
    )
    fields.finish()
    return image


def encode_volume_table(table: VolumeTable) -> bytes:
    """Canonical bytes of a volume table."""
    return encode_canonical(
        {
            "format": FORMAT,
            "algorithm": table.algorithm,
            "block_bytes": table.block_bytes,
            "volumes": [
                {"name": v.name, "size": v.size, "digest": str(v.digest), "blocks": list(v.blocks)}
                for v in table.volumes
            ],
            "blobs": [
                {
                    "digest": str(digest),
                    "extents": [[e.volume, e.offset, e.length] for e in extents],
                }
                for digest, extents in table.blobs
            ],
            # Reserved in format 1: a set that needs these wants a newer reader, which says so.
            "base": None,
            "parity": None,
            "recipients": None,
        }
    )


def parse_volume_table(data: bytes) -> VolumeTable:
    """Canonical bytes to a VolumeTable (V5). Raises FormatError."""
    fields = Fields(parse_canonical(data, max_bytes=MAX_VOLUMES_BYTES, what="volumes.json"))
    fields.integer("format", low=FORMAT, high=FORMAT)
    algorithm = fields.text("algorithm", choices=("sha384", "sha256"))
    for reserved in ("base", "parity", "recipients"):
        if fields.take(reserved, object) is not None:
            raise fields.fail(reserved, "this set needs a newer edgekit")
    table = VolumeTable(
        algorithm=algorithm,
        block_bytes=fields.integer("block_bytes", low=BLOCK_BYTES, high=BLOCK_BYTES),
        volumes=tuple(
            _volume(f, algorithm) for f in fields.items("volumes", max_items=MAX_VOLUMES)
        ),
        blobs=tuple(_blob(f) for f in fields.items("blobs", max_items=MAX_ENTRIES)),
    )
    fields.finish()
    return table


def _volume(fields: Fields, algorithm: str) -> Volume:
    length = {"sha256": 64, "sha384": 96}[algorithm]
    volume = Volume(
        name=fields.text("name", pattern=r"vol-[0-9]{4}\.ekv"),
        size=fields.integer("size", low=1, high=MAX_VOLUME_BYTES),
        digest=Digest.parse(fields.text("digest")),
        blocks=fields.texts("blocks", max_items=1000, pattern=rf"[0-9a-f]{{{length}}}"),
    )
    fields.finish()
    return volume


def _blob(fields: Fields) -> tuple[Digest, tuple[Extent, ...]]:
    digest = Digest.parse(fields.text("digest"))
    extents = []
    for run in fields.take("extents", list):
        ok = isinstance(run, list) and len(run) == 3
        if not ok or not all(type(n) is int and 0 <= n <= MAX_SET_BYTES for n in run):
            raise fields.fail("extents", "expected [volume, offset, length]")
        extents.append(Extent(*run))
    fields.finish()
    return digest, tuple(extents)
