"""SELinux labels: where a policy is loaded, files below /opt are labelled as their like elsewhere.

By a program's label a policy decides in which domain systemd starts it, by a unit's label who may
start and stop it; below /opt both would be plain data. Each policy has names of its own for these
labels, so they are taken from the folders that the host keeps programs and units in.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

PROGRAMS = Path("/usr/bin")
UNITS = Path("/usr/lib/systemd/system")
_LABEL = "security.selinux"
_LOADED = Path("/sys/fs/selinux/enforce")


def has_policy(*, loaded: Path = _LOADED) -> bool:
    """Whether the kernel has loaded a policy; elsewhere labels mean nothing."""
    return loaded.exists()


def is_labelled_like(path: Path, example: Path) -> bool:
    """Whether a file's label is its example's. Raises OSError when the example has none."""
    wanted = os.getxattr(example, _LABEL)
    try:
        return os.getxattr(path, _LABEL) == wanted
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def label_like(path: Path, example: Path) -> None:
    """Give a file its example's label. Raises OSError when that is refused."""
    os.setxattr(path, _LABEL, os.getxattr(example, _LABEL))
