"""`python -m tests.audit.kills_gateway BUG ...`: the gateway of the kill suite.

The real one; its listener is descriptor $KILLS_LISTENER, which was there before and outlives it, as
with systemd. BUG is `none`, or one put in on purpose, which the suite must find.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from edgekit.gateway import daemon
from edgekit.gateway.journal import Journal
from edgekit.gateway.serve import Generation

LATE_S = 0.05
_later: set[asyncio.Task[None]] = set()


def postponed(call: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The same call, which nobody waits for any more."""

    async def later(*arguments: Any, **named: Any) -> None:
        await asyncio.sleep(LATE_S)
        await call(*arguments, **named)

    async def soon(*arguments: Any, **named: Any) -> None:
        task = asyncio.create_task(later(*arguments, **named))
        _later.add(task)
        task.add_done_callback(_later.discard)

    return soon


if __name__ == "__main__":
    if sys.argv[1] == "answers_first":
        Generation._end = postponed(Generation._end)  # type: ignore[method-assign,assignment]
    if sys.argv[1] == "asks_first":
        Journal.begin = postponed(Journal.begin)  # type: ignore[method-assign,assignment]
    os.dup2(int(os.environ["KILLS_LISTENER"]), daemon.FIRST_INHERITED_FD)
    os.environ["LISTEN_FDS"] = "1"
    sys.exit(daemon.main(sys.argv[2:]))
