"""SELinux labels: where a policy is loaded, systemd starts only what is labelled as a program."""

from __future__ import annotations

import os
from pathlib import Path

PROGRAM_LABEL = b"system_u:object_r:bin_t:s0\0"
_LABEL = "security.selinux"
_LOADED = Path("/sys/fs/selinux/enforce")


def label_program(path: Path, *, loaded: Path = _LOADED) -> bool:
    """Label a file as a program; False, and nothing done, where no policy is loaded.

    Raises OSError when the label is refused.
    """
    if not loaded.exists():
        return False
    os.setxattr(path, _LABEL, PROGRAM_LABEL)
    return True
