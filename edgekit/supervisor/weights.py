"""Hash weights before an engine sees them: engines do not notice flipped bits."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgekit.core.appliance import WeightsFile
from edgekit.core.digest import Digest, new_hasher
from edgekit.errors import DigestError
from edgekit.system.verity import measure

READ_BYTES = 1 << 20
MAX_THREADS = 8


def verify_weights(files: Iterable[WeightsFile]) -> None:
    """Check every file's size and digest, several files at once (hashing releases the GIL).

    Raises DigestError for the first file, in the given order, that is not what it should be. An
    exception in the calling thread (a signal's) stops the work within one read.
    """
    listed, stop = list(files), threading.Event()
    threads = min(MAX_THREADS, os.cpu_count() or 1, max(1, len(listed)))
    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in pool.map(lambda weights: _verify_file(weights, stop), listed):
                pass
        finally:
            stop.set()


def _verify_file(weights: WeightsFile, stop: threading.Event) -> None:
    if weights.verity and measure(Path(weights.path)) == weights.verity:
        return  # hashed in full once; since then the kernel checks every block that is read
    wanted = Digest.parse(weights.digest)
    hasher, size = new_hasher(wanted.algorithm), 0
    buffer = bytearray(READ_BYTES)
    view = memoryview(buffer)
    try:
        with Path(weights.path).open("rb", buffering=0) as file:
            while not stop.is_set() and (count := file.readinto(buffer)):
                hasher.update(view[:count])
                size += count
    except OSError as error:
        raise DigestError(
            "a weights file cannot be read", where=weights.path, found=error.strerror
        ) from error
    if size != weights.size or hasher.hexdigest() != wanted.value:
        raise DigestError(
            "a weights file is not what was signed",
            where=weights.path,
            found=f"{size} bytes, {hasher.hexdigest()[:12]}",
            needed=f"{weights.size} bytes, {wanted.short}",
            hint="edgekit install, from the same set, writes damaged weights again",
        )
