"""Whom to believe: one door to roots, release statements, floors and envelopes.

Roles and rotation are TUF's (root, targets), documents travel in DSSE envelopes, so the signature
covers exact bytes and is checked before those bytes are parsed (bundle-v1 section 8, steps V2 to
V4). The parts:

* `envelope`: DSSE;
* `signers`: people with two keys, and counting them under a policy;
* `root`: who may sign, first trust, rotation, revocation;
* `release_statement`: what a set is;
* `floor`: what a host will not go back behind, and time without a trusted clock;
* `rotation`: making the next root.
"""

from __future__ import annotations

from edgekit.core.dsse import MAX_SIGNATURES
from edgekit.core.envelope import (
    PAYLOAD_TYPE,
    SIGNER_PAYLOAD_TYPE,
    add_signatures,
    encode_envelope,
    parse_envelope,
    payload_digest,
    pre_authentication_encoding,
)
from edgekit.core.floor import (
    CLOCK_SLACK_S,
    COMPILED_IN,
    Floor,
    TrustedTime,
    check_downgrade,
    check_floor,
    check_minimum,
    check_not_expired,
    encode_floor,
    parse_floor,
    statement_floor,
    trust_time,
)
from edgekit.core.public_keys import PQ_SCHEME
from edgekit.core.release_statement import (
    MAX_RELEASE_BYTES,
    RELEASE_FIELD,
    DraftStatement,
    ReleaseContent,
    ReleaseStatement,
    format_date,
    read_draft_release,
    release_payload,
    verify_release,
)
from edgekit.core.root import (
    DEVELOPER_FIELD,
    MAX_ROOT_BYTES,
    MAX_ROTATIONS,
    MINIMUM_FIELD,
    POLICY_FIELD,
    REVOKED_FIELD,
    SIGNER_FIELD,
    DraftRoot,
    Revocation,
    TrustedRoot,
    check_succession,
    extend_root,
    fingerprint,
    format_fingerprint,
    plain_fingerprint,
    read_draft_root,
    restore_root,
    root_payload,
    ssh_keys,
    trust_first_root,
)
from edgekit.core.rotation import Rotation, next_root_payload
from edgekit.core.signers import (
    MAX_SIGNER_BYTES,
    POLICIES,
    PublicHalf,
    SignerKeys,
    Tally,
    signer_payload,
    verify_public_half,
)

__all__ = [
    "CLOCK_SLACK_S",
    "COMPILED_IN",
    "DEVELOPER_FIELD",
    "MAX_RELEASE_BYTES",
    "MAX_ROOT_BYTES",
    "MAX_ROTATIONS",
    "MAX_SIGNATURES",
    "MAX_SIGNER_BYTES",
    "MINIMUM_FIELD",
    "PAYLOAD_TYPE",
    "POLICIES",
    "POLICY_FIELD",
    "PQ_SCHEME",
    "RELEASE_FIELD",
    "REVOKED_FIELD",
    "SIGNER_FIELD",
    "SIGNER_PAYLOAD_TYPE",
    "DraftRoot",
    "DraftStatement",
    "Floor",
    "PublicHalf",
    "ReleaseContent",
    "ReleaseStatement",
    "Revocation",
    "Rotation",
    "SignerKeys",
    "Tally",
    "TrustedRoot",
    "TrustedTime",
    "add_signatures",
    "check_downgrade",
    "check_floor",
    "check_minimum",
    "check_not_expired",
    "check_succession",
    "encode_envelope",
    "encode_floor",
    "extend_root",
    "fingerprint",
    "format_date",
    "format_fingerprint",
    "next_root_payload",
    "parse_envelope",
    "parse_floor",
    "payload_digest",
    "plain_fingerprint",
    "pre_authentication_encoding",
    "read_draft_release",
    "read_draft_root",
    "release_payload",
    "restore_root",
    "root_payload",
    "signer_payload",
    "ssh_keys",
    "statement_floor",
    "trust_first_root",
    "trust_time",
    "verify_public_half",
    "verify_release",
]
