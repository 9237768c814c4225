"""A file system of a few megabytes, for tests of what happens when it is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekit.errors import EdgekitError
from edgekit.system.process import run


@contextmanager
def tiny_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs of this size on `folder`; skips the test where mounting is not allowed."""
    folder.mkdir()
    try:
        run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
            timeout_s=20)
    except EdgekitError as error:
        pytest.skip(f"cannot run here: no mounting ({error.message})")
    try:
        yield folder
    finally:
        run(["umount", str(folder)], timeout_s=20)
