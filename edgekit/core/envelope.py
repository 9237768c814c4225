"""DSSE envelopes: what is signed is exact bytes, and it is checked before those bytes are parsed.

Key ids name signatures and decide nothing. The payload type is part of what is signed, so that a
signature made for one kind of document is none for another.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from securesystemslib.signer import Signature
from tuf.api.dsse import SimpleEnvelope

from edgekit.core import dsse
from edgekit.core.digest import Digest
from edgekit.core.strict_json import encode_canonical

PAYLOAD_TYPE = "application/vnd.tuf+json"
"""Roots and release statements."""

SIGNER_PAYLOAD_TYPE = "application/vnd.edgekit.signer+json"
"""Public halves of signers."""


def encode_envelope(
    payload: bytes, signatures: Iterable[Signature], payload_type: str = PAYLOAD_TYPE
) -> bytes:
    """Canonical bytes of a DSSE envelope around a payload."""
    return encode_canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [
                {"keyid": s.keyid, "sig": base64.b64encode(bytes.fromhex(s.signature)).decode()}
                for s in sorted(signatures, key=lambda s: s.keyid)
            ],
        }
    )


def add_signatures(
    envelope: SimpleEnvelope[Any], signatures: Iterable[Signature], payload_type: str = PAYLOAD_TYPE
) -> bytes:
    """The envelope's bytes with more signatures; one with the same key id is replaced."""
    merged = {**envelope.signatures, **{s.keyid: s for s in signatures}}
    return encode_envelope(envelope.payload, merged.values(), payload_type)


def payload_digest(envelope: SimpleEnvelope[Any]) -> Digest:
    """What identifies a document whoever signed it: the SHA-384 of the signed payload."""
    return Digest.of(envelope.payload)


def pre_authentication_encoding(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """What signers sign: DSSE's PAE of the payload."""
    return dsse.pre_authentication_encoding(payload, payload_type)


def parse_envelope(
    data: bytes, max_bytes: int, what: str, payload_type: str = PAYLOAD_TYPE
) -> SimpleEnvelope[Any]:
    """The envelope as tuf knows it, read by the rules of `parse_dsse`. Raises FormatError."""
    envelope = dsse.parse_dsse(data, max_bytes, what, payload_type)
    signatures = {k: Signature(k, sig.hex()) for k, sig in envelope.signatures.items()}
    return SimpleEnvelope(envelope.payload, payload_type, signatures)
