"""How fast all usable cores copy memory together: a short measurement, only when asked for."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from edgekit.core.facts import Fact

BLOCK_BYTES = 64 << 20
"""Per thread: beyond the last cache of almost any processor, small beside any memory."""
SECONDS = 0.4


def measure_bandwidth() -> Fact[int]:
    """Bytes per second that all usable cores copy.

    A copy reads and writes as much, so the bus carries about twice this.
    """
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        rates = list(pool.map(_copy_rate, range(threads)))
    return Fact(sum(rates), f"copies of {BLOCK_BYTES >> 20} MiB on {threads} threads")


def _copy_rate(_number: int) -> int:
    """Bytes per second one thread copies; the kernel copies, so other threads run meanwhile."""
    source = os.memfd_create("edgekit-bandwidth")
    try:
        os.truncate(source, BLOCK_BYTES)
        target = bytearray(BLOCK_BYTES)
        os.pwrite(source, target, 0)  # touch every page once, outside the measurement
        started, copied = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS:
            copied += os.preadv(source, [target], 0)
        return int(copied / (time.perf_counter() - started))
    finally:
        os.close(source)
