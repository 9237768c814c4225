"""Who may sign a release, and whether they did (bundle-v1 section 8, steps V2 to V4).

Roles and rotation are TUF's (root, targets), documents travel in DSSE envelopes, so the signature
covers exact bytes and is checked before those bytes are parsed. A **signer** is a person with two
keys, a classical one and an ML-DSA-87 one; which of the two must verify is the root's policy:

* `hybrid`: both (the default);
* `cnsa2`: the ML-DSA-87 one decides alone;
* `classical`: the classical one decides alone.

Key ids are hints: thresholds count distinct signers with distinct public keys.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature
from tuf.api.dsse import Root, SimpleEnvelope, Targets

from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.names import NAME_PATTERN
from edgekit.core.release import VERSION_PATTERN
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import (
    FingerprintError,
    FormatError,
    RollbackError,
    SignatureError,
    TrustError,
)

PAYLOAD_TYPE = "application/vnd.tuf+json"
MAX_ROOT_BYTES = 512 << 10
MAX_RELEASE_BYTES = 512 << 10
MAX_SIGNATURES = 64
MAX_ROTATIONS = 256
POLICIES = ("hybrid", "cnsa2", "classical")
SIGNER_FIELD = "x-edgekit-signer"
POLICY_FIELD = "x-edgekit-policy"
DEVELOPER_FIELD = "x-edgekit-developer"
RELEASE_FIELD = "x-edgekit-release"
PQ_SCHEME = "ml-dsa-87/1"
CLASSICAL_SCHEMES = ("ed25519", "ecdsa-sha2-nistp384")


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """A root document that a fingerprint or an older root vouches for.

    Made by `trust_first_root` and `extend_root` only. `data` is the exact envelope.
    """

    version: int
    policy: str
    developer: bool
    fingerprint: str
    data: bytes
    root: Root

    def threshold(self, role: str) -> int:
        """How many signers the role needs."""
        return int(self.root.roles[role].threshold)

    def signers(self, role: str) -> tuple[str, ...]:
        """Names of the signers of a role, sorted."""
        return tuple(sorted(_signers(self.root, role)))


@dataclass(frozen=True, slots=True)
class ReleaseStatement:
    """A verified release statement: what a set is, and the digests of its metadata files.

    `files` maps names inside the set to (length in bytes, SHA-384 hex). `signers` are those whose
    signatures counted. `digest` identifies the statement: the SHA-384 of the signed payload.
    """

    name: str
    version: str
    epoch: int
    sequence: int
    created: int
    min_edgekit: str
    files: tuple[tuple[str, int, str], ...]
    signers: tuple[str, ...]
    policy: str
    digest: Digest

    @property
    def generation(self) -> str:
        """The id of the generation this release installs as."""
        return f"{self.name}-{self.version}-{self.digest.short}"


@dataclass(frozen=True, slots=True)
class Floor:
    """The newest (epoch, sequence) this host has committed to, and that statement's digest."""

    epoch: int = 0
    sequence: int = 0
    statement: str = ""


def fingerprint(data: bytes) -> str:
    """What is read aloud or printed to name a root: the SHA-384 of its exact bytes, in hex."""
    return Digest.of(data).value


def format_fingerprint(text: str) -> str:
    """Groups of four digits, as people read them."""
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def plain_fingerprint(text: str) -> str:
    """A fingerprint as people type it, without spaces, colons, dashes and capitals."""
    return "".join(char for char in text.lower() if char not in " :-\n\t")


def trust_first_root(
    data: bytes, expected: str, *, insecure_developer: bool = False
) -> TrustedRoot:
    """Accept a root because its fingerprint is `expected` (spaces, colons and case are ignored).

    Raises FingerprintError when it is another root, TrustError for a developer root that was not
    asked for by name, SignatureError when the root does not sign itself, FormatError.
    """
    wanted = plain_fingerprint(expected)
    found = fingerprint(data)
    if wanted != found:
        raise FingerprintError(
            "this root has another fingerprint",
            needed=format_fingerprint(wanted[:96]),
            found=format_fingerprint(found),
            hint="ask the packager to read the fingerprint again",
        )
    envelope = _parse_envelope(data, MAX_ROOT_BYTES, "root")
    root = _parse_root(envelope)
    trusted = _trusted(root, data)
    _count_signers(root, "root", envelope, trusted.policy, "root")
    if trusted.developer and not insecure_developer:
        raise TrustError(
            "this root is a developer root: one key signs everything, nobody guards it",
            hint="edgekit trust import ROOT --fingerprint ... --insecure-developer-root",
        )
    return trusted


