"""Signing keys on disk: a signer's folder holds `classical.pem` (Ed25519) and `ml-dsa-87.pem`.

Keys are addressed by URI; `file:DIR` is the only scheme in this version. Private keys are written
0600 and never printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signature

from edgekit.core import trust
from edgekit.core.names import is_portable_name
from edgekit.errors import FormatError, TrustError
from edgekit.system.files import durable_write, read_bounded

_MAX_PEM_BYTES = 16384


@dataclass(frozen=True, slots=True)
class FileSigner:
    """A signer whose two private keys are files. `name` is the folder's name."""

    name: str
    classical: CryptoSigner
    post_quantum: CryptoSigner
    ssh_key: Ed25519PrivateKey

    def keys(self) -> tuple[Key, Key]:
        """Public keys: (classical, ML-DSA-87)."""
        return self.classical.public_key, self.post_quantum.public_key

    def sign(self, payload: bytes) -> list[Signature]:
        """Both signatures over a payload's DSSE encoding."""
        message = trust.pre_authentication_encoding(payload)
        return [self.classical.sign(message), self.post_quantum.sign(message)]


def create_signer(directory: Path) -> FileSigner:
    """Make a new signer in an empty or absent folder, which gives it its name.

    Raises TrustError when keys are already there: they are never overwritten.
    """
    if not is_portable_name(directory.name):
        raise FormatError(
            "a signer's name must be portable",
            found=directory.name,
            needed="lower-case letters, digits, dot, dash, underscore",
        )
    if (directory / "classical.pem").exists() or (directory / "ml-dsa-87.pem").exists():
        raise TrustError(
            "keys are already there and are never overwritten",
            where=str(directory),
            hint="give an empty folder",
        )
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, key in (
        ("classical.pem", Ed25519PrivateKey.generate()),
        ("ml-dsa-87.pem", MLDSA87PrivateKey.generate()),
    ):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        durable_write(directory / name, pem, mode=0o600)
    return load_signer(f"file:{directory}")


def load_signer(uri: str) -> FileSigner:
    """The signer at `file:DIR`. Raises TrustError when keys are missing or not of the two kinds."""
    scheme, _, path = uri.partition(":")
    if scheme != "file" or not path:
        raise TrustError("unknown kind of key", found=uri[:100], needed="file:DIRECTORY")
    directory = Path(path)
    for name in ("classical.pem", "ml-dsa-87.pem"):
        if not (directory / name).is_file():
            raise TrustError(
                "no signing key here",
                where=str(directory / name),
                hint=f"edgekit keys init {directory} --insecure-developer",
            )
    classical = _load(directory / "classical.pem")
    post_quantum = _load(directory / "ml-dsa-87.pem")
    if not isinstance(classical, Ed25519PrivateKey) or not isinstance(
        post_quantum, MLDSA87PrivateKey
    ):
        raise TrustError(
            "signing keys are of the wrong kind",
            where=str(directory),
            needed="Ed25519 in classical.pem, ML-DSA-87 in ml-dsa-87.pem",
        )
    return FileSigner(
        name=directory.name,
        classical=CryptoSigner(classical),
        post_quantum=CryptoSigner(post_quantum),
        ssh_key=classical,
    )


def sign_payload(payload: bytes, signers: tuple[FileSigner, ...]) -> bytes:
    """An envelope around a payload with every signer's signatures."""
    return trust.encode_envelope(payload, [s for signer in signers for s in signer.sign(payload)])


def _load(path: Path) -> object:
    try:
        return load_pem_private_key(read_bounded(path, _MAX_PEM_BYTES, path.name), password=None)
    except (ValueError, TypeError) as error:
        raise TrustError("signing key cannot be read", where=str(path)) from error
