"""Read the MAC key that a log's writer keeps. It lies in two sectors, of which one is empty."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgekit.core.audit_keys import AuditKey, parse_audit_key
from edgekit.errors import AuditFormatError, AuditUnavailableError
from edgekit.system.audit_files import signer_folder, unavailable

MAC_KEY_NAME = "mac.key"
SECTOR = 512


def load_mac_key(directory: Path, log_id: str) -> AuditKey | None:
    """The writer's present MAC key, for who may read it (root); None for everyone else."""
    with contextlib.suppress(AuditUnavailableError, AuditFormatError):
        return read_mac_key(signer_folder(directory, log_id) / MAC_KEY_NAME)[0]
    return None


def read_mac_key(path: Path) -> tuple[AuditKey, int]:
    """The newer of the keys that are there, and its sector."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            data = os.pread(descriptor, 2 * SECTOR, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unavailable("cannot read the audit log's MAC key", path, error) from error
    found = []
    for slot in (0, 1):
        with contextlib.suppress(AuditFormatError):
            sector = data[slot * SECTOR : (slot + 1) * SECTOR].rstrip(b"\0")
            found.append((parse_audit_key(sector), slot))
    if not found:
        raise AuditFormatError("the audit log's MAC key is damaged", where=str(path))
    return max(found, key=lambda item: item[0].epoch)