def restore_root(data: bytes) -> TrustedRoot:
    """A root this host has already accepted and stored. Raises FormatError if it was damaged."""
    envelope = _parse_envelope(data, MAX_ROOT_BYTES, "stored root")
    root = _parse_root(envelope)
    trusted = _trusted(root, data)
    _count_signers(root, "root", envelope, trusted.policy, "stored root")
    return trusted


def extend_root(trusted: TrustedRoot, data: bytes) -> TrustedRoot:
    """Step V2: accept root N+1, signed by a threshold of root N and of itself, version exactly +1.

    Raises SignatureError, TrustError (wrong version) or FormatError; `trusted` is unchanged.
    """
    envelope = _parse_envelope(data, MAX_ROOT_BYTES, "root")
    _count_signers(trusted.root, "root", envelope, trusted.policy, "next root")
    root = _parse_root(envelope)
    if root.version != trusted.version + 1:
        raise TrustError(
            "root versions must follow each other",
            found=str(root.version),
            needed=str(trusted.version + 1),
        )
    extended = _trusted(root, data)
    if extended.developer and not trusted.developer:
        raise TrustError("a developer root may not follow a guarded one")
    _count_signers(root, "root", envelope, extended.policy, "next root")
    return extended


def verify_release(trusted: TrustedRoot, data: bytes) -> ReleaseStatement:
    """Step V3: the release statement against root's targets role and policy.

    Raises SignatureError or FormatError. Nothing of the payload is parsed before that.
    """
    envelope = _parse_envelope(data, MAX_RELEASE_BYTES, "release.json")
    signers = _count_signers(trusted.root, "targets", envelope, trusted.policy, "release.json")
    table = parse_canonical(envelope.payload, max_bytes=MAX_RELEASE_BYTES, what="release statement")
    return _release(table, signers, trusted.policy, Digest.of(envelope.payload))


def check_floor(statement: ReleaseStatement, floor: Floor) -> None:
    """Step V4: refuse a statement older than the host's floor.

    (epoch, sequence) are compared in that order; the same pair must be the same statement.
    Raises RollbackError.
    """
    offered, needed = (statement.epoch, statement.sequence), (floor.epoch, floor.sequence)
    if offered < needed:
        raise RollbackError(
            "this set is older than what the host has already accepted",
            found=f"epoch {offered[0]}, sequence {offered[1]}",
            needed=f"epoch {needed[0]}, sequence {needed[1]} or newer",
            hint="ask the packager for the newest set",
        )
    if offered == needed and str(statement.digest) != floor.statement:
        raise RollbackError(
            "another set with the same sequence number was already accepted",
            found=statement.digest.short,
            needed=floor.statement[7:19],
            hint="raise `sequence` in the recipe and bundle again",
        )


def root_payload(
    *,
    version: int,
    signers: dict[str, tuple[Key, Key]],
    threshold: int,
    policy: str,
    developer: bool,
    expires: str,
) -> bytes:
    """Canonical bytes of a root payload: `signers` maps names to (classical, ML-DSA-87) keys.

    Raises TrustError when the threshold is below two outside developer mode or cannot be reached.
    """
    if threshold < (1 if developer else 2) or threshold > len(signers):
        raise TrustError(
            "unusable threshold",
            found=f"{threshold} of {len(signers)}",
            needed="at least 2 signers of as many, or developer mode",
        )
    keys: dict[str, Any] = {}
    for name, pair in sorted(signers.items()):
        for key in pair:
            keys[key.keyid] = {**key.to_dict(), SIGNER_FIELD: name}
    role = {"keyids": sorted(keys), "threshold": threshold}
    return encode_canonical(
        {
            "_type": "root",
            "spec_version": "1.0.31",
            "version": version,
            "expires": expires,
            "consistent_snapshot": False,
            "keys": keys,
            # TUF's root must name timestamp and snapshot; nothing here uses them.
            "roles": dict.fromkeys(("root", "targets", "snapshot", "timestamp"), role),
            POLICY_FIELD: policy,
            DEVELOPER_FIELD: developer,
        }
    )


def release_payload(
    *,
    name: str,
    version: str,
    epoch: int,
    sequence: int,
    created: int,
    min_edgekit: str,
    expires: str,
    files: dict[str, bytes | tuple[int, str]],
) -> bytes:
    """Canonical bytes of a release statement; `files` maps names to bytes or (length, sha384)."""
    targets = {}
    for path, content in files.items():
        length, value = (
            (len(content), Digest.of(content).value) if isinstance(content, bytes) else content
        )
        targets[path] = {"length": length, "hashes": {"sha384": value}}
    return encode_canonical(
        {
            "_type": "targets",
            "spec_version": "1.0.31",
            "version": sequence,
            "expires": expires,
            "targets": targets,
            RELEASE_FIELD: {
                "name": name,
                "version": version,
                "epoch": epoch,
                "sequence": sequence,
                "created": created,
                "min_edgekit": min_edgekit,
            },
        }
    )


