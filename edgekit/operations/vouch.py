"""What a set's own documents say must be there, and who vouches for it: with a root or without."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgekit.core import findings, set_files, trust
from edgekit.core.digest import Digest
from edgekit.core.findings import Contents, Copy, Flaw, Seen, Wanted
from edgekit.core.release import parse_manifest, parse_volume_table
from edgekit.core.sshsig import verify_ssh
from edgekit.errors import (
    EdgekitError,
    FormatError,
    HostError,
    PrivilegeError,
    SetShapeError,
    SignatureError,
)
from edgekit.operations.verify import Trusting, host_trust
from edgekit.system.bundle_set import expected_sums
from edgekit.system.files import read_bounded, translate_os_error


def look_at(folders: Iterable[Path]) -> Seen:
    """Names and sizes of what lies in the folders, sidecar files left out; nothing is read."""
    copies: dict[str, tuple[Copy, ...]] = {}
    foreign: list[str] = []
    for folder in folders:
        for name, path in _list_folder(folder):
            if set_files.is_sidecar(path.name):
                continue
            if findings.is_set_name(name):
                copies[name] = (*copies.get(name, ()), Copy(str(folder), _regular_size(path)))
            else:
                foreign.append(str(path))
    return Seen(copies, tuple(foreign))


def _list_folder(folder: Path) -> list[tuple[str, Path]]:
    try:
        here = [(path.name, path) for path in sorted(folder.iterdir())]
        for inner in set_files.FOLDERS:
            below = folder / inner
            if below.is_dir() and not below.is_symlink():
                here = [(name, path) for name, path in here if path != below]
                here += [(f"{inner}/{path.name}", path) for path in sorted(below.iterdir())]
    except OSError as error:
        raise translate_os_error(error, f"reading {folder}") from error
    return here


def _regular_size(path: Path) -> int | None:
    try:
        status = path.lstat()
    except OSError as error:
        raise translate_os_error(error, f"looking at {path.name}") from error
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def copies_to_read(wanted: Iterable[Wanted], seen: Seen) -> list[tuple[Wanted, Copy]]:
    """The copies worth reading: of volumes all, of other files those of the right size."""
    return [
        (file, copy)
        for file in wanted
        for copy in seen.copies.get(file.name, ())
        if copy.size is not None
        and file.digest is not None
        and (file.size in (None, copy.size) or file.volume is not None)
    ]


@dataclass(frozen=True, slots=True)
class Vouched:
    """What the set's own documents say must be there, and who vouches for that.

    `signers` is None when signatures were not checked, for want of a trusted root. `contents` is
    None when nothing says what lies where. When the documents themselves are bad, `stopped` is True
    and `wanted` are those documents alone.
    """

    wanted: tuple[Wanted, ...]
    contents: Contents | None = None
    signers: tuple[str, ...] | None = None
    flaws: tuple[Flaw, ...] = ()
    stopped: bool = False

    @property
    def name(self) -> str:
        """`demo-1.0.0`, or empty."""
        manifest = self.contents and self.contents.manifest
        return f"{manifest.name}-{manifest.version}" if manifest else ""


def vouch(folders: tuple[Path, ...], seen: Seen, trusting: Trusting | None) -> Vouched:
    """Steps V1 to V3 and V5 where a root is trusted, else SHA384SUMS taken at its word.

    Raises SetShapeError when the folders hold no set, TrustError, SignatureError when strangers
    signed the set, FormatError.
    """
    if set_files.RELEASE not in seen.copies and set_files.SUMS not in seen.copies:
        raise SetShapeError(
            "no bundle set here",
            where=", ".join(map(str, folders)),
            needed=f"a folder with {set_files.RELEASE} and {set_files.SUMS}",
            hint="give the folder that holds release.json, or all folders of a set on many sticks",
        )
    asked_for = trusting is not None and trusting.fingerprint is not None
    if asked_for and set_files.RELEASE not in seen.copies:
        return _WITHOUT_RELEASE
    root = None if trusting is None else host_trust(trusting, _root_folders(seen)).root
    return _vouch_unsigned(seen) if root is None else _vouch_signed(seen, root)


_WITHOUT_RELEASE = Vouched((Wanted(set_files.RELEASE),), signers=(), stopped=True)


def _root_folders(seen: Seen) -> tuple[Path, ...]:
    """The folders with the first copy of the release statement and of each root."""
    names = [set_files.RELEASE, *(n for n in seen.copies if n.startswith(f"{set_files.TRUST}/"))]
    folders = (seen.copies[name][0].folder for name in names if name in seen.copies)
    return tuple(Path(folder) for folder in dict.fromkeys(folders))


def _vouch_signed(seen: Seen, root: trust.TrustedRoot) -> Vouched:
    if set_files.RELEASE not in seen.copies:
        return _WITHOUT_RELEASE
    try:
        root = _extend_root(seen, root)
        statement, release = _statement(seen, root)
    except (FormatError, SignatureError):
        # damage on the way, or strangers? SHA384SUMS, which nobody vouches for, tells them apart
        damaged = _damaged_documents(seen)
        if not damaged:
            raise
        return Vouched(damaged, signers=(), stopped=True)
    wanted = [Wanted(name, size, Digest("sha384", value)) for name, size, value in statement.files]
    wanted.append(Wanted(set_files.RELEASE, len(release), Digest.of(release)))
    contents = _contents(seen, wanted)
    if contents is None:
        documents = (set_files.RELEASE, set_files.MANIFEST, set_files.VOLUMES)
        only = tuple(file for file in wanted if file.name in documents)
        return Vouched(only, signers=statement.signers, stopped=True)
    sums = expected_sums(statement, contents.table, release)
    wanted.append(Wanted(set_files.SUMS, len(sums), Digest.of(sums)))
    wanted.append(Wanted(set_files.SUMS_SIGNATURE))
    wanted += _wanted_volumes(contents)
    flaws = _signature_flaws(seen, root, sums)
    return Vouched(tuple(wanted), contents, statement.signers, flaws)


def _extend_root(seen: Seen, root: trust.TrustedRoot) -> trust.TrustedRoot:
    """Step V2, with the first copy of each root; a set carries at most 256."""
    for _ in range(trust.MAX_ROTATIONS):
        name = f"{set_files.TRUST}/{root.version + 1}.root.json"
        data = next((data for _, data in readable_copies(seen, name)), None)
        if data is None:
            break
        root = trust.extend_root(root, data)
    return root


def _statement(seen: Seen, root: trust.TrustedRoot) -> tuple[trust.ReleaseStatement, bytes]:
    """Step V3, with the first copy that verifies; the error of the last one otherwise."""
    problem: EdgekitError = FormatError("release.json cannot be read", hint="copy it again")
    for _, data in readable_copies(seen, set_files.RELEASE):
        try:
            return trust.verify_release(root, data), data
        except (FormatError, SignatureError) as error:
            problem = error
    raise problem


def _damaged_documents(seen: Seen) -> tuple[Wanted, ...]:
    """Release statement and roots that are not what SHA384SUMS says, if it can be read."""
    for _, data in readable_copies(seen, set_files.SUMS):
        with suppress(FormatError):
            lines = _parse_sums(data)
            return tuple(
                Wanted(name, digest=digest)
                for name, digest in lines.items()
                if (name == set_files.RELEASE or name.startswith(f"{set_files.TRUST}/"))
                and name in seen.copies
                and [Digest.of(d) for _, d in readable_copies(seen, name)]
                != [digest] * len(seen.copies[name])
            )
    return ()


def _vouch_unsigned(seen: Seen) -> Vouched:
    for _, data in readable_copies(seen, set_files.SUMS):
        with suppress(FormatError):
            lines = _parse_sums(data)
            break
    else:
        bad = tuple(Flaw(set_files.SUMS, c.folder) for c in seen.copies.get(set_files.SUMS, ()))
        return Vouched((Wanted(set_files.SUMS),), flaws=bad, stopped=True)
    wanted = [Wanted(name, digest=digest) for name, digest in lines.items()]
    contents: Contents | None = None
    with suppress(FormatError):  # only where blocks lie is lost; every file has its own digest
        contents = _contents(seen, wanted)
    if contents is not None:
        volumes = _wanted_volumes(contents)
        if {v.name: v.digest for v in volumes} == _only_volumes(lines):
            wanted = [file for file in wanted if not set_files.is_volume(file.name)] + volumes
        else:
            contents = None
    wanted.append(Wanted(set_files.SUMS, len(data), Digest.of(data)))
    wanted.append(Wanted(set_files.SUMS_SIGNATURE))
    bad = _signature_flaws(seen, None, data)
    if bad and (contents is None or not _all_agree(seen, lines)):
        return _sums_in_doubt(seen, bad)
    return Vouched(tuple(wanted), contents, flaws=bad)


def _all_agree(seen: Seen, lines: dict[str, Digest]) -> bool:
    """True when every small file is there as SHA384SUMS says."""
    return all(
        digest in [Digest.of(data) for _, data in readable_copies(seen, name)]
        for name, digest in lines.items()
        if not set_files.is_volume(name)
    )


def _sums_in_doubt(seen: Seen, bad: tuple[Flaw, ...]) -> Vouched:
    """SHA384SUMS fits neither its signature nor the files: it or they are damaged, who knows."""
    flaws = [Flaw(set_files.SUMS, copy.folder) for copy in seen.copies[set_files.SUMS]]
    names = (set_files.SUMS, set_files.SUMS_SIGNATURE)
    return Vouched(tuple(map(Wanted, names)), flaws=(*flaws, *bad), stopped=True)


def _only_volumes(lines: dict[str, Digest]) -> dict[str, Digest | None]:
    return {name: digest for name, digest in lines.items() if set_files.is_volume(name)}


def _contents(seen: Seen, wanted: Iterable[Wanted]) -> Contents | None:
    """Step V5: manifest and volume table, from copies with the right bytes; None without them."""
    good: dict[str, bytes] = {}
    for file in wanted:
        if file.name in (set_files.MANIFEST, set_files.VOLUMES):
            for _, data in readable_copies(seen, file.name):
                if Digest.of(data) == file.digest and file.size in (None, len(data)):
                    good[file.name] = data
    if len(good) < 2:
        return None
    manifest = parse_manifest(good[set_files.MANIFEST])
    return Contents(parse_volume_table(good[set_files.VOLUMES]), manifest)


def _wanted_volumes(contents: Contents) -> list[Wanted]:
    return [
        Wanted(volume.name, volume.size, volume.digest, index)
        for index, volume in enumerate(contents.table.volumes)
    ]


def _signature_flaws(seen: Seen, root: trust.TrustedRoot | None, sums: bytes) -> tuple[Flaw, ...]:
    """Copies of SHA384SUMS.sig that are no signature of SHA384SUMS by a signer of the root.

    Without a root any key will do: that says nothing about who signed, but finds damage.
    """
    flaws = []
    for copy, data in readable_copies(seen, set_files.SUMS_SIGNATURE):
        keys = _key_inside(data) if root is None else trust.ssh_keys(root)
        try:
            verify_ssh(data, sums, keys)
        except SignatureError:
            flaws.append(Flaw(set_files.SUMS_SIGNATURE, copy.folder))
    return tuple(flaws)


def _key_inside(signature: bytes) -> list[Ed25519PublicKey]:
    """The key that an SSHSIG carries: after magic, version and four lengths (PROTOCOL.sshsig)."""
    body = signature.decode("ascii", errors="replace").split("\n")[1:-2]
    try:
        return [Ed25519PublicKey.from_public_bytes(base64.b64decode("".join(body))[33:65])]
    except ValueError:
        return []


def readable_copies(seen: Seen, name: str) -> list[tuple[Copy, bytes]]:
    """The copies of a small file that can be read, and their bytes. Raises PrivilegeError."""
    found = []
    for copy in seen.copies.get(name, ()):
        limit = set_files.max_bytes_of(name)
        if copy.size is None or copy.size > limit:
            continue
        try:
            found.append((copy, read_bounded(Path(copy.folder, name), limit, name)))
        except PrivilegeError:
            raise
        except HostError:
            continue
    return found


def _parse_sums(data: bytes) -> dict[str, Digest]:
    """SHA384SUMS as this project writes it. Raises FormatError for anything else."""
    lines: dict[str, Digest] = {}
    for line in data.decode("ascii", errors="replace").splitlines():
        value, _, name = line.partition("  ")
        if not findings.is_set_name(name):
            raise FormatError(f"{set_files.SUMS} is damaged", found=repr(line[:120]))
        lines[name] = Digest("sha384", value)
    if set_files.render_sums({name: digest.value for name, digest in lines.items()}) != data:
        raise FormatError(f"{set_files.SUMS} is damaged")
    return lines
