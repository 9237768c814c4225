"""Private keys, addressed by URI, and signatures made with them.

* `file:DIR`: a folder with `classical.pem` and `ml-dsa-87.pem`, as `edgekit keys new` makes it;
* `hybrid:HALF;classical=KEY;ml-dsa=KEY`: the two keys in different places. HALF is the signer's
  public half (`NAME.signer.json`); a KEY is `file:FILE.pem`, or, for the classical one,
  `hsm:ID?label=TOKEN`: an ECDSA P-384 key that stays in a PKCS#11 token (securesystemslib's
  HSMSigner; `PYKCS11LIB` names the token's library).

Private keys are written 0600 and never printed. Every signature is checked before it is handed on.
"""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.exceptions import UnsupportedLibraryError, UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, HSMSigner, Key, Signature, Signer

from edgekit.core import trust
from edgekit.core.names import is_portable_name
from edgekit.core.signers import load_public_key
from edgekit.core.sshsig import sign_ssh_with
from edgekit.errors import EdgekitError, FormatError, MissingToolError, TrustError
from edgekit.system.files import durable_write, read_bounded

_MAX_PEM_BYTES = 16384
_CLASSICAL, _POST_QUANTUM = "classical.pem", "ml-dsa-87.pem"
_FORMS = "file:DIRECTORY or hybrid:NAME.signer.json;classical=KEY;ml-dsa=KEY"
PIN_FILE = "EDGEKIT_PIN_FILE"

CLASSICAL_KINDS = ("ed25519", "ecdsa-p384")
"""Kinds of classical key that can be made in a file."""


@dataclass(frozen=True, slots=True)
class PairSigner:
    """Someone who can sign: a name, and a classical and an ML-DSA-87 key wherever they lie."""

    name: str
    classical: Signer
    post_quantum: Signer

    def keys(self) -> tuple[Key, Key]:
        """Public keys: (classical, ML-DSA-87)."""
        return self.classical.public_key, self.post_quantum.public_key

    def signer_keys(self) -> trust.SignerKeys:
        """Public keys, as roots hold them."""
        return trust.SignerKeys(*self.keys())

    def sign(self, payload: bytes, payload_type: str = trust.PAYLOAD_TYPE) -> list[Signature]:
        """Both signatures over a payload's DSSE encoding. Raises TrustError."""
        message = trust.pre_authentication_encoding(payload, payload_type)
        return [_sign(key, message) for key in (self.classical, self.post_quantum)]

    def sign_ssh(self, message: bytes) -> bytes:
        """An armoured SSHSIG by the classical key. Raises TrustError."""

        def sign(data: bytes) -> bytes:
            return bytes.fromhex(_sign(self.classical, data).signature)

        return sign_ssh_with(load_public_key(self.classical.public_key), sign, message)

    def public_half(self) -> bytes:
        """What others need to name this signer in a root, with proof that the keys are held."""
        payload = trust.signer_payload(self.name, self.signer_keys())
        kind = trust.SIGNER_PAYLOAD_TYPE
        return trust.encode_envelope(payload, self.sign(payload, kind), kind)


def create_signer(directory: Path, classical: str = "ed25519") -> PairSigner:
    """Make a new signer in an empty or absent folder, which gives it its name.

    `classical` is a kind of key to make, or `hsm:ID?label=TOKEN` for one that lies in a token.
    Writes the keys and `NAME.signer.json`. Raises TrustError when keys are already there: they are
    never overwritten.
    """
    if not is_portable_name(directory.name):
        raise FormatError(
            "a signer's name must be portable",
            found=directory.name,
            needed="lower-case letters, digits, dot, dash, underscore",
        )
    if (directory / _CLASSICAL).exists() or (directory / _POST_QUANTUM).exists():
        raise TrustError(
            "keys are already there and are never overwritten",
            where=str(directory),
            hint="give an empty folder",
        )
    made = None if classical.startswith("hsm:") else _generate_classical(classical)
    held = _import_hsm(classical) if made is None else CryptoSigner(made)
    post_quantum = MLDSA87PrivateKey.generate()
    signer = PairSigner(directory.name, held, CryptoSigner(post_quantum))
    half = signer.public_half()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, key in ((_CLASSICAL, made), (_POST_QUANTUM, post_quantum)):
        if key is not None:
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            durable_write(directory / name, pem, mode=0o600)
    durable_write(public_half_path(directory), half)
    return signer


def public_half_path(directory: Path) -> Path:
    """Where `create_signer` puts the part that may be given away."""
    return directory / f"{directory.name}.signer.json"


def load_signer(uri: str) -> PairSigner:
    """The signer at a URI of the forms above.

    Raises TrustError when keys are missing, unreadable or not the ones that were promised.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "file" and rest:
        directory = Path(rest)
        return PairSigner(
            directory.name,
            CryptoSigner(_load_classical(directory / _CLASSICAL)),
            CryptoSigner(_load_post_quantum(directory / _POST_QUANTUM)),
        )
    if scheme == "hybrid" and rest:
        return _load_hybrid(rest)
    raise TrustError("unknown kind of key", found=uri[:100], needed=_FORMS)


def sign_payload(payload: bytes, signers: tuple[PairSigner, ...]) -> bytes:
    """An envelope around a payload with every signer's signatures."""
    return trust.encode_envelope(payload, [s for signer in signers for s in signer.sign(payload)])