def encode_envelope(payload: bytes, signatures: list[Signature]) -> bytes:
    """Canonical bytes of a DSSE envelope around a payload."""
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


def pre_authentication_encoding(payload: bytes) -> bytes:
    """What signers sign: DSSE's PAE of the payload."""
    return bytes(SimpleEnvelope(payload, PAYLOAD_TYPE, {}).pae())


def _parse_envelope(data: bytes, max_bytes: int, what: str) -> SimpleEnvelope[Any]:
    """Strict DSSE: canonical JSON, our payload type, at most 64 signatures, no key id twice."""
    fields = Fields(parse_canonical(data, max_bytes=max_bytes, what=what), what)
    payload = _base64(fields, "payload", max_bytes)
    fields.text("payloadType", choices=(PAYLOAD_TYPE,))
    signatures: dict[str, Signature] = {}
    for item in fields.items("signatures", max_items=MAX_SIGNATURES):
        keyid = item.text("keyid", pattern=r"[0-9a-f]{64}")
        if keyid in signatures:
            raise item.fail("keyid", "two signatures claim the same key")
        signatures[keyid] = Signature(keyid, _base64(item, "sig", 16384).hex())
        item.finish()
    fields.finish()
    return SimpleEnvelope(payload, PAYLOAD_TYPE, signatures)


def _base64(fields: Fields, key: str, max_bytes: int) -> bytes:
    text = fields.text(key, max_length=max_bytes * 4 // 3 + 4)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise fields.fail(key, "not base64") from error
    if base64.b64encode(data).decode() != text:
        raise fields.fail(key, "not canonical base64")
    return data


def _parse_root(envelope: SimpleEnvelope[Any]) -> Root:
    table = parse_canonical(envelope.payload, max_bytes=MAX_ROOT_BYTES, what="root")
    try:
        root = Root.from_dict(dict(table))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError("root is not a TUF root document", found=str(error)[:200]) from error
    _check_root(root)
    return root


def _check_root(root: Root) -> None:
    """Rules TUF's own parser does not know: signer pairs, thresholds, policy, distinct keys."""
    policy = root.unrecognized_fields.get(POLICY_FIELD)
    developer = root.unrecognized_fields.get(DEVELOPER_FIELD)
    if policy not in POLICIES or not isinstance(developer, bool):
        raise FormatError("root names no known policy", found=repr(policy)[:60])
    publics = [_public_key_bytes(key) for key in root.keys.values()]
    if len(set(publics)) != len(publics):
        raise FormatError("root lists one public key twice")
    for name in ("root", "targets"):
        role = root.roles[name]
        signers = _signers(root, name)
        if not (1 if developer else 2) <= role.threshold <= len(signers):
            raise FormatError(
                f"root gives role {name} an unusable threshold",
                found=f"{role.threshold} of {len(signers)}",
                needed="at least 2 of as many signers",
            )


def _public_key_bytes(key: Key) -> bytes:
    """The key itself, whatever its spelling in hex or PEM: two keys are one when these are equal.

    Raises FormatError for a key that is not of the kind its scheme says.
    """
    text = str(key.keyval.get("public"))
    try:
        if key.scheme == "ed25519":
            return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)).public_bytes_raw()
        public = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("root holds a malformed key", found=key.keyid[:16]) from error
    right = isinstance(public, MLDSA87PublicKey) and key.scheme == PQ_SCHEME
    if isinstance(public, EllipticCurvePublicKey) and public.curve.name == "secp384r1":
        right = key.scheme == "ecdsa-sha2-nistp384"
    if not right:
        raise FormatError("root holds a key of another kind than it says", found=key.scheme[:60])
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signers(root: Root, role: str) -> dict[str, dict[str, Key]]:
    """The role's signers, each with exactly one classical and one ML-DSA-87 key."""
    signers: dict[str, dict[str, Key]] = {}
    for keyid in root.roles[role].keyids:
        key = root.keys.get(keyid)
        if key is None:
            raise FormatError(
                f"root role {role} names a key it does not hold", found=str(keyid)[:16]
            )
        name = key.unrecognized_fields.get(SIGNER_FIELD)
        kind = "pq" if key.scheme == PQ_SCHEME else "classical"
        known = key.scheme == PQ_SCHEME or key.scheme in CLASSICAL_SCHEMES
        if not isinstance(name, str) or not known or kind in signers.get(name, {}):
            raise FormatError(
                "root lists a key without a signer, twice or of an unknown scheme",
                found=f"{name!r} {key.scheme}"[:100],
            )
        signers.setdefault(name, {})[kind] = key
    for name, pair in signers.items():
        if set(pair) != {"pq", "classical"}:
            raise FormatError("signer needs one classical and one ML-DSA-87 key", found=name[:60])
    return signers


