"""Bounded concurrency: as many requests at the engine as it has slots, a short queue, then 503."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgekit.gateway.problems import ApiError

QUEUE_PER_SLOT = 8
RETRY_AFTER_S = 2


class Admission:
    """The slots of one engine and the requests that wait for them."""

    def __init__(self, slots: int, *, queue: int | None = None) -> None:
        self._free = asyncio.Semaphore(slots)
        self._queue = QUEUE_PER_SLOT * slots if queue is None else queue
        self.waiting = 0
        self.running = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot, after waiting for one. Raises ApiError 503 when the queue is full."""
        if self._free.locked() and self.waiting >= self._queue:
            raise ApiError(
                503,
                "queue_full",
                "too many requests wait for this model",
                retry_after=RETRY_AFTER_S,
            )
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()
