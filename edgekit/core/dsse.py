"""DSSE envelopes by the standard library alone: strict form, and the bytes that are signed.

Nothing here needs tuf or securesystemslib, so that an audit log can be verified with Python and the
cryptography package.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.core.fields import Fields
from edgekit.core.strict_json import parse_canonical

MAX_SIGNATURES = 64
MAX_SIGNATURE_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload that nobody has looked at, and signatures by key id (a mere hint)."""

    payload: bytes
    payload_type: str
    signatures: Mapping[str, bytes]

    def message(self) -> bytes:
        """What signers sign."""
        return pre_authentication_encoding(self.payload, self.payload_type)


def pre_authentication_encoding(payload: bytes, payload_type: str) -> bytes:
    """DSSE's PAE: the payload and its type, each with its length in bytes before it."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse_dsse(data: bytes, max_bytes: int, what: str, payload_type: str) -> Envelope:
    """Strict DSSE: canonical JSON, this payload type, at most 64 signatures, no key id twice.

    Raises FormatError. The payload is not looked at.
    """
    fields = Fields(parse_canonical(data, max_bytes=max_bytes, what=what), what)
    payload = _base64(fields, "payload", max_bytes)
    fields.text("payloadType", choices=(payload_type,))
    signatures: dict[str, bytes] = {}
    for item in fields.items("signatures", max_items=MAX_SIGNATURES):
        keyid = item.text("keyid", pattern=r"[0-9a-f]{64}")
        if keyid in signatures:
            raise item.fail("keyid", "two signatures claim the same key")
        signatures[keyid] = _base64(item, "sig", MAX_SIGNATURE_BYTES)
        item.finish()
    fields.finish()
    return Envelope(payload, payload_type, signatures)


def _base64(fields: Fields, key: str, max_bytes: int) -> bytes:
    text = fields.text(key, max_length=max_bytes * 4 // 3 + 4)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise fields.fail(key, "not base64") from error
    if base64.b64encode(data).decode() != text:
        raise fields.fail(key, "not canonical base64")
    return data
