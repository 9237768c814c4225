"""Small real sets, signers and roots, made in memory and on disk without freezing anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from securesystemslib.signer import CryptoSigner

from edgekit.core import trust
from edgekit.core.carried_model import CarriedModel
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.events import Event
from edgekit.core.names import RelPath
from edgekit.core.provenance import Build, Input
from edgekit.core.release import BLOCK_BYTES, Entry, Manifest, Requirements
from edgekit.system.bundle_set import VerifiedSet, open_set, verify_set
from edgekit.system.set_writer import SetDraft, write_set
from edgekit.system.signing import PairSigner, sign_payload
from edgekit.system.trust_store import HostTrust
from edgekit.system.volume_writer import BlobSource
from edgekit.system.volumes import hash_file

EXPIRES = "2036-01-01T00:00:00Z"
ANY_HOST = Requirements("x86_64", (2, 17), (), 0)


def quiet(_event: Event) -> None:
    """A listener that says nothing."""


@cache
def signer(name: str) -> PairSigner:
    """A person with a key pair, the same one whenever the same name is used."""
    classical, post_quantum = Ed25519PrivateKey.generate(), MLDSA87PrivateKey.generate()
    return PairSigner(name, CryptoSigner(classical), CryptoSigner(post_quantum))


@dataclass(frozen=True)
class RootBuilder:
    """A root document; a guarded 2-of-2 hybrid root unless told otherwise.

    `signed_by` are the people whose signatures it carries, the signers themselves unless said.
    """

    version: int = 1
    signers: tuple[str, ...] = ("ann", "ben")
    threshold: int = 2
    policy: str = "hybrid"
    developer: bool = False
    signed_by: tuple[str, ...] | None = None
    expires: str = EXPIRES
    revoked: tuple[trust.Revocation, ...] = ()
    minimum: tuple[int, int] = (0, 0)

    def payload(self) -> bytes:
        return trust.root_payload(
            version=self.version,
            signers={name: signer(name).keys() for name in self.signers},
            threshold=self.threshold,
            policy=self.policy,
            developer=self.developer,
            expires=self.expires,
            revoked=self.revoked,
            minimum=self.minimum,
        )

    @cache  # noqa: B019 - ML-DSA signatures are random: one root, one envelope
    def data(self) -> bytes:
        names = self.signers if self.signed_by is None else self.signed_by
        return sign_payload(self.payload(), tuple(signer(name) for name in names))

    def trusted(self) -> trust.TrustedRoot:
        return trust.restore_root(self.data())


def build_of(name: str = "demo", version: str = "1.0.0", inputs: int = 3) -> Build:
    """A build of a set with this many inputs."""
    return Build(
        name=name,
        version=version,
        created=1_700_000_000,
        recipe=Digest.of(b"recipe"),
        lock=Digest.of(b"lock"),
        locked=True,
        edgekit="0.1.0",
        inputs=tuple(Input(f"input-{n}", Digest.of(b"%d" % n, "sha256")) for n in range(inputs)),
    )


@dataclass(frozen=True)
class Hole:
    """An entry of zero bytes that takes no disk space until it is copied."""

    size: int


@dataclass
class SetBuilder:
    """A set of a few entries, signed by everybody its newest root names.

    `entries` maps paths to contents; `roots` are carried oldest first. `write` makes the set's
    folder and returns it.
    """

    name: str = "demo"
    version: str = "1.0.0"
    epoch: int = 1
    sequence: int = 1
    entries: dict[str, bytes | Hole] = field(
        default_factory=lambda: {
            "documents/empty.txt": b"",
            "documents/hello.txt": b"hello\n",
            "documents/again.txt": b"hello\n",
        }
    )
    role: str = "document"
    roots: tuple[RootBuilder, ...] = (RootBuilder(),)
    root_documents: tuple[bytes, ...] = ()
    """Carried instead of `roots`, when they were made some other way."""
    signed_by: tuple[str, ...] | None = None
    created: int = 1_700_000_000
    expires: str = EXPIRES
    requirements: Requirements = ANY_HOST
    engines: tuple[EnginePack, ...] = ()
    models: tuple[CarriedModel, ...] = ()
    volume_bytes: int = BLOCK_BYTES
    digest_algorithm: str = "sha384"
    installer: bytes = b"#!/bin/sh\nexit 0\n"
    roles: dict[str, str] = field(default_factory=dict)
    """Roles by path, for entries that have not all the one `role`."""
    executables: frozenset[str] = frozenset()
    """Paths of the entries that are programs."""
    sbom: bytes = b""
    build: Build | None = None

    def write(self, folder: Path) -> Path:
        sources = folder.with_name(f"{folder.name}-sources")
        entries, blobs = self._blobs(sources)
        installer = sources / "installer"
        installer.write_bytes(self.installer)
        names = self.roots[-1].signers if self.signed_by is None else self.signed_by
        folder.mkdir(parents=True)
        write_set(
            folder,
            SetDraft(
                manifest=self._manifest(entries),
                blobs=blobs,
                installer=installer,
                epoch=self.epoch,
                sequence=self.sequence,
                expires=self.expires,
                digest_algorithm=self.digest_algorithm,
                roots=self.root_documents or tuple(root.data() for root in self.roots),
                signers=tuple(signer(name) for name in names),
                volume_bytes=self.volume_bytes,
                sbom=self.sbom,
                build=self.build,
            ),
            quiet,
        )
        return folder

    def _blobs(self, sources: Path) -> tuple[tuple[Entry, ...], tuple[BlobSource, ...]]:
        sources.mkdir(parents=True)
        entries = []
        blobs: dict[Digest, BlobSource] = {}
        for number, (path, content) in enumerate(sorted(self.entries.items())):
            source = sources / str(number)
            with source.open("wb") as file:
                if isinstance(content, Hole):
                    file.truncate(content.size)
                else:
                    file.write(content)
            digest, size = hash_file(source, "sha384")
            role = self.roles.get(path, self.role)
            entries.append(Entry(RelPath(path), role, size, digest, path in self.executables))
            blobs.setdefault(digest, BlobSource(digest, size, source))
        return tuple(entries), tuple(blobs.values())

    def _manifest(self, entries: tuple[Entry, ...]) -> Manifest:
        return Manifest(
            name=self.name,
            version=self.version,
            created=self.created,
            users=1,
            requirements=self.requirements,
            entries=entries,
            engines=self.engines,
            models=self.models,
            images=(),
            rehearsed_on="",
        )

    def host(self) -> HostTrust:
        """A host that trusts the oldest root of this set and has accepted nothing yet."""
        return HostTrust(self.roots[0].trusted())


def verify(host: HostTrust, *folders: Path) -> VerifiedSet:
    """Steps V1 to V6."""
    return verify_set(open_set(folders), host)


@contextmanager
def damaged(path: Path, offset: int, bit: int = 0) -> Iterator[None]:
    """The file with one bit flipped, for the length of the block."""

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1 << bit]))

    flip()
    try:
        yield
    finally:
        flip()


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    """The file with other bytes, for the length of the block."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)
