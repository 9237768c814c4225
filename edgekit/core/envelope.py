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

from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.strict_json import encode_canonical, parse_canonical

PAYLOAD_TYPE = "application/vnd.tuf+json"
"""Roots and release statements."""

SIGNER_PAYLOAD_TYPE = "application/vnd.edgekit.signer+json"
"""Public halves of signers."""

MAX_SIGNATURES = 64
MAX_SIGNATURE_BYTES = 16384


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
    return bytes(SimpleEnvelope(payload, payload_type, {}).pae())


def parse_envelope(
    data: bytes, max_bytes: int, what: str, payload_type: str = PAYLOAD_TYPE
) -> SimpleEnvelope[Any]:
    """Strict DSSE: canonical JSON, this payload type, at most 64 signatures, no key id twice.

    Raises FormatError. The payload is not looked at.
    """
    fields = Fields(parse_canonical(data, max_bytes=max_bytes, what=what), what)
    payload = _base64(fields, "payload", max_bytes)
    fields.text("payloadType", choices=(payload_type,))
    signatures: dict[str, Signature] = {}
    for item in fields.items("signatures", max_items=MAX_SIGNATURES):
        keyid = item.text("keyid", pattern=r"[0-9a-f]{64}")
        if keyid in signatures:
            raise item.fail("keyid", "two signatures claim the same key")
        signatures[keyid] = Signature(keyid, _base64(item, "sig", MAX_SIGNATURE_BYTES).hex())
        item.finish()
    fields.finish()
    return SimpleEnvelope(payload, payload_type, signatures)


def _base64(fields: Fields, key: str, max_bytes: int) -> bytes:
    text = fields.text(key, max_length=max_bytes * 4 // 3 + 4)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise fields.fail(key, "not base64") from error
    if base64.b64encode(data).decode() != text:
        raise fields.fail(key, "not canonical base64")
    return data
