"""What this host trusts: its root, and the floor below which no release is accepted.

Lies in `/var/lib/edgekit/trust`. Root and floor are each kept in two fsynced copies. A damaged copy
is ignored as long as the other is good, and the newer of two good ones counts, so that a crash
between the two writes can never take anything back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edgekit.core import trust
from edgekit.errors import FormatError, SignatureError, TrustError
from edgekit.system.files import (
    durable_write,
    ensure_directory,
    read_bounded,
    translate_os_error,
)

_ROOT_NAMES = ("root.json", "root-b.json")
_FLOOR_NAMES = ("floor-a.json", "floor-b.json")
_MAX_FLOOR_BYTES = 4096

T = TypeVar("T")


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

    def load(self, proven: trust.Floor | None = None) -> HostTrust:
        """The state, verified.

        `proven` is what the installed release proves; the floor is never below it, and it stands in
        when both copies are damaged. Raises TrustError when something exists but no copy is good.
        """
        return HostTrust(self._load_root(), self._load_floor(proven))

    def save_root(self, root: trust.TrustedRoot) -> None:
        """Make an accepted root the host's root, in both copies. Verified first, then persisted."""
        self._ensure(_ROOT_NAMES, root.data)

    def save_floor(self, floor: trust.Floor) -> None:
        """Raise the floor, copy by copy; called only after a release is committed (I6).

        No part of it ever goes down, whatever `floor` says.
        """
        raised = self._load_floor(floor).raised(floor)
        self._ensure(_FLOOR_NAMES, trust.encode_floor(raised))

    def _ensure(self, names: tuple[str, ...], data: bytes) -> None:
        """Write the copies, one after the other, unless all of them are there already."""
        if all(self._holds(name, data) for name in names):
            return
        try:
            ensure_directory(self._directory)
        except OSError as error:
            raise translate_os_error(error, "making the trust folder") from error
        for name in names:
            durable_write(self._directory / name, data)

    def _holds(self, name: str, data: bytes) -> bool:
        path = self._directory / name
        return path.is_file() and read_bounded(path, trust.MAX_ROOT_BYTES, name) == data

    def _load_root(self) -> trust.TrustedRoot | None:
        def parse(path: Path) -> trust.TrustedRoot:
            return trust.restore_root(read_bounded(path, trust.MAX_ROOT_BYTES, "stored root"))

        roots = self._good_copies(_ROOT_NAMES, parse, "trusted root")
        return max(roots, key=lambda root: root.version, default=None)

    def _load_floor(self, proven: trust.Floor | None) -> trust.Floor:
        def parse(path: Path) -> trust.Floor:
            return trust.parse_floor(read_bounded(path, _MAX_FLOOR_BYTES, "trust floor"))

        try:
            floors = self._good_copies(_FLOOR_NAMES, parse, "trust floor")
        except TrustError:
            if proven is None:
                raise
            floors = []
        highest = proven or trust.Floor()
        for floor in floors:
            highest = highest.raised(floor)
        return highest

    def _good_copies(
        self, names: tuple[str, ...], parse: Callable[[Path], T], what: str
    ) -> list[T]:
        present = [self._directory / name for name in names if (self._directory / name).exists()]
        good = []
        for path in present:
            try:
                good.append(parse(path))
            except (FormatError, SignatureError):
                continue
        if present and not good:
            raise TrustError(
                f"both copies of the {what} are damaged",
                where=str(self._directory),
                hint="edgekit trust show",
            )
        return good
