"""The bytes of a kept text, and who can read them. Which texts are kept: `core.text_policy`.

A kept text is a side file: one canonical JSON line that says what it is, a newline, and the body.
The audit record holds the SHA-384 of the whole file and nothing of the text, so that a text can be
erased, by its file or by the auditor's key, and the chain stays valid. A body is sealed with HPKE
(RFC 9180, base mode: ML-KEM-1024, HKDF-SHA-384, AES-256-GCM), whose `info` is the schema, a newline
and the first line: a body moved under another line does not open. The line of a text in clear
carries 32 random bytes, without which an erased short text could be guessed from its digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from edgekit.core.fields import Fields
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import AuditAlteredError, AuditFormatError, FormatError, TrustError

SCHEMA = "edgekit.audit-text/1"
SUITE = "hpke-mlkem1024-hkdf-sha384-aes-256-gcm"
CLEAR = "clear"
PARTS = ("prompt", "output")
NONCE_BYTES = 32
MAX_PEM_BYTES = 16384
MAX_LINE_BYTES = 1024
MAX_TEXT_BYTES = 64 << 20
"""Above any request body and any answer that the gateway lets through."""


@dataclass(frozen=True, slots=True)
class TextLabel:
    """What a kept text is: of which request, which part of it, when (us since 1970)."""

    request_id: str
    part: str
    t_utc: int


@dataclass(frozen=True, slots=True)
class KeptText:
    """A side file's content, taken apart. `recipient` is "" for a text in clear."""

    label: TextLabel
    recipient: str
    line: bytes
    body: bytes


def recipient_id(key: MLKEM1024PublicKey) -> str:
    """How side files and records name an auditor's key: 32 hex digits of its SHA-384 (SPKI)."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha384(spki).hexdigest()[:32]


def load_recipient(pem: bytes) -> MLKEM1024PublicKey:
    """An auditor's public key from PEM. Raises FormatError for anything but ML-KEM-1024."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("not a public key in PEM", needed="an ML-KEM-1024 key") from error
    if not isinstance(key, MLKEM1024PublicKey):
        raise FormatError("the auditor's key is of another kind", needed="ML-KEM-1024")
    return key


def load_auditor_key(pem: bytes) -> MLKEM1024PrivateKey:
    """An auditor's private key from PEM. Raises TrustError for anything but ML-KEM-1024."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError("not a private key in PEM", needed="an ML-KEM-1024 key") from error
    if not isinstance(key, MLKEM1024PrivateKey):
        raise TrustError("this key opens no texts", needed="ML-KEM-1024")
    return key


def seal_text(label: TextLabel, text: bytes, key: MLKEM1024PublicKey) -> bytes:
    """The side file of a text that only the holder of `key`'s private half can read."""
    line = encode_canonical(
        {**_label_fields(label), "suite": SUITE, "recipient": recipient_id(key), "nonce": ""}
    )
    return line + b"\n" + _suite().encrypt(text, key, _info(line))


def clear_text(label: TextLabel, text: bytes, nonce: bytes) -> bytes:
    """The side file of a text in clear; `nonce` is 32 fresh random bytes."""
    line = encode_canonical(
        {**_label_fields(label), "suite": CLEAR, "recipient": "", "nonce": nonce.hex()}
    )
    return line + b"\n" + text


def parse_text(data: bytes) -> KeptText:
    """Take a side file apart. Raises AuditFormatError."""
    line, _, body = data.partition(b"\n")
    try:
        fields = Fields(parse_canonical(line, max_bytes=MAX_LINE_BYTES, what="kept text"))
        fields.text("schema", choices=(SCHEMA,))
        label = TextLabel(
            fields.text("request_id", max_length=80),
            fields.text("part", choices=PARTS),
            fields.integer("t_utc", low=0, high=1 << 62),
        )
        suite = fields.text("suite", choices=(SUITE, CLEAR))
        recipient = fields.text("recipient", pattern="[0-9a-f]{32}" if suite == SUITE else "")
        fields.text("nonce", pattern="" if suite == SUITE else rf"[0-9a-f]{{{2 * NONCE_BYTES}}}")
        fields.finish()
    except FormatError as error:
        raise AuditFormatError("a kept text is malformed", found=str(error)) from error
    return KeptText(label, recipient, line, body)


def open_text(data: bytes, digest: str, key: MLKEM1024PrivateKey | None) -> bytes:
    """The text in a side file that the audit record names by `digest` (hex).

    Raises AuditAlteredError when the file is another one, AuditFormatError when it is malformed,
    TrustError when it takes a key that is not `key`.
    """
    if hashlib.sha384(data).hexdigest() != digest:
        raise AuditAlteredError("a kept text is not the one that was recorded", needed=digest)
    kept = parse_text(data)
    if not kept.recipient:
        return kept.body
    if key is None or recipient_id(key.public_key()) != kept.recipient:
        raise TrustError(
            "this text is sealed to another key",
            found="no key" if key is None else recipient_id(key.public_key()),
            needed=kept.recipient,
            hint="edgekit audit text REQUEST --key auditor.pem",
        )
    try:
        return _suite().decrypt(kept.body, key, _info(kept.line))
    except (InvalidTag, ValueError) as error:
        raise AuditAlteredError("a sealed text does not open", found=kept.label.part) from error


def _suite() -> Suite:
    return Suite(KEM.MLKEM1024, KDF.HKDF_SHA384, AEAD.AES_256_GCM)


def _info(line: bytes) -> bytes:
    return SCHEMA.encode() + b"\n" + line


def _label_fields(label: TextLabel) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "request_id": label.request_id,
        "part": label.part,
        "t_utc": label.t_utc,
    }
