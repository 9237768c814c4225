"""`edgekit trust` and `edgekit keys`: who is believed, and the keys of those who want to be."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path

from edgekit.core import trust
from edgekit.core.host_layout import HostLayout
from edgekit.errors import TrustError
from edgekit.operations.host_records import audit_event
from edgekit.system.files import durable_write, exclusive_lock, read_bounded
from edgekit.system.signing import create_signer, sign_payload
from edgekit.system.trust_store import HostTrust, TrustStore

ROOT_YEARS = 10


@dataclass(frozen=True, slots=True)
class CreatedRoot:
    """A new root: where it was written and the fingerprint to read aloud."""

    path: Path
    fingerprint: str
    signers: tuple[str, ...]
    threshold: int


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
    if root_path.exists():
        raise TrustError("a root is already there and is never overwritten", where=str(root_path))
    if threshold < 2 and not insecure_developer:
        raise TrustError(
            "one signer alone is not enough",
            needed="a threshold of at least 2",
            hint="edgekit keys init DIR1 DIR2 DIR3, or --insecure-developer for a demo",
        )
    signers = {signer.name: signer for signer in map(create_signer, folders)}
    if len(signers) != len(folders):
        raise TrustError("two signers have the same folder name")
    payload = trust.root_payload(
        version=1,
        signers={name: signer.keys() for name, signer in signers.items()},
        threshold=threshold,
        policy=policy,
        developer=insecure_developer,
        expires=expiry(now, ROOT_YEARS),
    )
    data = sign_payload(payload, tuple(signers.values()))
    root_path.parent.mkdir(parents=True, exist_ok=True)
    durable_write(root_path, data)
    return CreatedRoot(root_path, trust.fingerprint(data), tuple(sorted(signers)), threshold)


def expiry(now: int, years: int) -> str:
    """TUF's timestamp `years` after `now` (Unix seconds)."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC) + dt.timedelta(365 * years)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def import_root(
    path: Path, fingerprint: str, layout: HostLayout, *, insecure_developer: bool
) -> trust.TrustedRoot:
    """Make a root this host's root because its fingerprint is the one given.

    Raises FingerprintError, TrustError (another root is already trusted, or a developer root).
    """
    data = read_bounded(path, trust.MAX_ROOT_BYTES, "root")
    root = trust.trust_first_root(data, fingerprint, insecure_developer=insecure_developer)
    if layout.is_private:
        layout.run.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(layout.lock, "this host"):
        store = TrustStore(layout.trust)
        present = store.load().root
        if present is not None and present.fingerprint != root.fingerprint:
            raise TrustError(
                "this host already trusts another root",
                found=trust.format_fingerprint(present.fingerprint)[:39],
                needed="a newer root signed by it, which crosses inside any set",
                hint="edgekit trust show",
            )
        store.save_root(root)
        audit_event(
            layout,
            {
                "type": "trust_import",
                "root": root.fingerprint,
                "actor": f"uid {os.getuid()}",
                "developer": "yes" if root.developer else "no",
            },
        )
    return root


def show_trust(layout: HostLayout) -> HostTrust:
    """What this host trusts. Raises TrustError when nothing was imported."""
    host = TrustStore(layout.trust).load()
    host.require_root()
    return host
