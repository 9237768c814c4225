"""`edgekit keys`: making signers and roots, and adding signatures, each on its own machine.

The ceremony: everybody makes keys (`new_signer`), somebody makes the root from the public halves
(`make_root`), a threshold of people sign it (`sign_root`). Sets are signed the same way, one
signature after the other (`sign_set`), and the next root too (`rotate_root`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from edgekit.core import trust
from edgekit.core.events import Listener
from edgekit.errors import FormatError, TrustError
from edgekit.system.bundle_set import open_set, verify_draft_set
from edgekit.system.files import durable_write, read_bounded
from edgekit.system.set_writer import write_signatures
from edgekit.system.signing import (
    PairSigner,
    create_signer,
    load_signer,
    public_half_path,
    sign_payload,
)
from edgekit.system.volumes import read_volumes

ROOT_YEARS = 10


@dataclass(frozen=True, slots=True)
class CreatedRoot:
    """A new root: where it was written and the fingerprint to read aloud."""

    path: Path
    fingerprint: str
    signers: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class CreatedSigner:
    """A new signer: the part to give away, and the fingerprint to read aloud with it."""

    public_half: Path
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """What somebody signed, and who is still to sign.

    `what` describes the document in words. `people` maps signers of a root to their fingerprints.
    `fingerprint` is the root's, once nobody is missing. `unknown` is true for a root whose
    predecessor was not given, so that its signers could not be counted.
    """

    what: str
    signer: str
    tallies: tuple[trust.Tally, ...]
    fingerprint: str | None
    people: dict[str, str]
    unknown: bool

    @property
    def complete(self) -> bool:
        """Whether nobody is known to be missing."""
        return not self.unknown and all(tally.missing == 0 for tally in self.tallies)


def expiry(now: int, years: int) -> str:
    """TUF's timestamp `years` after `now` (Unix seconds)."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC) + dt.timedelta(365 * years)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def create_root(
    folders: tuple[Path, ...],
    *,
    threshold: int,
    policy: str,
    insecure_developer: bool,
    root_path: Path,
    now: int,
) -> CreatedRoot:
    """Make one signer per folder and a root that names them, signed by all of them.

    `now` is Unix seconds and only sets the expiry. Raises TrustError when keys or the root are
    already there, or when the threshold is below two outside developer mode.
    """
    _check_absent(root_path)
    if threshold < 2 and not insecure_developer:
        raise TrustError(
            "one signer alone is not enough",
            needed="a threshold of at least 2",
            hint="edgekit keys init DIR1 DIR2 DIR3, or --insecure-developer for a demo",
        )
    if len({folder.name for folder in folders}) != len(folders):
        raise TrustError("two signers have the same folder name")
    signers = {signer.name: signer for signer in map(create_signer, folders)}
    payload = trust.root_payload(
        version=1,
        signers={name: signer.keys() for name, signer in signers.items()},
        threshold=threshold,
        policy=policy,
        developer=insecure_developer,
        expires=expiry(now, ROOT_YEARS),
    )
    data = sign_payload(payload, tuple(signers.values()))
    _write_new(root_path, data)
    return CreatedRoot(root_path, trust.fingerprint(data), tuple(sorted(signers)), threshold)


def new_signer(directory: Path, classical: str) -> CreatedSigner:
    """Make one signer's keys; `classical` as `create_signer` takes it."""
    signer = create_signer(directory, classical)
    half = trust.PublicHalf(signer.name, signer.signer_keys())
    return CreatedSigner(public_half_path(directory), half.fingerprint)


def load_public_half(path: Path) -> trust.PublicHalf:
    """A signer's public half from a file. Raises SignatureError or FormatError."""
    return trust.verify_public_half(read_bounded(path, trust.MAX_SIGNER_BYTES, path.name))


def make_root(
    halves: tuple[trust.PublicHalf, ...],
    *,
    threshold: int,
    policy: str,
    years: int,
    root_path: Path,
    now: int,
) -> trust.DraftRoot:
    """Write a first root that names these signers, and that nobody has signed yet.

    Raises TrustError for a name or key that comes twice, or an unusable threshold.
    """
    signers = {half.name: (half.keys.classical, half.keys.post_quantum) for half in halves}
    if len(signers) != len(halves):
        raise TrustError("two signers have the same name", found=", ".join(h.name for h in halves))
    payload = trust.root_payload(
        version=1,
        signers=signers,
        threshold=threshold,
        policy=policy,
        developer=False,
        expires=expiry(now, years),
    )
    return _write_draft(root_path, payload)


def rotate_root(
    current_path: Path, rotation: trust.Rotation, *, years: int, root_path: Path, now: int
) -> trust.DraftRoot:
    """Write the root after `current`, which nobody has signed yet.

    Raises TrustError when the change makes no usable root.
    """
    current = load_root(current_path)
    return _write_draft(root_path, trust.next_root_payload(current, rotation, expiry(now, years)))


def load_root(path: Path) -> trust.TrustedRoot:
    """A root that its own signers have signed. Raises SignatureError or FormatError."""
    return trust.restore_root(read_bounded(path, trust.MAX_ROOT_BYTES, path.name))


