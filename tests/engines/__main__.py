"""Engines that take long to make: `python -m tests.engines source`.

The result is cached by everything that goes into it, so a second run takes seconds; the usual tests
use what is there.
"""

from __future__ import annotations

import sys
import time

from edgekit.core.events import Event, Started
from tests.engines import source

JOBS = {"source": source.build}


def main(arguments: list[str]) -> int:
    """Make one engine and say what came of it."""
    if len(arguments) != 1 or arguments[0] not in JOBS:
        print(__doc__)
        return 2
    began = time.monotonic()
    built = JOBS[arguments[0]](_say)
    size = sum(file.source.stat().st_size for file in built.files)
    pack = built.pack
    print(f"{pack.kind} {pack.provider} {pack.version}: {len(built.files)} files, "
          f"{size / (1 << 20):.1f} MiB, glibc {pack.glibc[0]}.{pack.glibc[1]}, "
          f"{time.monotonic() - began:.0f} s")
    return 0


def _say(event: Event) -> None:
    if isinstance(event, Started):
        print(event.task, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
