"""Public keys and what they say of a message, by the cryptography package alone.

The key material is spelled as in TUF: an Ed25519 key as 64 hex digits, others as PEM. An ML-DSA
signature of scheme `ml-dsa-87/1` (TAP 21) is over `tuf` 0x01 SHA-512(message).
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from edgekit.errors import FormatError

PQ_SCHEME = "ml-dsa-87/1"
CLASSICAL_SCHEMES = ("ed25519", "ecdsa-sha2-nistp384")

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | MLDSA87PublicKey


def load_public(scheme: str, text: str) -> PublicKey:
    """A key from its scheme and spelling.

    Raises FormatError for a key that is malformed or not of the kind its scheme says.
    """
    try:
        if scheme == "ed25519":
            return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
        public = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("malformed public key", found=text[:16]) from error
    if isinstance(public, MLDSA87PublicKey) and scheme == PQ_SCHEME:
        return public
    if (
        isinstance(public, EllipticCurvePublicKey)
        and public.curve.name == "secp384r1"
        and scheme == "ecdsa-sha2-nistp384"
    ):
        return public
    raise FormatError("public key of another kind than it says", found=scheme[:60])


def has_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the signature over the message is this key's."""
    try:
        if isinstance(key, MLDSA87PublicKey):
            key.verify(signature, b"tuf\x01" + hashlib.sha512(message).digest())
        elif isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ECDSA(SHA384()))
    except InvalidSignature:
        return False
    return True
