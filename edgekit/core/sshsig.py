"""SSH signatures (SSHSIG), so that a stranger can check a set with ssh-keygen alone.

Format: OpenSSH PROTOCOL.sshsig, version 1, SHA-512 prehash, Ed25519 or ECDSA P-384 keys: whichever
classical key a signer has, so that everybody can sign last. Tested against the real ssh-keygen. Not
a policy input: trust is decided by core/trust.py.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import textwrap
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgekit.core.public_keys import PublicKey
from edgekit.errors import FormatError, SignatureError

NAMESPACE = "edgekit-set"
_MAGIC = b"SSHSIG"
_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"

_ED25519 = "ssh-ed25519"
_P384 = "ecdsa-sha2-nistp384"


def sign_ssh(key: Ed25519PrivateKey, message: bytes) -> bytes:
    """An armoured SSHSIG over `message` in edgekit's namespace, with a key in memory."""
    return sign_ssh_with(key.public_key(), key.sign, message)


def sign_ssh_with(key: PublicKey, sign: Callable[[bytes], bytes], message: bytes) -> bytes:
    """The same with a key that lies elsewhere.

    `sign` gives the key's own form: 64 bytes for Ed25519, DER over SHA-384 for ECDSA P-384.
    """
    return _armour(key, sign(_MAGIC + _signed_part(message)))


def verify_ssh(armoured: bytes, message: bytes, keys: Sequence[PublicKey]) -> None:
    """Check that one of `keys` made this SSHSIG over `message`.

    The armour must be exactly what `sign_ssh` writes for that signature, so that no flipped byte
    goes unnoticed. Raises SignatureError.
    """
    signed = _MAGIC + _signed_part(message)
    for key in keys:
        signature = _signature_of(armoured, key)
        if signature is not None and _verifies(key, signature, signed):
            return
    raise SignatureError(
        "SHA384SUMS.sig is not a signature of SHA384SUMS by a signer of this set",
        hint="ask for a fresh copy of the set",
    )


def allowed_signer(name: str, key: PublicKey) -> str:
    """The line of an `allowed_signers` file that lets ssh-keygen accept this signer."""
    blob = base64.b64encode(_public_blob(key)).decode()
    return f'{name} namespaces="{NAMESPACE}" {_kind(key)} {blob}'


def _verifies(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, signed)
        elif isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, signed, ECDSA(SHA384()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _armour(key: PublicKey, signature: bytes) -> bytes:
    inner = _string(_kind(key).encode()) + _string(_to_wire(key, signature))
    return _wrap(_header(key) + _string(inner))


def _wrap(blob: bytes) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(blob).decode(), 70))
    return f"{_BEGIN}\n{body}\n{_END}\n".encode()


def _signature_of(armoured: bytes, key: PublicKey) -> bytes | None:
    """The signature in the key's own form, if everything around it is as it must be."""
    lines = armoured.decode("ascii", errors="replace").split("\n")
    try:
        blob = base64.b64decode("".join(lines[1:-2]), validate=True)
        if not blob.startswith(_header(key)):
            return None
        inner = _one_string(blob[len(_header(key)) :])
        kind, rest = _take_string(inner)
        signature = _from_wire(key, _one_string(rest))
    except (ValueError, struct.error):
        return None
    exact = kind == _kind(key).encode() and armoured == _armour(key, signature)
    return signature if exact else None


def _header(key: PublicKey) -> bytes:
    return (
        _MAGIC
        + struct.pack(">I", 1)
        + _string(_public_blob(key))
        + _string(NAMESPACE.encode())
        + _string(b"")
        + _string(b"sha512")
    )


def _signed_part(message: bytes) -> bytes:
    return (
        _string(NAMESPACE.encode())
        + _string(b"")
        + _string(b"sha512")
        + _string(hashlib.sha512(message).digest())
    )


def _kind(key: PublicKey) -> str:
    if isinstance(key, Ed25519PublicKey):
        return _ED25519
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp384r1":
        return _P384
    raise FormatError("ssh-keygen knows no such key", needed="Ed25519 or ECDSA P-384")


def _public_blob(key: PublicKey) -> bytes:
    kind = _string(_kind(key).encode())
    if isinstance(key, EllipticCurvePublicKey):
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return kind + _string(b"nistp384") + _string(point)
    return kind + _string(key.public_bytes_raw())


def _to_wire(key: PublicKey, signature: bytes) -> bytes:
    if isinstance(key, Ed25519PublicKey):
        return signature
    return b"".join(_string(_mpint(number)) for number in decode_dss_signature(signature))


def _from_wire(key: PublicKey, data: bytes) -> bytes:
    if isinstance(key, Ed25519PublicKey):
        return data
    first, rest = _take_string(data)
    second = _one_string(rest)
    return encode_dss_signature(int.from_bytes(first), int.from_bytes(second))


def _mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _take_string(data: bytes) -> tuple[bytes, bytes]:
    """The first length-prefixed string, and what follows. Raises struct.error or ValueError."""
    (length,) = struct.unpack_from(">I", data)
    if length > len(data) - 4:
        raise ValueError("string is cut off")
    return data[4 : 4 + length], data[4 + length :]


def _one_string(data: bytes) -> bytes:
    text, rest = _take_string(data)
    if rest:
        raise ValueError("bytes after the string")
    return text
