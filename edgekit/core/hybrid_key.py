"""A signer's two public keys, read and used by the cryptography package alone.

`core.signers` does the same for the documents of a bundle set, through tuf and securesystemslib,
which need not be where an audit log is verified. Both read the same file, `NAME.signer.json`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edgekit.core.dsse import Envelope, parse_dsse
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN
from edgekit.core.public_keys import (
    CLASSICAL_SCHEMES,
    PQ_SCHEME,
    PublicKey,
    has_signed,
    load_public,
)
from edgekit.core.strict_json import parse_canonical
from edgekit.errors import SignatureError

MAX_HALF_BYTES = 32 << 10
HALF_TYPE = "application/vnd.edgekit.signer+json"


@dataclass(frozen=True, slots=True)
class HybridKey:
    """A signer. From a file: `verify_hybrid_key` only. `fingerprint` is what is read aloud."""

    name: str
    fingerprint: str
    classical: PublicKey
    post_quantum: PublicKey

    def has_signed(self, envelope: Envelope) -> bool:
        """Whether both keys signed the envelope, whatever the key ids say."""
        message, signatures = envelope.message(), envelope.signatures.values()
        return all(
            any(has_signed(key, signature, message) for signature in signatures)
            for key in (self.classical, self.post_quantum)
        )


def verify_hybrid_key(data: bytes) -> HybridKey:
    """A signer's public half, whose two private keys signed it.

    That proves possession, not identity: compare the fingerprint. Raises FormatError or
    SignatureError.
    """
    envelope = parse_dsse(data, MAX_HALF_BYTES, "public half", HALF_TYPE)
    table = parse_canonical(envelope.payload, max_bytes=MAX_HALF_BYTES, what="public half")
    fields = Fields(table, "signer")
    fields.text("_type", choices=("edgekit-signer",))
    key = HybridKey(
        fields.text("name", pattern=NAME_PATTERN),
        hashlib.sha384(envelope.payload).hexdigest(),
        _take_key(fields, "classical", CLASSICAL_SCHEMES),
        _take_key(fields, "ml-dsa-87", (PQ_SCHEME,)),
    )
    fields.finish()
    if not key.has_signed(envelope):
        raise SignatureError("public half does not prove that its private keys are held")
    return key


def _take_key(fields: Fields, name: str, schemes: tuple[str, ...]) -> PublicKey:
    item = fields.table(name)
    item.text("keytype", max_length=20)
    scheme = item.text("scheme", choices=schemes)
    value = item.table("keyval")
    public = value.take("public", str)
    value.finish()
    item.finish()
    return load_public(scheme, public)
