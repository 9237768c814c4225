"""What this host believes right now: stored trust, what the installed release proves, and time.

Shared by install, status and trust; changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core import trust
from edgekit.core.host_layout import HostLayout
from edgekit.errors import EdgekitError, TrustError
from edgekit.operations.host_records import is_committed
from edgekit.operations.verify import Trusting, host_trust
from edgekit.system.files import read_bounded
from edgekit.system.generations import current_generation
from edgekit.system.trust_store import HostTrust, TrustStore


@dataclass(frozen=True, slots=True)
class InstalledRelease:
    """The release that serves, checked again with the root it was installed under."""

    root: trust.TrustedRoot
    statement: trust.ReleaseStatement


def load_installed(layout: HostLayout) -> InstalledRelease | None:
    """The installed release, None when there is none.

    Raises FormatError, SignatureError or HostError when its documents were damaged.
    """
    generation = current_generation(layout)
    return None if generation is None else _installed(layout, generation)


def check_may_serve(layout: HostLayout, generation: str) -> None:
    """Refuse to go back to an installed release that the newest root forbids (its minimum).

    The host's floor is not asked: it is about sets from outside. Raises RollbackError; TrustError,
    FormatError or HostError when trust or the release's own documents are damaged.
    """
    root = load_host_trust(layout).root
    if root is None:
        raise TrustError("this host trusts no root", hint="edgekit trust import ROOT")
    trust.check_minimum(_installed(layout, generation).statement, root.minimum)


def _installed(layout: HostLayout, generation: str) -> InstalledRelease:
    folder = layout.generation(generation)
    root = trust.restore_root(read_bounded(folder / "root.json", trust.MAX_ROOT_BYTES, "root"))
    release = read_bounded(folder / "release.json", trust.MAX_RELEASE_BYTES, "release.json")
    return InstalledRelease(root, trust.verify_release(root, release))


def load_host_trust(layout: HostLayout) -> HostTrust:
    """The stored trust, never below what the installed release proves (invariant I6).

    A release that was switched to but never answered its questions proves nothing yet.

    Raises TrustError when the stored state is damaged beyond what the release can stand in for.
    """
    proven = None
    try:
        installed = load_installed(layout)
        if installed is not None and is_committed(layout, current_generation(layout) or ""):
            proven = trust.statement_floor(installed.statement)
    except EdgekitError:
        proven = None
    return TrustStore(layout.trust).load(proven)


def trust_for_install(trusting: Trusting, folders: tuple[Path, ...]) -> HostTrust:
    """Whom an installation believes, with a floor that nothing it says can lower.

    Raises TrustError or FingerprintError.
    """
    present = load_host_trust(trusting.layout)
    if trusting.fingerprint is None:
        return present
    return HostTrust(host_trust(trusting, folders).root, present.floor)


def trusted_time(host: HostTrust, now: int) -> trust.TrustedTime:
    """The time that decides about expiry; `now` is what the clock says, in Unix seconds."""
    return trust.trust_time(host.floor.time_floor, now)


def trust_warnings(layout: HostLayout, host: HostTrust, now: int) -> list[str]:
    """What the operator should hear about trust and time; none of it stops what already runs."""
    time = trusted_time(host, now)
    found = _clock_warnings(host, time, now)
    if host.root is None:
        return found
    if time.seconds > host.root.expires:
        found.append(
            f"root {host.root.version} expired on {trust.format_date(host.root.expires)}: "
            "nothing new installs until a newer root is imported"
        )
    try:
        installed = load_installed(layout)
    except EdgekitError as error:
        return [*found, f"who signed the installed release cannot be told: {error.message}"]
    if installed is not None:
        found += _release_warnings(installed, host.root, time)
    return found


def _clock_warnings(host: HostTrust, time: trust.TrustedTime, now: int) -> list[str]:
    if time.clock == "believed":
        return []
    floor, clock = (trust.format_date(value) for value in (host.floor.time_floor, now))
    if time.clock == "behind":
        return [f"the clock says {clock}, but it is at least {floor}: {floor} is used"]
    days = trust.CLOCK_SLACK_S // 86_400
    return [f"the clock says {clock}, more than {days} days after {floor}: it decides nothing"]


def _release_warnings(
    installed: InstalledRelease, root: trust.TrustedRoot, time: trust.TrustedTime
) -> list[str]:
    found = []
    statement = installed.statement
    keys = installed.root.keys("targets")
    for name in statement.signers:
        revoked = root.revocation_of(keys[name])
        if revoked is None:
            continue
        when = "after" if statement.sequence >= revoked.since_sequence else "before"
        found.append(
            f"the installed release was signed by {name}, who is revoked ({revoked.reason}); "
            f"its sequence {statement.sequence} is {when} the keys became suspect"
        )
    if time.seconds > statement.expires:
        found.append(
            f"the installed release expired on {trust.format_date(statement.expires)}; "
            "it keeps running"
        )
    return found
