"""Root documents: who may sign, how many must, by which policy, who never may again.

Roles and rotation are TUF's. A root is accepted because its fingerprint was named
(`trust_first_root`) or because the root before it says so (`extend_root`), and for no other reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib.signer import Key
from tuf.api.dsse import Root, SimpleEnvelope

from edgekit.core.digest import Digest
from edgekit.core.envelope import parse_envelope, payload_digest
from edgekit.core.fields import Fields
from edgekit.core.names import is_portable_name
from edgekit.core.public_keys import CLASSICAL_SCHEMES, PQ_SCHEME, PublicKey
from edgekit.core.signers import (
    POLICIES,
    SignerKeys,
    Tally,
    key_identity,
    load_public_key,
    tally_signers,
    verify_threshold,
)
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import FingerprintError, FormatError, TrustError

MAX_ROOT_BYTES = 512 << 10
MAX_ROTATIONS = 256
MAX_REVOKED = 256
MAX_EPOCH = 2**31 - 1
MAX_SEQUENCE = 2**53

SIGNER_FIELD = "x-edgekit-signer"
POLICY_FIELD = "x-edgekit-policy"
DEVELOPER_FIELD = "x-edgekit-developer"
REVOKED_FIELD = "x-edgekit-revoked"
MINIMUM_FIELD = "x-edgekit-minimum"
_FIELDS = {POLICY_FIELD, DEVELOPER_FIELD, REVOKED_FIELD, MINIMUM_FIELD}


@dataclass(frozen=True, slots=True)
class Revocation:
    """A signer whose keys never count again.

    `keys` are the identities (SHA-384 hex) of their public keys. From `since_sequence` on releases
    they signed are suspect; 0 means all of them.
    """

    signer: str
    reason: str
    since_sequence: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """A root document that a fingerprint or an older root vouches for.

    Made by `trust_first_root`, `extend_root` and `restore_root` only. `data` is the exact envelope,
    `payload` the digest of what is signed in it, `expires` Unix seconds, `minimum` the lowest
    (epoch, sequence) that may ever be installed.
    """

    version: int
    policy: str
    developer: bool
    fingerprint: str
    payload: Digest
    data: bytes
    expires: int
    revoked: tuple[Revocation, ...]
    minimum: tuple[int, int]
    root: Root

    def threshold(self, role: str) -> int:
        """How many signers the role needs."""
        return int(self.root.roles[role].threshold)

    def signers(self, role: str) -> tuple[str, ...]:
        """Names of the signers of a role, sorted."""
        return tuple(sorted(role_signers(self.root, role)))

    def keys(self, role: str) -> dict[str, SignerKeys]:
        """The role's signers and their public keys."""
        return role_signers(self.root, role)

    def name_of(self, keys: SignerKeys) -> str | None:
        """The name under which this root knows a pair of keys, None for a stranger's."""
        return next((n for n, k in self.keys("root").items() if _same(k, keys)), None)

    def revocation_of(self, keys: SignerKeys) -> Revocation | None:
        """Why these keys never count again, None when they are not revoked."""
        identities = keys.identities()
        return next((r for r in self.revoked if identities & set(r.keys)), None)


@dataclass(frozen=True, slots=True)
class DraftRoot:
    """A well-formed root that nobody needs to have signed yet; it vouches for nothing.

    Made by `read_draft_root`, for the people who are asked to sign it.
    """

    content: TrustedRoot
    envelope: SimpleEnvelope[Any]

    def own_tally(self) -> Tally:
        """Who of its own signers has signed."""
        content = self.content
        return _tally(content.root, content.policy, self.envelope, f"root {content.version}")

    def previous_tally(self, previous: TrustedRoot) -> Tally:
        """Who of the previous root's signers has signed."""
        return tally_succession(previous, self.content, self.envelope)


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
    trusted = _self_signed(data, "root")
    if trusted.developer and not insecure_developer:
        raise TrustError(
            "this root is a developer root: one key signs everything, nobody guards it",
            hint="edgekit trust import ROOT --fingerprint ... --insecure-developer-root",
        )
    return trusted


def restore_root(data: bytes) -> TrustedRoot:
    """A root this host has already accepted and stored. Raises FormatError if it was damaged."""
    return _self_signed(data, "stored root")


