"""SSH signatures (SSHSIG), so that a stranger can check a set with ssh-keygen alone.

Format: OpenSSH PROTOCOL.sshsig, version 1, Ed25519 keys, SHA-512 prehash. Tested against the real
ssh-keygen. Not a policy input: trust is decided by core/trust.py.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import textwrap

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgekit.errors import SignatureError

NAMESPACE = "edgekit-set"
_MAGIC = b"SSHSIG"
_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"


def sign_ssh(key: Ed25519PrivateKey, message: bytes) -> bytes:
    """An armoured SSHSIG over `message` in edgekit's namespace."""
    signature = key.sign(_MAGIC + _signed_part(message))
    blob = (
        _MAGIC
        + struct.pack(">I", 1)
        + _string(_public_blob(key.public_key()))
        + _string(NAMESPACE.encode())
        + _string(b"")
        + _string(b"sha512")
        + _string(_string(b"ssh-ed25519") + _string(signature))
    )
    body = "\n".join(textwrap.wrap(base64.b64encode(blob).decode(), 70))
    return f"{_BEGIN}\n{body}\n{_END}\n".encode()


def verify_ssh(armoured: bytes, message: bytes, keys: list[Ed25519PublicKey]) -> None:
    """Check that one of `keys` made this SSHSIG over `message`.

    The armour must be exactly what `sign_ssh` writes for that signature, so that no flipped byte
    goes unnoticed. Raises SignatureError.
    """
    for key in keys:
        signature = _signature_of(armoured, key)
        if signature is None:
            continue
        try:
            key.verify(signature, _MAGIC + _signed_part(message))
        except InvalidSignature:
            continue
        return
    raise SignatureError(
        "SHA384SUMS.sig is not a signature of SHA384SUMS by a signer of this set",
        hint="ask for a fresh copy of the set",
    )


def allowed_signer(name: str, key: Ed25519PublicKey) -> str:
    """The line of an `allowed_signers` file that lets ssh-keygen accept this signer."""
    blob = base64.b64encode(_public_blob(key)).decode()
    return f'{name} namespaces="{NAMESPACE}" ssh-ed25519 {blob}'


def _signature_of(armoured: bytes, key: Ed25519PublicKey) -> bytes | None:
    """The 64 signature bytes, if everything around them is as it must be for this key."""
    lines = armoured.decode("ascii", errors="replace").split("\n")
    if lines[0] != _BEGIN or lines[-2:] != [_END, ""]:
        return None
    try:
        blob = base64.b64decode("".join(lines[1:-2]), validate=True)
    except ValueError:
        return None
    prefix = (
        _MAGIC
        + struct.pack(">I", 1)
        + _string(_public_blob(key))
        + _string(NAMESPACE.encode())
        + _string(b"")
        + _string(b"sha512")
        + struct.pack(">I", 83)
        + _string(b"ssh-ed25519")
        + struct.pack(">I", 64)
    )
    body = "\n".join(textwrap.wrap(base64.b64encode(blob).decode(), 70))
    exact = armoured == f"{_BEGIN}\n{body}\n{_END}\n".encode()
    if not exact or not blob.startswith(prefix) or len(blob) != len(prefix) + 64:
        return None
    return blob[len(prefix) :]


def _signed_part(message: bytes) -> bytes:
    return (
        _string(NAMESPACE.encode())
        + _string(b"")
        + _string(b"sha512")
        + _string(hashlib.sha512(message).digest())
    )


def _public_blob(key: Ed25519PublicKey) -> bytes:
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return _string(b"ssh-ed25519") + _string(raw)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
