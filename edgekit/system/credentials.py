"""Secrets that systemd keeps: encrypted for this machine, and opened for one unit alone.

systemd 250 encrypts with the TPM where there is one and with a key of the machine otherwise
(systemd-creds(1)). A disk that was carried away then holds nothing to read.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import EdgekitError
from edgekit.system.files import durable_write
from edgekit.system.process import run

SUFFIX = ".cred"
"""A file of this name is encrypted, and its unit says LoadCredentialEncrypted."""
_TIMEOUT_S = 60


def seal_credential(name: str, secret: bytes, target: Path) -> bool:
    """Encrypt a secret into `target`, for units that call it `name`.

    False, and nothing written, where this systemd cannot. Raises what `durable_write` raises.
    """
    try:
        done = run(
            ["systemd-creds", "encrypt", f"--name={name}", "-", "-"],
            timeout_s=_TIMEOUT_S,
            stdin=secret,
        )
    except EdgekitError:
        return False
    durable_write(target, done.stdout, mode=0o600)
    return True
