"""Secrets a host makes for itself and never shows."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from edgekit.errors import HostError

SECRET_BYTES = 48


def ensure_secret(path: Path) -> bytes:
    """The 48 random bytes kept at `path` (mode 0600), made on first use. Raises HostError.

    A file of another length is refused, not replaced: what was made with it could no longer be
    matched.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if not path.exists():
            descriptor = os.open(temporary, flags, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        secret = path.read_bytes()
    except OSError as error:
        raise HostError(
            "the host's secret cannot be kept", where=str(path), found=error.strerror
        ) from error
    if len(secret) != SECRET_BYTES:
        raise HostError(
            "the host's secret is damaged",
            where=str(path),
            found=f"{len(secret)} bytes",
            needed=f"{SECRET_BYTES} bytes",
        )
    return secret
