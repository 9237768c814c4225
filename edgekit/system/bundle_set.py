"""Opening and verifying a bundle set on its medium: steps V1 to V6 of bundle-v1.

`open_set` looks at names and sizes only. `verify_set` is the one maker of a `VerifiedSet`; what
installs, inspects or compares a set takes that type, so nothing unverified can be used by mistake.
The medium is only ever read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.core import set_files, trust
from edgekit.core.digest import Digest
from edgekit.core.release import Manifest, VolumeTable, parse_manifest, parse_volume_table
from edgekit.core.sshsig import verify_ssh
from edgekit.errors import DigestError, FormatError, SetShapeError, TrustError
from edgekit.system.files import read_bounded, translate_os_error
from edgekit.system.trust_store import HostTrust
from edgekit.system.volumes import hash_file

_MAKER = object()


@dataclass(frozen=True, slots=True)
class UnverifiedSet:
    """Folders said to hold a set: file names relative to the set, where each lies, and its size.

    `foreign` are names that belong to no set; they are reported, never read.
    """

    folders: tuple[Path, ...]
    files: dict[str, Path]
    sizes: dict[str, int]
    foreign: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedSet:
    """A set whose metadata is vouched for by this host's trusted root (V1 to V6 passed).

    Volumes are present with their exact size; their blocks are checked while they are read (V7).
    `below_floor` is true when V4 let an older set through because the operator broke the glass.
    Only `verify_set` makes one.
    """

    opened: UnverifiedSet
    root: trust.TrustedRoot
    new_roots: tuple[bytes, ...]
    statement: trust.ReleaseStatement
    manifest: Manifest
    table: VolumeTable
    metadata: dict[str, bytes]
    _maker: object
    below_floor: bool = False

    def __post_init__(self) -> None:
        if self._maker is not _MAKER:
            raise TypeError("a VerifiedSet comes from verify_set() alone")

    def volume_path(self, index: int) -> Path:
        """Where a volume lies."""
        return self.opened.files[self.table.volumes[index].name]


@dataclass(frozen=True, slots=True)
class DraftSet:
    """A set that is right in everything but may lack signatures. It installs nothing.

    Made by `verify_draft_set`, for those who are asked to sign it. `root` is the newest the set
    carries, vouched for by nobody but itself.
    """

    opened: UnverifiedSet
    root: trust.TrustedRoot
    release: bytes
    statement: trust.DraftStatement
    manifest: Manifest
    table: VolumeTable

    def volume_path(self, index: int) -> Path:
        """Where a volume lies."""
        return self.opened.files[self.table.volumes[index].name]


def open_set(folders: tuple[Path, ...]) -> UnverifiedSet:
    """Look at the folders (one per stick): names and sizes, nothing is read.

    Raises SetShapeError when no folder holds a release statement or a name occurs twice.
    """
    files: dict[str, Path] = {}
    foreign: list[str] = []
    for folder in folders:
        for name, path in _list_folder(folder):
            if set_files.is_sidecar(path.name):
                continue
            if name in files and set_files.is_volume(name):
                raise SetShapeError(
                    "the same volume lies on two media",
                    found=name,
                    hint="leave one of the two away",
                )
            if set_files.is_set_file(name):
                files.setdefault(name, path)
            else:
                foreign.append(str(path))
    if set_files.RELEASE not in files:
        raise SetShapeError(
            "no bundle set here",
            where=", ".join(map(str, folders)),
            needed=f"a folder with {set_files.RELEASE}",
            hint="give the folder that holds release.json, or all folders of a set on many sticks",
        )
    sizes = {name: _regular_size(path) for name, path in files.items()}
    return UnverifiedSet(folders, files, sizes, tuple(sorted(foreign)))


def verify_set(
    opened: UnverifiedSet,
    host: HostTrust,
    *,
    check_installer: bool = True,
    insecure_downgrade: bool = False,
) -> VerifiedSet:
    """Steps V1 to V6 against what this host trusts; reads a few MB and changes nothing.

    Without `check_installer` the installer's size is checked and its bytes are not: for looking at
    a set, which neither runs nor carries it anywhere. With `insecure_downgrade` V4 lets older
    releases of the same epoch through (ADR 10). Raises SetShapeError, SignatureError,
    RollbackError, DigestError, TrustError or FormatError.
    """
    _check_sizes(opened)  # V1
    root, new_roots = _extend_roots(opened, host.require_root())  # V2
    release = _read(opened, set_files.RELEASE)
    statement = trust.verify_release(root, release)  # V3
    below_floor = False
    if insecure_downgrade:
        below_floor = trust.check_downgrade(statement, host.floor, root.minimum)
    else:
        trust.check_floor(statement, host.floor, root.minimum)  # V4
    _check_edgekit(statement)
    metadata, manifest, table = _read_documents(
        opened, statement, release, check_installer=check_installer
    )  # V5
    _check_shape(opened, statement, table)  # V6
    _check_sums(opened, root, expected_sums(statement, table, release))
    return VerifiedSet(
        opened, root, new_roots, statement, manifest, table, metadata, _MAKER, below_floor
    )


def verify_draft_set(opened: UnverifiedSet, *, sums: bool = True) -> DraftSet:
    """Steps V1 to V6 with the set's own newest root, and without the threshold and the floor.

    `sums` is false for whoever makes the stranger's files anew. Raises as `verify_set` does.
    """
    _check_sizes(opened)
    root = _own_root(opened)
    release = _read(opened, set_files.RELEASE)
    statement = trust.read_draft_release(root, release)
    _, manifest, table = _read_documents(opened, statement, release, check_installer=True)
    _check_shape(opened, statement, table)
    if sums:
        signed = bool(statement.tally.signed)
        _check_sums(opened, root, expected_sums(statement, table, release), signed=signed)
    return DraftSet(opened, root, release, statement, manifest, table)


def _own_root(opened: UnverifiedSet) -> trust.TrustedRoot:
    """The newest root the set carries, from its oldest upward."""
    versions = sorted(
        int(name.removeprefix("trust/").removesuffix(".root.json"))
        for name in opened.files
        if re.fullmatch(set_files.ROOT_PATTERN, name)
    )
    if not versions:
        raise SetShapeError("the set carries no root", needed="trust/1.root.json")
    first = trust.restore_root(_read(opened, f"trust/{versions[0]}.root.json"))
    return _extend_roots(opened, first)[0]


def _read_documents(
    opened: UnverifiedSet,
    statement: trust.ReleaseContent,
    release: bytes,
    *,
    check_installer: bool,
) -> tuple[dict[str, bytes], Manifest, VolumeTable]:
    """Step V5: every small file by length and digest, then the two that are parsed."""
    metadata = {set_files.RELEASE: release}
    for name, length, value in statement.files:
        path = _signed_file(opened, name, length)
        if name == set_files.INSTALLER:  # large, and nothing here reads it
            if check_installer:
                _check_digest(name, path, hash_file(path, "sha384")[0], value)
        else:
            metadata[name] = _read(opened, name)
            _check_digest(name, path, Digest.of(metadata[name]), value)
    try:
        manifest = parse_manifest(metadata[set_files.MANIFEST])
        table = parse_volume_table(metadata[set_files.VOLUMES])
    except KeyError as error:
        raise FormatError(f"release statement does not list {error.args[0]}") from error
    _check_versions(statement, manifest)
    _check_blobs(manifest, table)
    return metadata, manifest, table


def _list_folder(folder: Path) -> list[tuple[str, Path]]:
    """(name relative to the set, path) of everything in the folder and in the set's own folders."""
    try:
        return list(_entries(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SetShapeError(
            "no bundle set here",
            where=str(folder),
            found=os.strerror(error.errno or 0),
            needed=f"a folder with {set_files.RELEASE}",
        ) from error
    except OSError as error:
        raise translate_os_error(error, f"reading {folder}") from error


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    for entry in _sorted(folder):
        if entry.name in set_files.FOLDERS and entry.is_dir(follow_symlinks=False):
            for item in _sorted(Path(entry.path)):
                yield f"{entry.name}/{item.name}", Path(item.path)
        else:
            yield entry.name, Path(entry.path)


def _sorted(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _regular_size(path: Path) -> int:
    try:
        status = path.lstat()
    except OSError as error:
        raise translate_os_error(error, f"looking at {path.name}") from error
    if not stat.S_ISREG(status.st_mode):
        raise SetShapeError("a file of the set is not a regular file", where=str(path))
    return status.st_size


def _check_sizes(opened: UnverifiedSet) -> None:
    for name, size in opened.sizes.items():
        if not set_files.is_volume(name) and size > set_files.max_bytes_of(name):
            raise SetShapeError(
                "a file of the set is too large",
                where=str(opened.files[name]),
                found=f"{size} bytes",
                needed=f"at most {set_files.max_bytes_of(name)} bytes",
            )


def _extend_roots(
    opened: UnverifiedSet, trusted: trust.TrustedRoot
) -> tuple[trust.TrustedRoot, tuple[bytes, ...]]:
    """Step V2: from the host's root upward, through the roots the set carries."""
    added: list[bytes] = []
    for _ in range(trust.MAX_ROTATIONS + 1):
        name = f"trust/{trusted.version + 1}.root.json"
        if name not in opened.files:
            return trusted, tuple(added)
        data = _read(opened, name)
        trusted = trust.extend_root(trusted, data)
        added.append(data)
    raise TrustError("too many root rotations in one set", needed=f"{trust.MAX_ROTATIONS} at most")


def _read(opened: UnverifiedSet, name: str) -> bytes:
    return read_bounded(opened.files[name], set_files.max_bytes_of(name), name)


def _signed_file(opened: UnverifiedSet, name: str, length: int) -> Path:
    """Where a file of the release statement lies; it must have exactly this length."""
    if not set_files.is_set_file(name) or set_files.is_volume(name):
        raise FormatError("release statement lists a file no set has", found=name[:100])
    if name not in opened.files:
        raise SetShapeError(f"{name} is missing", hint="copy the set again, completely")
    size = opened.sizes[name]
    if size != length:
        raise SetShapeError(
            f"{name} has the wrong size",
            where=str(opened.files[name]),
            found=f"{size} bytes",
            needed=f"{length} bytes",
            hint=f"copy {name} again",
        )
    return opened.files[name]


def _check_digest(name: str, path: Path, found: Digest, value: str) -> None:
    if found.value != value:
        raise DigestError(
            f"{name} is damaged",
            where=str(path),
            needed=f"sha384:{value[:16]}...",
            found=f"sha384:{found.value[:16]}...",
            hint=f"copy {name} again",
        )


def _check_edgekit(statement: trust.ReleaseContent) -> None:
    """A set may need a newer edgekit than the one that reads it."""
    if _version(statement.min_edgekit) > _version(__version__):
        raise FormatError(
            "this set needs a newer edgekit",
            found=__version__,
            needed=statement.min_edgekit,
            hint="use the edgekit on the stick, beside release.json",
        )


def _version(text: str) -> tuple[int, ...]:
    """`1.2.3` as numbers. Raises FormatError."""
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}", text) is None:
        raise FormatError("not an edgekit version", found=text[:40])
    return tuple(int(part) for part in text.split("."))


def _check_versions(statement: trust.ReleaseContent, manifest: Manifest) -> None:
    if (statement.name, statement.version) != (manifest.name, manifest.version):
        raise FormatError(
            "release statement and manifest are of different bundles",
            found=f"{manifest.name} {manifest.version}",
            needed=f"{statement.name} {statement.version}",
        )


def _check_blobs(manifest: Manifest, table: VolumeTable) -> None:
    """Volumes hold exactly the blobs that the manifest's entries name, at their sizes."""
    sizes = {entry.digest: entry.size for entry in manifest.entries}
    lengths = {digest: sum(e.length for e in extents) for digest, extents in table.blobs}
    if sizes != lengths or any(sizes[e.digest] != e.size for e in manifest.entries):
        raise FormatError("manifest and volume table do not name the same blobs")


def _check_shape(
    opened: UnverifiedSet, statement: trust.ReleaseContent, table: VolumeTable
) -> None:
    """Step V6: every volume is here with its exact size, and nothing else pretends to belong."""
    named = {volume.name for volume in table.volumes}
    for volume in table.volumes:
        if volume.name not in opened.files:
            raise SetShapeError(
                f"volume {volume.name} is missing",
                where=", ".join(map(str, opened.folders)),
                hint=f"copy {volume.name} from the packager's set",
            )
        size = opened.sizes[volume.name]
        if size != volume.size:
            raise SetShapeError(
                f"volume {volume.name} has the wrong size",
                where=str(opened.files[volume.name]),
                found=f"{size} bytes",
                needed=f"{volume.size} bytes",
                hint=f"copy {volume.name} again",
            )
    signed = {name for name, _, _ in statement.files}
    unsigned = {set_files.RELEASE, set_files.SUMS, set_files.SUMS_SIGNATURE}
    foreign = set(opened.files) - named - signed - unsigned
    if foreign or opened.foreign:
        found = ", ".join(sorted(foreign) or opened.foreign[:5])
        raise SetShapeError(
            "a file in the set's folder does not belong to it",
            found=found,
            hint="move it away; it may be from another set",
        )


def _check_sums(
    opened: UnverifiedSet, root: trust.TrustedRoot, wanted: bytes, *, signed: bool = True
) -> None:
    """The stranger's files must say what the signed metadata says."""
    names = (set_files.SUMS, set_files.SUMS_SIGNATURE) if signed else (set_files.SUMS,)
    for name in names:
        if name not in opened.files:
            raise SetShapeError(f"{name} is missing", hint="copy the set again, completely")
    sums = _read(opened, set_files.SUMS)
    if sums != wanted:
        raise DigestError(
            f"{set_files.SUMS} is damaged",
            where=str(opened.files[set_files.SUMS]),
            hint=f"copy {set_files.SUMS} again",
        )
    if signed:
        verify_ssh(_read(opened, set_files.SUMS_SIGNATURE), sums, trust.ssh_keys(root))


def expected_sums(statement: trust.ReleaseContent, table: VolumeTable, release: bytes) -> bytes:
    """The SHA384SUMS bytes that belong to a release statement and volume table."""
    lines = {name: value for name, _, value in statement.files}
    lines[set_files.RELEASE] = Digest.of(release).value
    lines |= {volume.name: volume.digest.value for volume in table.volumes}
    return set_files.render_sums(lines)