def _load_hybrid(text: str) -> PairSigner:
    half_path, *parts = text.split(";")
    places = dict(part.partition("=")[::2] for part in parts)
    if set(places) != {"classical", "ml-dsa"} or len(parts) != 2:
        raise TrustError("unknown kind of key", found=f"hybrid:{text}"[:200], needed=_FORMS)
    data = read_bounded(Path(half_path), trust.MAX_SIGNER_BYTES, "public half")
    half = trust.verify_public_half(data)
    scheme, _, path = places["ml-dsa"].partition(":")
    if scheme != "file":
        raise TrustError(
            "unknown place for an ML-DSA key",
            found=places["ml-dsa"][:100],
            needed="ml-dsa=file:FILE.pem",
        )
    signer = PairSigner(
        half.name,
        _load_part(places["classical"], half.keys.classical),
        CryptoSigner(_load_post_quantum(Path(path))),
    )
    if signer.signer_keys().identities() != half.keys.identities():
        raise TrustError("these are not the private keys of this signer", found=half.name)
    return signer


def _load_part(uri: str, public: Key) -> Signer:
    scheme, _, path = uri.partition(":")
    if scheme == "file":
        return CryptoSigner(_load_classical(Path(path)))
    if scheme != "hsm":
        raise TrustError(
            "unknown place for a classical key",
            found=uri[:100],
            needed="classical=file:FILE.pem or classical=hsm:ID?label=TOKEN",
        )
    _check_hsm_ready()
    try:
        return Signer.from_priv_key_uri(uri, public, ask_pin)
    except (ValueError, UnsupportedLibraryError) as error:
        raise _hsm_error(error) from error


def _import_hsm(uri: str) -> Signer:
    """A signer for a P-384 key that lies in a token, its public part read from there."""
    _check_hsm_ready()
    identity, _, query = uri.removeprefix("hsm:").partition("?")
    label = dict(part.partition("=")[::2] for part in query.split("&")).get("label")
    if not identity.isdigit() or not label:
        raise TrustError("which key of which token?", found=uri[:100], needed="hsm:ID?label=TOKEN")
    try:
        _, public = HSMSigner.import_(int(identity), label, ask_pin)
        if public.scheme != "ecdsa-sha2-nistp384":
            raise TrustError(
                "the token's key is of another kind", found=public.scheme, needed="ECDSA P-384"
            )
        return Signer.from_priv_key_uri(uri, public, ask_pin)
    except (ValueError, RuntimeError, UnsupportedLibraryError) as error:
        raise _hsm_error(error) from error


def _check_hsm_ready() -> None:
    library = os.environ.get("PYKCS11LIB")
    if not library or not Path(library).is_file():
        raise MissingToolError(
            "no PKCS#11 library to reach a token with",
            found=library or "PYKCS11LIB is not set",
            needed="the library of your token",
            hint="export PYKCS11LIB=/usr/lib/softhsm/libsofthsm2.so",
        )


@cache
def ask_pin(secret: str) -> str:
    """The token's PIN: from the file that EDGEKIT_PIN_FILE names, else typed at a terminal."""
    path = os.environ.get(PIN_FILE)
    if path:
        return read_bounded(Path(path), 256, "PIN file").decode().rstrip("\n")
    if not sys.stdin.isatty():
        raise TrustError(f"the token needs its {secret}", hint=f"export {PIN_FILE}=FILE")
    return getpass.getpass(f"token {secret}: ")


def _sign(signer: Signer, message: bytes) -> Signature:
    try:
        signature = signer.sign(message)
        signer.public_key.verify_signature(signature, message)
    except (ValueError, RuntimeError, UnsupportedLibraryError) as error:
        raise _hsm_error(error) from error
    except UnverifiedSignatureError as error:
        raise TrustError("the key made a signature that does not verify") from error
    return signature


def _hsm_error(error: Exception) -> EdgekitError:
    """What a token's refusal means; the PKCS#11 binding's own errors are RuntimeErrors."""
    if isinstance(error, UnsupportedLibraryError):
        return MissingToolError(
            "tokens need a Python package", found=str(error), hint="pip install 'edgekit[hsm]'"
        )
    text = f"{type(error).__name__} {error}".strip()
    return TrustError(
        "the token did not sign",
        found=text[:200],
        hint="pkcs11-tool --list-objects, or softhsm2-util --show-slots",
    )


def _generate_classical(kind: str) -> Ed25519PrivateKey | EllipticCurvePrivateKey:
    if kind not in CLASSICAL_KINDS:
        raise TrustError(
            "unknown kind of classical key",
            found=kind[:100],
            needed=f"{', '.join(CLASSICAL_KINDS)} or hsm:ID?label=TOKEN",
        )
    return Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(SECP384R1())


def _load_classical(path: Path) -> Ed25519PrivateKey | EllipticCurvePrivateKey:
    key = _load(path)
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name == "secp384r1":
        return key
    raise _wrong_kind(path, "Ed25519 or ECDSA P-384")


def _load_post_quantum(path: Path) -> MLDSA87PrivateKey:
    key = _load(path)
    if not isinstance(key, MLDSA87PrivateKey):
        raise _wrong_kind(path, "ML-DSA-87")
    return key


def _wrong_kind(path: Path, needed: str) -> TrustError:
    return TrustError("signing key is of the wrong kind", where=str(path), needed=needed)


def _load(path: Path) -> object:
    if not path.is_file():
        raise TrustError(
            "no signing key here", where=str(path), hint=f"edgekit keys new {path.parent}"
        )
    try:
        return load_pem_private_key(read_bounded(path, _MAX_PEM_BYTES, path.name), password=None)
    except (ValueError, TypeError) as error:
        raise TrustError("signing key cannot be read", where=str(path)) from error
