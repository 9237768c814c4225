"""Making the next root: who leaves, who comes, who never counts again. Pure; signing is separate.

A revoked signer's signature does not count for the root that revokes them. To replace a majority at
once, drop first (the old signers still vouch for that) and revoke in the root after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.root import Revocation, TrustedRoot, root_payload
from edgekit.core.signers import PublicHalf, SignerKeys
from edgekit.errors import TrustError


@dataclass(frozen=True, slots=True)
class Rotation:
    """What is to change. None leaves a value as it is; `revoke` are (who, reason).

    A signer of the current root is revoked and dropped in one.
    """

    drop: tuple[str, ...] = ()
    add: tuple[PublicHalf, ...] = ()
    revoke: tuple[tuple[PublicHalf, str], ...] = ()
    since_sequence: int = 0
    threshold: int | None = None
    policy: str | None = None
    minimum: tuple[int, int] | None = None


def next_root_payload(current: TrustedRoot, rotation: Rotation, expires: str) -> bytes:
    """Canonical bytes of root N+1. Raises TrustError when the change makes no usable root."""
    revoked = current.revoked + tuple(
        Revocation(half.name, reason, rotation.since_sequence, tuple(half.keys.identities()))
        for half, reason in rotation.revoke
    )
    signers = _next_signers(current, rotation, revoked)
    threshold = rotation.threshold or current.threshold("root")
    minimum = rotation.minimum or current.minimum
    if minimum < current.minimum:
        raise TrustError(
            "the minimum release never goes down",
            needed=f"epoch {current.minimum[0]}, sequence {current.minimum[1]} or newer",
        )
    return root_payload(
        version=current.version + 1,
        signers={name: (keys.classical, keys.post_quantum) for name, keys in signers.items()},
        threshold=threshold,
        policy=rotation.policy or current.policy,
        developer=current.developer and threshold < 2,
        expires=expires,
        revoked=revoked,
        minimum=minimum,
    )


def _next_signers(
    current: TrustedRoot, rotation: Rotation, revoked: tuple[Revocation, ...]
) -> dict[str, SignerKeys]:
    signers = dict(current.keys("root"))
    for name in rotation.drop:
        if signers.pop(name, None) is None:
            raise TrustError(
                "no such signer to drop",
                found=name,
                needed=f"one of {', '.join(current.signers('root'))}",
            )
    for half, _ in rotation.revoke:
        signers.pop(half.name, None)
    names = {entry.signer for entry in revoked}
    identities = {identity for entry in revoked for identity in entry.keys}
    for half in rotation.add:
        if half.name in signers or half.name in names:
            raise TrustError(
                "this name is taken or revoked", found=half.name, needed="a name never used before"
            )
        if half.keys.identities() & identities:
            raise TrustError("these keys are revoked", found=half.name)
        signers[half.name] = half.keys
    return signers
