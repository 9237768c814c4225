"""`edgekit trust`: whom this host believes, how that changes, and what it means."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgekit.core import trust
from edgekit.core.host_layout import HostLayout
from edgekit.errors import TrustError
from edgekit.operations.host_records import audit_event
from edgekit.operations.host_trust import load_host_trust, trust_warnings, trusted_time
from edgekit.system.files import exclusive_lock, read_bounded
from edgekit.system.trust_store import HostTrust, TrustStore


@dataclass(frozen=True, slots=True)
class ShownTrust:
    """What a host trusts, the time it goes by, and what its operator should hear."""

    host: HostTrust
    time: trust.TrustedTime
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportedRoots:
    """The root a host trusts now, and how many of the documents took it there."""

    root: trust.TrustedRoot
    accepted: int


def import_roots(
    paths: tuple[Path, ...],
    fingerprint: str | None,
    layout: HostLayout,
    *,
    insecure_developer: bool = False,
) -> ImportedRoots:
    """Carry this host's trust from root to root, or begin it with the one named by `fingerprint`.

    Files named `N.root.json` are taken in the order of N. Documents up to the one the host already
    trusts are passed over. All are verified before anything is stored. Raises FingerprintError,
    SignatureError, TrustError or FormatError; the host's trust is then as it was.
    """
    documents = [read_bounded(path, trust.MAX_ROOT_BYTES, path.name) for path in _in_order(paths)]
    with exclusive_lock(layout.lock, "this host"):
        store = TrustStore(layout.trust)
        present = load_host_trust(layout).root
        chain = _follow(documents, present, fingerprint, insecure_developer=insecure_developer)
        for root in chain:
            _audit(layout, root)  # what cannot be recorded is not done
        newest = chain[-1] if chain else present
        assert newest is not None
        store.save_root(newest)
        return ImportedRoots(newest, len(chain))


def show_trust(layout: HostLayout, now: int) -> ShownTrust:
    """What this host trusts; `now` is what the clock says. Raises TrustError before any import."""
    host = load_host_trust(layout)
    host.require_root()
    return ShownTrust(host, trusted_time(host, now), tuple(trust_warnings(layout, host, now)))


def _follow(
    documents: list[bytes],
    present: trust.TrustedRoot | None,
    fingerprint: str | None,
    *,
    insecure_developer: bool,
) -> list[trust.TrustedRoot]:
    """The roots accepted one after the other, oldest first; empty when nothing is new."""
    accepted: list[trust.TrustedRoot] = []
    if fingerprint is not None:
        _check_named(documents, fingerprint)
    if present is None:
        present, documents = _first(documents, fingerprint, insecure_developer=insecure_developer)
        accepted.append(present)
    elif (known := _known(documents, present)) is not None:
        documents = documents[known + 1 :]
    elif fingerprint is not None:
        raise TrustError(
            "this host already trusts another root",
            found=trust.format_fingerprint(present.fingerprint)[:39],
            needed="a newer root signed by it, which needs no fingerprint",
            hint="edgekit trust show",
        )
    if len(documents) > trust.MAX_ROTATIONS:
        raise TrustError("too many root rotations", needed=f"{trust.MAX_ROTATIONS} at most")
    for data in documents:
        present = trust.extend_root(present, data)
        accepted.append(present)
    return accepted


def _first(
    documents: list[bytes], fingerprint: str | None, *, insecure_developer: bool
) -> tuple[trust.TrustedRoot, list[bytes]]:
    """The root that the fingerprint names, and the documents after it."""
    if fingerprint is None:
        raise TrustError(
            "this host trusts nobody yet, so the first root needs its fingerprint",
            needed="--fingerprint, as read to you by the people who sign your sets",
        )
    start = _named(documents, fingerprint)[0]
    root = trust.trust_first_root(
        documents[start], fingerprint, insecure_developer=insecure_developer
    )
    return root, documents[start + 1 :]


def _check_named(documents: list[bytes], fingerprint: str) -> None:
    """Some document must be the one that was read aloud. Raises FingerprintError."""
    if not _named(documents, fingerprint):
        trust.trust_first_root(documents[0], fingerprint)


def _named(documents: list[bytes], fingerprint: str) -> list[int]:
    wanted = trust.plain_fingerprint(fingerprint)
    return [n for n, data in enumerate(documents) if trust.fingerprint(data) == wanted]


def _known(documents: list[bytes], present: trust.TrustedRoot) -> int | None:
    """Where in the documents the trusted root stands; nothing is parsed but the envelope."""
    for number, data in enumerate(documents):
        envelope = trust.parse_envelope(data, trust.MAX_ROOT_BYTES, "root")
        if trust.payload_digest(envelope) == present.payload:
            return number
    return None


def _in_order(paths: tuple[Path, ...]) -> list[Path]:
    numbers = [re.fullmatch(r"([0-9]{1,5})\.root\.json", path.name) for path in paths]
    if not all(numbers):
        return list(paths)
    return sorted(paths, key=lambda path: int(path.name.partition(".")[0]))


def _audit(layout: HostLayout, root: trust.TrustedRoot) -> None:
    audit_event(
        layout,
        {
            "type": "trust_import",
            "root": root.fingerprint,
            "version": str(root.version),
            "revoked": ",".join(entry.signer for entry in root.revoked),
            "actor": f"uid {os.getuid()}",
            "developer": "yes" if root.developer else "no",
        },
    )
