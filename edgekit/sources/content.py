"""The weights policy applied to files on disk."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.names import RelPath
from edgekit.core.weights_policy import check_weights_file, head_bytes
from edgekit.system.files import translate_os_error


def check_stored_weights(path: RelPath, stored: Path) -> None:
    """Check the bytes in `stored` as weights named `path`.

    Raises RefusedContentError naming `path`, or HostError when `stored` cannot be read.
    """
    try:
        with stored.open("rb") as file:
            size = stored.stat().st_size
            head = file.read(head_bytes(path, size))
    except OSError as error:
        raise translate_os_error(error, f"reading {path}") from error
    check_weights_file(path, head, size)