def extend_root(trusted: TrustedRoot, data: bytes) -> TrustedRoot:
    """Step V2: accept root N+1, signed by a threshold of root N and of itself, version exactly +1.

    A signer whom root N+1 revokes counts in neither; what was revoked stays so, and the minimum
    never goes down. Raises SignatureError, TrustError or FormatError; `trusted` is unchanged.
    """
    envelope = parse_envelope(data, MAX_ROOT_BYTES, "root")
    verify_threshold(_tally(trusted.root, trusted.policy, envelope, "next root"))
    extended = _trusted(_parse_root(envelope), data, envelope)
    check_succession(trusted, extended)
    verify_threshold(tally_succession(trusted, extended, envelope))
    verify_threshold(_tally(extended.root, extended.policy, envelope, "next root"))
    return extended


def read_draft_root(data: bytes) -> DraftRoot:
    """A root as it is before all have signed: every rule but the threshold. Raises FormatError."""
    envelope = parse_envelope(data, MAX_ROOT_BYTES, "root")
    return DraftRoot(_trusted(_parse_root(envelope), data, envelope), envelope)


def tally_succession(
    previous: TrustedRoot, following: TrustedRoot, envelope: SimpleEnvelope[Any]
) -> Tally:
    """Who of the previous root's signers vouches for the following one, the revoked left out."""
    signers = {
        name: keys
        for name, keys in previous.keys("root").items()
        if following.revocation_of(keys) is None
    }
    what = f"root {following.version} as successor of root {previous.version}"
    return tally_signers(signers, previous.threshold("root"), previous.policy, envelope, what)


