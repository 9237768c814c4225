"""Bounded concurrency: as many requests as the engine has slots, a fair queue, then 503.

A free slot goes to the keys that wait in turn, whoever asked more: a key with a hundred requests in
the queue delays another key's one by one generation, not by a hundred. When the queue is full, the
key that fills most of it gives up its newest place.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgekit.gateway.problems import ApiError

QUEUE_PER_SLOT = 8
MIN_RETRY_S = 1
MAX_RETRY_S = 60
MEMORY = 0.2
"""Weight of the newest generation in the mean that Retry-After is computed from."""

Place = asyncio.Future[None]


class Admission:
    """The slots of one engine and the requests that wait for them."""

    def __init__(self, slots: int, *, queue: int | None = None) -> None:
        self.slots = slots
        self.running = 0
        self._queue = QUEUE_PER_SLOT * slots if queue is None else queue
        self._waiting: dict[str, deque[Place]] = {}  # in the order in which keys have their turn
        self._mean_s = 1.0

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def slot(self, key: str = "") -> AsyncIterator[None]:
        """Hold a slot, after waiting for one. Raises ApiError 503 when the queue is full."""
        if self.running >= self.slots:
            await self._wait(key)
        else:
            self.running += 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            self._mean_s += MEMORY * (loop.time() - began - self._mean_s)
            self._release()

    async def _wait(self, key: str) -> None:
        """Return with a slot that `_release` handed over."""
        if self.waiting >= self._queue:
            self._make_room(key)
        place: Place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._release()  # the slot came in the moment in which the client left
            else:
                self._leave(key, place)
            raise

    def _make_room(self, key: str) -> None:
        """Take a place from the key that has most of them, or refuse this one."""
        longest = max(self._waiting, key=lambda name: len(self._waiting[name]), default=key)
        if longest == key or len(self._waiting[longest]) <= len(self._waiting.get(key, ())) + 1:
            raise self._full()
        place = self._waiting[longest][-1]
        self._leave(longest, place)
        place.set_exception(self._full())

    def _leave(self, key: str, place: Place) -> None:
        places = self._waiting.get(key)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del self._waiting[key]

    def _release(self) -> None:
        """Hand the slot to the next key in turn, or keep it free."""
        while self._waiting:
            key = next(iter(self._waiting))
            places = self._waiting.pop(key)
            place = places.popleft()
            if places:
                self._waiting[key] = places  # behind all others
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def _full(self) -> ApiError:
        after = math.ceil(self._mean_s * (self.waiting + 1) / self.slots)
        return ApiError(
            503,
            "queue_full",
            "too many requests wait for this model",
            retry_after=min(max(after, MIN_RETRY_S), MAX_RETRY_S),
        )