def parse_revocation(text: str, current_path: Path) -> tuple[trust.PublicHalf, str]:
    """`NAME=REASON` for a signer of the current root, `FILE.signer.json=REASON` for any other.

    Raises TrustError or FormatError.
    """
    who, _, reason = text.partition("=")
    if not reason or len(reason) > 200 or not reason.isprintable():
        raise TrustError("a revocation says why", found=text[:100], needed="NAME=REASON")
    if who.endswith(".signer.json"):
        return load_public_half(Path(who)), reason
    keys = load_root(current_path).keys("root")
    if who not in keys:
        raise TrustError("no such signer to revoke", found=who, needed=", ".join(sorted(keys)))
    return trust.PublicHalf(who, keys[who]), reason


def parse_minimum(text: str) -> tuple[int, int]:
    """`EPOCH.SEQUENCE` as two numbers. Raises FormatError."""
    epoch, _, sequence = text.partition(".")
    if not (epoch.isdigit() and sequence.isdigit()):
        raise FormatError("malformed release number", found=text[:60], needed="EPOCH.SEQUENCE")
    return int(epoch), int(sequence)


def sign_root(path: Path, key: str, previous_path: Path | None) -> SignedDocument:
    """Add one signer's signatures to a root document, in place.

    `previous_path` is the root before it: needed to count that one's signers, and by a signer who
    is only in that one. Raises TrustError when this signer is in neither, or the first root is
    already complete: hosts know it by its fingerprint, which every signature changes.
    """
    draft = trust.read_draft_root(read_bounded(path, trust.MAX_ROOT_BYTES, path.name))
    previous = None if previous_path is None else load_root(previous_path)
    content = draft.content
    if previous is not None:
        trust.check_succession(previous, content)
    signer = load_signer(key)
    name = _name_in(signer, content, previous)
    if content.version == 1 and not draft.own_tally().missing:
        raise TrustError(
            "this root is complete, and another signature would change its fingerprint",
            found=trust.format_fingerprint(content.fingerprint),
        )
    data = trust.add_signatures(draft.envelope, signer.sign(draft.envelope.payload))
    signed = trust.read_draft_root(data)
    durable_write(path, data)
    return _signed_root(signed, name, previous)


def sign_set(folder: Path, key: str, listener: Listener) -> SignedDocument:
    """Check every byte of a set, add one signer's signatures, make the stranger's files anew.

    Running it again with the same key repairs an interrupted run. Raises what verification raises,
    TrustError when the set's root does not name this signer.
    """
    draft = verify_draft_set(open_set((folder,)), sums=False)
    signer = load_signer(key)
    name = _name_in(signer, draft.root, None)
    read_volumes(
        draft.table, draft.volume_path, wanted=None, sink=None, listener=listener, task="verify"
    )
    envelope = trust.parse_envelope(draft.release, trust.MAX_RELEASE_BYTES, "release.json")
    data = trust.add_signatures(envelope, signer.sign(envelope.payload))
    statement = trust.read_draft_release(draft.root, data)
    write_signatures(folder, data, statement, draft.table, signer)
    verify_draft_set(open_set((folder,)))
    what = (
        f"set {statement.name} {statement.version}, epoch {statement.epoch}, "
        f"sequence {statement.sequence}, statement {statement.digest.short}"
    )
    return SignedDocument(what, name, (statement.tally,), None, {}, unknown=False)


def signer_fingerprints(root: trust.TrustedRoot) -> dict[str, str]:
    """What each signer of a root reads aloud, by name."""
    return {
        name: trust.PublicHalf(name, keys).fingerprint
        for name, keys in sorted(root.keys("root").items())
    }


def _name_in(
    signer: PairSigner, root: trust.TrustedRoot, previous: trust.TrustedRoot | None
) -> str:
    keys = signer.signer_keys()
    revoked = root.revocation_of(keys)
    if revoked is not None:
        raise TrustError(
            "these keys are revoked and sign nothing", found=f"{revoked.signer}: {revoked.reason}"
        )
    for known in (root, previous):
        name = None if known is None else known.name_of(keys)
        if name is not None:
            return name
    raise TrustError(
        "the root does not name this signer, so the signature would not count",
        found=signer.name,
        needed=f"one of {', '.join(root.signers('root'))}",
        hint="a signer of the root before this one adds: --previous ROOT",
    )


def _signed_root(
    draft: trust.DraftRoot, name: str, previous: trust.TrustedRoot | None
) -> SignedDocument:
    content = draft.content
    tallies = [draft.own_tally()]
    if previous is not None:
        tallies.append(draft.previous_tally(previous))
    unknown = previous is None and content.version > 1
    done = not unknown and not any(tally.missing for tally in tallies)
    return SignedDocument(
        what=f"root {content.version}, {content.threshold('root')} of "
        f"{', '.join(content.signers('root'))} (policy {content.policy})",
        signer=name,
        tallies=tuple(tallies),
        fingerprint=content.fingerprint if done else None,
        people=signer_fingerprints(content),
        unknown=unknown,
    )


def _write_draft(path: Path, payload: bytes) -> trust.DraftRoot:
    _check_absent(path)
    data = trust.encode_envelope(payload, [])
    draft = trust.read_draft_root(data)
    _write_new(path, data)
    return draft


def _check_absent(path: Path) -> None:
    if path.exists():
        raise TrustError("a root is already there and is never overwritten", where=str(path))


def _write_new(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    durable_write(path, data)