def _trusted(root: Root, data: bytes) -> TrustedRoot:
    return TrustedRoot(
        version=root.version,
        policy=str(root.unrecognized_fields[POLICY_FIELD]),
        developer=bool(root.unrecognized_fields[DEVELOPER_FIELD]),
        fingerprint=fingerprint(data),
        data=data,
        root=root,
    )


def _count_signers(
    root: Root, role: str, envelope: SimpleEnvelope[Any], policy: str, what: str
) -> tuple[str, ...]:
    """Names of the signers whose signatures satisfy the policy; refuse fewer than the threshold."""
    needed = {"hybrid": ("classical", "pq"), "cnsa2": ("pq",), "classical": ("classical",)}[policy]
    message = pre_authentication_encoding(envelope.payload)
    good = [
        name
        for name, pair in sorted(_signers(root, role).items())
        if all(_verifies(pair[kind], envelope, message) for kind in needed)
    ]
    threshold = root.roles[role].threshold
    if len(good) < threshold:
        raise SignatureError(
            f"{what} is not signed by enough trusted signers",
            needed=f"{threshold} of {', '.join(sorted(_signers(root, role)))} (policy {policy})",
            found=", ".join(good) or "none that counts",
            hint="ask who made this set; do not install it",
        )
    return tuple(good)


def _verifies(key: Key, envelope: SimpleEnvelope[Any], message: bytes) -> bool:
    signature = envelope.signatures.get(key.keyid)
    if signature is None:
        return False
    try:
        key.verify_signature(signature, message)
    except UnverifiedSignatureError:
        return False
    return True


def _release(table: Any, signers: tuple[str, ...], policy: str, digest: Digest) -> ReleaseStatement:
    try:
        targets = Targets.from_dict(dict(table))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError("release.json is no release statement", found=str(error)[:200]) from error
    fields = Fields(targets.unrecognized_fields, "release")
    release = fields.table(RELEASE_FIELD)
    fields.finish()
    files: list[tuple[str, int, str]] = []
    for path, target in sorted(targets.targets.items()):
        if set(target.hashes) != {"sha384"} or len(files) > 1000 or target.unrecognized_fields:
            raise FormatError(
                "release statement lists a file without exactly one SHA-384", found=path[:100]
            )
        Digest("sha384", target.hashes["sha384"])
        files.append((path, int(target.length), str(target.hashes["sha384"])))
    statement = ReleaseStatement(
        name=release.text("name", pattern=NAME_PATTERN),
        version=release.text("version", pattern=VERSION_PATTERN),
        epoch=release.integer("epoch", low=1, high=2**31 - 1),
        sequence=release.integer("sequence", low=1, high=2**53),
        created=release.integer("created", low=0, high=1 << 40),
        min_edgekit=release.text("min_edgekit", max_length=40),
        files=tuple(files),
        signers=signers,
        policy=policy,
        digest=digest,
    )
    release.finish()
    return statement


def encode_floor(floor: Floor) -> bytes:
    """Bytes of the host's floor file, with their own digest so that damage shows."""
    body = {"epoch": floor.epoch, "sequence": floor.sequence, "statement": floor.statement}
    check = Digest.of(encode_canonical(body)).value
    return encode_canonical({"floor": body, "check": check})


def parse_floor(data: bytes) -> Floor:
    """Bytes of a floor file to a Floor. Raises FormatError when damaged."""
    fields = Fields(parse_canonical(data, max_bytes=4096, what="trust floor"), "floor")
    check = fields.text("check")
    body = fields.table("floor")
    fields.finish()
    floor = Floor(
        epoch=body.integer("epoch", low=0, high=2**31 - 1),
        sequence=body.integer("sequence", low=0, high=2**53),
        statement=body.text("statement"),
    )
    body.finish()
    if encode_floor(floor) != data or not check:
        raise FormatError("trust floor is damaged")
    return floor


def ssh_keys(trusted: TrustedRoot) -> list[Ed25519PublicKey]:
    """The Ed25519 keys of the targets role, for checking SHA384SUMS.sig."""
    return [
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(pair["classical"].keyval["public"]))
        for pair in _signers(trusted.root, "targets").values()
        if pair["classical"].scheme == "ed25519"
    ]