def root_payload(
    *,
    version: int,
    signers: Mapping[str, tuple[Key, Key]],
    threshold: int,
    policy: str,
    developer: bool,
    expires: str,
    revoked: tuple[Revocation, ...] = (),
    minimum: tuple[int, int] = (0, 0),
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
    table: dict[str, Any] = {
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
    if revoked:
        table[REVOKED_FIELD] = [
            {
                "signer": entry.signer,
                "reason": entry.reason,
                "since_sequence": entry.since_sequence,
                "keys": sorted(entry.keys),
            }
            for entry in revoked
        ]
    if minimum > (0, 0):
        table[MINIMUM_FIELD] = {"epoch": minimum[0], "sequence": minimum[1]}
    return encode_canonical(table)


def role_signers(root: Root, role: str) -> dict[str, SignerKeys]:
    """The role's signers, each with exactly one classical and one ML-DSA-87 key."""
    found: dict[str, dict[str, Key]] = {}
    for keyid in root.roles[role].keyids:
        key = root.keys.get(keyid)
        if key is None:
            raise FormatError(
                f"root role {role} names a key it does not hold", found=str(keyid)[:16]
            )
        name = key.unrecognized_fields.get(SIGNER_FIELD)
        kind = "pq" if key.scheme == PQ_SCHEME else "classical"
        known = key.scheme == PQ_SCHEME or key.scheme in CLASSICAL_SCHEMES
        if not isinstance(name, str) or not known or kind in found.get(name, {}):
            raise FormatError(
                "root lists a key without a signer, twice or of an unknown scheme",
                found=f"{name!r} {key.scheme}"[:100],
            )
        found.setdefault(name, {})[kind] = key
    for name, pair in found.items():
        if set(pair) != {"pq", "classical"} or not is_portable_name(name):
            raise FormatError(
                "signer needs a portable name, one classical and one ML-DSA-87 key",
                found=repr(name)[:60],
            )
    return {name: SignerKeys(pair["classical"], pair["pq"]) for name, pair in found.items()}


def ssh_keys(trusted: TrustedRoot) -> list[PublicKey]:
    """The classical keys of the targets role, for checking SHA384SUMS.sig."""
    return [load_public_key(keys.classical) for keys in trusted.keys("targets").values()]


def _same(one: SignerKeys, other: SignerKeys) -> bool:
    return one.identities() == other.identities()


def _tally(root: Root, policy: str, envelope: SimpleEnvelope[Any], what: str) -> Tally:
    signers = role_signers(root, "root")
    return tally_signers(signers, root.roles["root"].threshold, policy, envelope, what)


def _self_signed(data: bytes, what: str) -> TrustedRoot:
    envelope = parse_envelope(data, MAX_ROOT_BYTES, what)
    trusted = _trusted(_parse_root(envelope), data, envelope)
    verify_threshold(_tally(trusted.root, trusted.policy, envelope, what))
    return trusted


def check_succession(old: TrustedRoot, new: TrustedRoot) -> None:
    """Rules between root N and N+1 beside signatures: revocations and the minimum only ever grow.

    Raises TrustError.
    """
    if new.version != old.version + 1:
        raise TrustError(
            "root versions must follow each other",
            found=str(new.version),
            needed=str(old.version + 1),
        )
    if new.developer and not old.developer:
        raise TrustError("a developer root may not follow a guarded one")
    if not set(old.revoked) <= set(new.revoked):
        lost = sorted(entry.signer for entry in set(old.revoked) - set(new.revoked))
        raise TrustError("a root may not take back a revocation", found=", ".join(lost))
    if new.minimum < old.minimum:
        raise TrustError(
            "a root may not lower the minimum release",
            found=f"epoch {new.minimum[0]}, sequence {new.minimum[1]}",
            needed=f"epoch {old.minimum[0]}, sequence {old.minimum[1]} or newer",
        )


def _parse_root(envelope: SimpleEnvelope[Any]) -> Root:
    table = parse_canonical(envelope.payload, max_bytes=MAX_ROOT_BYTES, what="root")
    try:
        root = Root.from_dict(dict(table))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError("root is not a TUF root document", found=str(error)[:200]) from error
    _check_fields(root)
    _check_signers(root)
    return root


def _check_fields(root: Root) -> None:
    """Rules TUF's own parser does not know: our fields and no others."""
    policy = root.unrecognized_fields.get(POLICY_FIELD)
    developer = root.unrecognized_fields.get(DEVELOPER_FIELD)
    if policy not in POLICIES or not isinstance(developer, bool):
        raise FormatError("root names no known policy", found=repr(policy)[:60])
    unknown = set(root.unrecognized_fields) - _FIELDS
    for role in root.roles.values():
        unknown |= set(role.unrecognized_fields)
    for key in root.keys.values():
        unknown |= set(key.unrecognized_fields) - {SIGNER_FIELD}
        unknown |= set(key.keyval) - {"public"}
    if unknown:
        raise FormatError("root holds an unknown key", found=min(unknown)[:60])


def _check_signers(root: Root) -> None:
    """No public key twice, usable thresholds, nobody who is revoked."""
    identities = [key_identity(key) for key in root.keys.values()]
    if len(set(identities)) != len(identities):
        raise FormatError("root lists one public key twice")
    revoked = {identity for entry in _revocations(root) for identity in entry.keys}
    if revoked & set(identities):
        raise FormatError("root lists a key that it revokes")
    least = 1 if root.unrecognized_fields[DEVELOPER_FIELD] else 2
    for name in ("root", "targets"):
        threshold, signers = root.roles[name].threshold, role_signers(root, name)
        if not least <= threshold <= len(signers):
            raise FormatError(
                f"root gives role {name} an unusable threshold",
                found=f"{threshold} of {len(signers)}",
                needed="at least 2 of as many signers",
            )


def _revocations(root: Root) -> tuple[Revocation, ...]:
    holder = Fields({"revoked": root.unrecognized_fields.get(REVOKED_FIELD, [])}, "root")
    found = []
    for item in holder.items("revoked", max_items=MAX_REVOKED):
        found.append(
            Revocation(
                signer=item.text("signer", max_length=60),
                reason=item.text("reason"),
                since_sequence=item.integer("since_sequence", low=0, high=MAX_SEQUENCE),
                keys=item.texts("keys", max_items=2, pattern=r"[0-9a-f]{96}"),
            )
        )
        item.finish()
        if not is_portable_name(found[-1].signer) or not found[-1].keys:
            raise item.fail("signer", "a revocation needs a signer's name and keys")
    return tuple(found)


def _minimum(root: Root) -> tuple[int, int]:
    table = root.unrecognized_fields.get(MINIMUM_FIELD, {"epoch": 0, "sequence": 0})
    fields = Fields(table, MINIMUM_FIELD)
    epoch = fields.integer("epoch", low=0, high=MAX_EPOCH)
    sequence = fields.integer("sequence", low=0, high=MAX_SEQUENCE)
    fields.finish()
    return epoch, sequence


def _trusted(root: Root, data: bytes, envelope: SimpleEnvelope[Any]) -> TrustedRoot:
    return TrustedRoot(
        version=root.version,
        policy=str(root.unrecognized_fields[POLICY_FIELD]),
        developer=bool(root.unrecognized_fields[DEVELOPER_FIELD]),
        fingerprint=fingerprint(data),
        payload=payload_digest(envelope),
        data=data,
        expires=int(root.expires.timestamp()),
        revoked=_revocations(root),
        minimum=_minimum(root),
        root=root,
    )
