"""Attestations: in-toto statements in DSSE envelopes, signed by a release's own signers.

The bytes that were verified are the bytes that are parsed. Key ids are hints: what counts are the
public keys that the trusted root gives to the targets role, by the root's policy, as for the
release statement (bundle-v1 section 8). Formats: DSSE 1.0, in-toto Statement 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib.signer import Signature

from edgekit.core import envelope, trust
from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.set_files import MAX_ATTESTATION_BYTES
from edgekit.core.signers import tally_signers, verify_threshold
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import FormatError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_SUBJECTS = 20_000
_URI_PATTERN = r"[\x21-\x7e]{1,200}"


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
    return envelope.pre_authentication_encoding(payload, PAYLOAD_TYPE)


def encode_attestation(payload: bytes, signatures: Iterable[Signature]) -> bytes:
    """Canonical bytes of the envelope around a statement."""
    return envelope.encode_envelope(payload, signatures, PAYLOAD_TYPE)


def verify_attestation(
    root: trust.TrustedRoot, data: bytes, what: str, *, threshold: int | None = None
) -> Statement:
    """Check an envelope's signatures against the root's targets role, then parse what they cover.

    Raises SignatureError when fewer signers than the threshold count, the role's unless given
    (1 for bytes that a verified release vouches for already), FormatError.
    """
    signed = envelope.parse_envelope(data, MAX_ATTESTATION_BYTES, what, PAYLOAD_TYPE)
    needed = threshold or root.threshold("targets")
    signers = verify_threshold(
        tally_signers(root.keys("targets"), needed, root.policy, signed, what)
    )
    table = parse_canonical(signed.payload, max_bytes=MAX_ATTESTATION_BYTES, what=what)
    fields = Fields(table, what)
    fields.text("_type", choices=(STATEMENT_TYPE,))
    statement = Statement(
        payload=signed.payload,
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
