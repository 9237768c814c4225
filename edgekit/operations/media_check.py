"""`edgekit media check`: what is wrong with a set on its medium, to the end and in plain words.

`verify` answers whether a host may believe a set and stops at the first problem. A courier asks
something else: which files must be copied again. So this goes on to the end, needs no trusted root
(and says so when it had none), and cares neither about the host's floor nor about where the other
sticks are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core import findings, set_files
from edgekit.core.events import Listener
from edgekit.core.findings import Finding, Seen
from edgekit.exit_codes import ExitCode
from edgekit.operations.verify import Trusting
from edgekit.operations.vouch import copies_to_read, look_at, vouch
from edgekit.system.block_reader import MediumReader, OpenReader
from edgekit.system.medium import CopyChecker


@dataclass(frozen=True, slots=True)
class MediaReport:
    """What a check found. `signers` is None when signatures were not checked; `stopped` says that
    the volumes were not read, because the documents that describe them are bad."""

    name: str
    findings: tuple[Finding, ...]
    signers: tuple[str, ...] | None
    volumes: tuple[str, ...]
    read_bytes: int
    stopped: bool

    @property
    def exit_code(self) -> ExitCode:
        """0 intact, 13 files missing, foreign or of the wrong size, 22 damage."""
        return findings.exit_code_of(self.findings)

    def table(self) -> dict[str, Any]:
        """The report as plain JSON values (`edgekit.media-check/1`)."""
        return {
            "schema": "edgekit.media-check/1",
            "name": self.name,
            "intact": self.exit_code == ExitCode.OK,
            "signatures_checked": self.signers is not None,
            "signed_by": list(self.signers or ()),
            "volumes_here": list(self.volumes),
            "bytes": self.read_bytes,
            "volumes_read": not self.stopped,
            "copy_again": list(findings.files_to_copy(self.findings)),
            "findings": [finding.table() for finding in self.findings],
        }


def check_media(
    folders: tuple[Path, ...],
    trusting: Trusting | None,
    listener: Listener,
    *,
    partial: bool = False,
    open_reader: OpenReader = MediumReader,
) -> MediaReport:
    """Read a set's files once, from the medium, and list everything that is wrong with them.

    Changes nothing. Signatures are checked where a root is trusted; the host's floor is not asked.
    With `partial` the folders are some sticks of many. Damage is reported, not raised; raises
    SetShapeError when there is no set, SignatureError when strangers signed it, TrustError,
    PrivilegeError and HostError.
    """
    seen = look_at(folders)
    vouched = vouch(folders, seen, trusting)
    todo = copies_to_read(vouched.wanted, seen)
    flaws = CopyChecker(vouched.contents, listener, open_reader).run("check", todo)
    flaws += vouched.flaws
    if vouched.stopped:
        names = {file.name for file in vouched.wanted}
        seen = Seen({name: copies for name, copies in seen.copies.items() if name in names})
    found = findings.list_findings(vouched.wanted, seen, flaws, vouched.contents, partial=partial)
    volumes = tuple(sorted(name for name in seen.copies if set_files.is_volume(name)))
    read = sum(copy.size or 0 for _, copy in todo)
    return MediaReport(vouched.name, found, vouched.signers, volumes, read, vouched.stopped)
