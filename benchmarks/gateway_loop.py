"""The event loop of the measuring programs: the same for every contender."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to its end."""
    asyncio.run(work)
