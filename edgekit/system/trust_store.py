"""What this host trusts: its root and the floor below which no release is accepted.

Lies in `/var/lib/edgekit/trust`. The floor is kept in two fsynced copies; a damaged copy is
ignored as long as the other is good, and the higher of two good ones counts, so that a crash
between the two writes can never lower it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgekit.core import trust
from edgekit.errors import FormatError, TrustError
from edgekit.system.files import durable_write, read_bounded

_FLOOR_NAMES = ("floor-a.json", "floor-b.json")


@dataclass(frozen=True, slots=True)
class HostTrust:
    """A host's trusted root (None before the first import) and its floor."""

    root: trust.TrustedRoot | None
    floor: trust.Floor = field(default_factory=trust.Floor)

    def require_root(self) -> trust.TrustedRoot:
        """The root. Raises TrustError that tells how to import one."""
        if self.root is None:
            raise TrustError(
                "this host trusts nobody yet",
                needed="the root of the people who make your bundles",
                hint="edgekit trust import SET/trust/1.root.json --fingerprint '...'",
            )
        return self.root


class TrustStore:
    """Reads and durably advances the trust state in one folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> HostTrust:
        """The state, verified. Raises TrustError when it exists but no copy is good."""
        path = self._directory / "root.json"
        root = None
        if path.exists():
            root = trust.restore_root(read_bounded(path, trust.MAX_ROOT_BYTES, "stored root"))
        return HostTrust(root, self._load_floor())

    def save_root(self, root: trust.TrustedRoot) -> None:
        """Make an accepted root the host's root. Verified first, then persisted."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        durable_write(self._directory / "root.json", root.data)

    def save_floor(self, floor: trust.Floor) -> None:
        """Raise the floor, copy by copy; called only after a release is committed (I6)."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        for name in _FLOOR_NAMES:
            durable_write(self._directory / name, trust.encode_floor(floor))

    def _load_floor(self) -> trust.Floor:
        present = [self._directory / name for name in _FLOOR_NAMES]
        present = [path for path in present if path.exists()]
        good = []
        for path in present:
            try:
                good.append(trust.parse_floor(read_bounded(path, 4096, "trust floor")))
            except FormatError:
                continue
        if present and not good:
            raise TrustError(
                "both copies of the trust floor are damaged",
                where=str(self._directory),
                hint="edgekit trust show",
            )
        return max(good, key=lambda floor: (floor.epoch, floor.sequence), default=trust.Floor())
