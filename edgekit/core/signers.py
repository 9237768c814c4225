"""Signers: people or devices with two public keys, and what those keys say of a document.

A **signer** has one classical key (Ed25519 or ECDSA P-384) and one ML-DSA-87 key. Which of the two
must verify is a policy. A **public half** is what a signer hands to whoever makes a root: name and
public keys, signed by both private keys as proof that they are held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, SSlibKey
from tuf.api.dsse import SimpleEnvelope

from edgekit.core.digest import Digest
from edgekit.core.envelope import SIGNER_PAYLOAD_TYPE, parse_envelope, pre_authentication_encoding
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN
from edgekit.core.public_keys import CLASSICAL_SCHEMES, PQ_SCHEME, PublicKey, load_public
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import FormatError, SignatureError

POLICIES = ("hybrid", "cnsa2", "classical")
"""Who counts: both signatures (the default), the ML-DSA-87 one alone, the classical one alone."""

MAX_SIGNER_BYTES = 32 << 10

_NEEDED = {"hybrid": (0, 1), "cnsa2": (1,), "classical": (0,)}


@dataclass(frozen=True, slots=True)
class SignerKeys:
    """A signer's public keys."""

    classical: Key
    post_quantum: Key

    def identities(self) -> frozenset[str]:
        """SHA-384 hex of each public key itself, whatever its spelling."""
        return frozenset(key_identity(key) for key in (self.classical, self.post_quantum))

    def counts_for(self, policy: str, envelope: SimpleEnvelope[Any], message: bytes) -> bool:
        """Whether the signatures that the policy asks for are there and verify."""
        pair = (self.classical, self.post_quantum)
        return all(_verifies(pair[index], envelope, message) for index in _NEEDED[policy])


@dataclass(frozen=True, slots=True)
class PublicHalf:
    """A signer as others know them. From a file: `verify_public_half` only."""

    name: str
    keys: SignerKeys

    @property
    def fingerprint(self) -> str:
        """What the signer reads aloud to be recognised: SHA-384 of the payload, in hex."""
        return Digest.of(signer_payload(self.name, self.keys)).value


@dataclass(frozen=True, slots=True)
class Tally:
    """Signers of one role that count for a document, against what the role needs."""

    what: str
    threshold: int
    may_sign: tuple[str, ...]
    signed: tuple[str, ...]
    policy: str

    @property
    def missing(self) -> int:
        """How many more must sign."""
        return max(0, self.threshold - len(self.signed))


def tally_signers(
    signers: Mapping[str, SignerKeys],
    threshold: int,
    policy: str,
    envelope: SimpleEnvelope[Any],
    what: str,
) -> Tally:
    """Count the signers whose signatures over the envelope satisfy the policy."""
    message = pre_authentication_encoding(envelope.payload, envelope.payload_type)
    signed = [
        name for name, keys in sorted(signers.items()) if keys.counts_for(policy, envelope, message)
    ]
    return Tally(what, threshold, tuple(sorted(signers)), tuple(signed), policy)


def verify_threshold(tally: Tally) -> tuple[str, ...]:
    """The names of those who count. Raises SignatureError when they are fewer than needed."""
    if tally.missing:
        raise SignatureError(
            f"{tally.what} is not signed by enough trusted signers",
            needed=f"{tally.threshold} of {', '.join(tally.may_sign)} (policy {tally.policy})",
            found=", ".join(tally.signed) or "none that counts",
            hint="ask who made this set; do not install it",
        )
    return tally.signed


def load_public_key(key: Key) -> PublicKey:
    """The key as the cryptography package knows it.

    Raises FormatError for a key that is malformed or not of the kind its scheme says.
    """
    return load_public(key.scheme, str(key.keyval.get("public")))


def key_identity(key: Key) -> str:
    """SHA-384 hex of the public key itself: two keys are one when these are equal."""
    public = load_public_key(key)
    if isinstance(public, Ed25519PublicKey):
        return Digest.of(public.public_bytes_raw()).value
    return Digest.of(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).value


def signer_payload(name: str, keys: SignerKeys) -> bytes:
    """Canonical bytes of a public half, the same however the keys were spelled."""
    pair = {"classical": keys.classical, "ml-dsa-87": keys.post_quantum}
    spelled = {
        kind: SSlibKey.from_crypto(load_public_key(key)).to_dict() for kind, key in pair.items()
    }
    return encode_canonical({"_type": "edgekit-signer", "name": name, **spelled})


def verify_public_half(data: bytes) -> PublicHalf:
    """A signer's public half, whose two private keys signed it.

    That proves possession, not identity: compare the fingerprint with the signer's own voice.
    Raises SignatureError or FormatError.
    """
    envelope = parse_envelope(data, MAX_SIGNER_BYTES, "public half", SIGNER_PAYLOAD_TYPE)
    table = parse_canonical(envelope.payload, max_bytes=MAX_SIGNER_BYTES, what="public half")
    fields = Fields(table, "signer")
    fields.text("_type", choices=("edgekit-signer",))
    name = fields.text("name", pattern=NAME_PATTERN)
    keys = SignerKeys(
        _take_key(fields, "classical", CLASSICAL_SCHEMES),
        _take_key(fields, "ml-dsa-87", (PQ_SCHEME,)),
    )
    fields.finish()
    if signer_payload(name, keys) != envelope.payload:
        raise FormatError("public half spells its keys in an unusual way", found=name)
    message = pre_authentication_encoding(envelope.payload, SIGNER_PAYLOAD_TYPE)
    if not keys.counts_for("hybrid", envelope, message):
        raise SignatureError(
            "public half does not prove that its private keys are held",
            found=name,
            hint="ask the signer to run: edgekit keys new DIR",
        )
    return PublicHalf(name, keys)


def _take_key(fields: Fields, name: str, schemes: tuple[str, ...]) -> Key:
    item = fields.table(name)
    kind = item.text("keytype", max_length=20)
    scheme = item.text("scheme", choices=schemes)
    value = item.table("keyval")
    public = value.take("public", str)
    value.finish()
    item.finish()
    key = SSlibKey("0" * 64, kind, scheme, {"public": public})
    return SSlibKey.from_crypto(load_public_key(key))


def _verifies(key: Key, envelope: SimpleEnvelope[Any], message: bytes) -> bool:
    signature = envelope.signatures.get(key.keyid)
    if signature is None:
        return False
    try:
        key.verify_signature(signature, message)
    except UnverifiedSignatureError:
        return False
    return True
