"""The clock's door. What it says is an opinion: core/floor.py decides what it is worth."""

from __future__ import annotations

import time
from pathlib import Path


def wall_clock() -> int:
    """Unix seconds as this machine believes them to be."""
    return int(time.time())


def boot_id() -> str:
    """What the kernel calls this boot; empty when it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
