"""Where the site's configuration is read: the one place, for commands and daemons alike."""

from __future__ import annotations

import stat
from pathlib import Path

from edgekit.core.site_config import MAX_CONFIG_BYTES, SiteConfig, parse_site_config
from edgekit.errors import ConfigError
from edgekit.system.files import read_bounded


def load_site_config(path: Path) -> SiteConfig:
    """The configuration at `path`; the defaults when there is no such file.

    Raises ConfigError for a file that says something wrong, HostError or PrivilegeError for one
    that cannot be read.
    """
    if not path.exists():
        return SiteConfig()
    return parse_site_config(
        read_bounded(path, MAX_CONFIG_BYTES, "the configuration"), file=str(path)
    )


def check_site_file(path: Path) -> None:
    """Refuse a file whose mode would surprise: daemons must read it, others must not write it.

    Raises ConfigError; an absent file is fine.
    """
    if not path.exists():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o022 or not mode & 0o004:
        raise ConfigError(
            "the configuration has an unusable mode: the daemons' own users must be able to read "
            "it, and nobody but its owner may write it",
            where=str(path),
            needed="mode 0644",
            found=f"mode {mode:04o}",
            hint=f"chmod 0644 {path}",
        )
