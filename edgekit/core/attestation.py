"""Attestations: in-toto statements in DSSE envelopes, signed by a release's own signers.

The bytes that were verified are the bytes that are parsed. Key ids are hints: what counts are the
public keys that the trusted root gives to the targets role, by the root's policy, as for the
release statement (bundle-v1 section 8). Formats: DSSE 1.0, in-toto Statement 1.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature

from edgekit.core import trust
from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.set_files import MAX_ATTESTATION_BYTES
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import FormatError, SignatureError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_SUBJECTS = 20_000
MAX_SIGNATURES = 64
_MAX_SIGNATURE_BYTES = 16 << 10
_URI_PATTERN = r"[\x21-\x7e]{1,200}"
_COUNTED = {"hybrid": ("classical", "pq"), "cnsa2": ("pq",), "classical": ("classical",)}
"""The signatures that a signer needs, by policy: as for the release statement."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A verified in-toto statement. `subjects` maps names to SHA-384; `signers` are who counted.

    `predicate` is a plain JSON table whose meaning `predicate_type`, a URI, says. `payload` are the
    bytes that the signatures cover.
    """

    payload: bytes
    subjects: dict[str, Digest]
    predicate_type: str
    predicate: Mapping[str, Any]
    signers: tuple[str, ...]


def encode_statement(
    subjects: Mapping[str, Digest], predicate_type: str, predicate: Mapping[str, Any]
) -> bytes:
    """Canonical bytes of an in-toto statement; subjects in the order given."""
    return encode_canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {digest.algorithm: digest.value}}
                for name, digest in subjects.items()
            ],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def pre_authentication_encoding(payload: bytes) -> bytes:
    """What signers sign: DSSE's PAE of the payload under the in-toto type."""
    return b"DSSEv1 %d %b %d %b" % (
        len(PAYLOAD_TYPE),
        PAYLOAD_TYPE.encode(),
        len(payload),
        payload,
    )


def encode_attestation(payload: bytes, signatures: Iterable[Signature]) -> bytes:
    """Canonical bytes of the envelope around a statement."""
    return encode_canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": s.keyid, "sig": base64.b64encode(bytes.fromhex(s.signature)).decode()}
                for s in sorted(signatures, key=lambda s: s.keyid)
            ],
        }
    )


def verify_attestation(
    root: trust.TrustedRoot, data: bytes, what: str, *, threshold: int | None = None
) -> Statement:
    """Check an envelope's signatures against the root's targets role, then parse what they cover.

    Raises SignatureError when fewer signers than the threshold count, the role's unless given
    (1 for bytes that a verified release vouches for already), FormatError.
    """
    payload, signatures = _parse_envelope(data, what)
    signers = _count_signers(root, payload, signatures, what, threshold)
    table = parse_canonical(payload, max_bytes=MAX_ATTESTATION_BYTES, what=what)
    fields = Fields(table, what)
    fields.text("_type", choices=(STATEMENT_TYPE,))
    statement = Statement(
        payload=payload,
        subjects=_subjects(fields, what),
        predicate_type=fields.text("predicateType", pattern=_URI_PATTERN),
        predicate=fields.mapping("predicate"),
        signers=signers,
    )
    fields.finish()
    return statement


def _subjects(fields: Fields, what: str) -> dict[str, Digest]:
    subjects: dict[str, Digest] = {}
    for item in fields.items("subject", max_items=MAX_SUBJECTS):
        name = item.text("name")
        digests = item.table("digest")
        if name in subjects:
            raise FormatError(f"{what} names a subject twice", found=name)
        subjects[name] = Digest("sha384", digests.text("sha384"))
        digests.finish()
        item.finish()
    return subjects


def _parse_envelope(data: bytes, what: str) -> tuple[bytes, dict[str, Signature]]:
    fields = Fields(parse_canonical(data, max_bytes=MAX_ATTESTATION_BYTES, what=what), what)
    payload = _base64(fields, "payload", MAX_ATTESTATION_BYTES)
    fields.text("payloadType", choices=(PAYLOAD_TYPE,))
    signatures: dict[str, Signature] = {}
    for item in fields.items("signatures", max_items=MAX_SIGNATURES):
        keyid = item.text("keyid", pattern=r"[0-9a-f]{64}")
        if keyid in signatures:
            raise item.fail("keyid", "two signatures claim the same key")
        signatures[keyid] = Signature(keyid, _base64(item, "sig", _MAX_SIGNATURE_BYTES).hex())
        item.finish()
    fields.finish()
    return payload, signatures


def _base64(fields: Fields, key: str, max_bytes: int) -> bytes:
    text = fields.take(key, str)
    if len(text) > max_bytes * 4 // 3 + 4:
        raise fields.fail(key, "too long")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise fields.fail(key, "not base64") from error
    if base64.b64encode(data).decode() != text:
        raise fields.fail(key, "not canonical base64")
    return data


def _count_signers(
    root: trust.TrustedRoot,
    payload: bytes,
    signatures: dict[str, Signature],
    what: str,
    threshold: int | None,
) -> tuple[str, ...]:
    message = pre_authentication_encoding(payload)
    needed = _COUNTED[root.policy]
    good = tuple(
        name
        for name, keys in sorted(_keys_by_signer(root).items())
        if all(kind in keys and _verifies(keys[kind], signatures, message) for kind in needed)
    )
    enough = threshold or root.threshold("targets")
    if len(good) < enough:
        raise SignatureError(
            f"{what} is not signed by enough trusted signers",
            needed=f"{enough} of {', '.join(root.signers('targets'))} "
            f"(policy {root.policy})",
            found=", ".join(good) or "none that counts",
            hint="ask who made this set; do not install it",
        )
    return good


def _keys_by_signer(root: trust.TrustedRoot) -> dict[str, dict[str, Key]]:
    """The targets role's keys by signer and kind; the root was checked when it became trusted."""
    signers: dict[str, dict[str, Key]] = {}
    for keyid in root.root.roles["targets"].keyids:
        key = root.root.keys[keyid]
        kind = "pq" if key.scheme == trust.PQ_SCHEME else "classical"
        signers.setdefault(str(key.unrecognized_fields[trust.SIGNER_FIELD]), {})[kind] = key
    return signers


def _verifies(key: Key, signatures: dict[str, Signature], message: bytes) -> bool:
    signature = signatures.get(key.keyid)
    if signature is None:
        return False
    try:
        key.verify_signature(signature, message)
    except UnverifiedSignatureError:
        return False
    return True
