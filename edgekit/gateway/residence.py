"""Engines that are loaded on demand: which are in memory, for whom, and until when.

The plan says what each takes of the memory and how much of it they share. An engine is asked for on
its lease socket (`supervisor.lease`) when all that are in memory fit beside it, and never before:
the one that was used longest ago gives up its place first, when nobody uses it any more. Engines
that need the same accelerator are never there together. One is loaded at a time, in the order of
asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from edgekit.core.appliance import HOST_MEMORY, EngineSettings
from edgekit.gateway.problems import ApiError, engine_unavailable

KEEP_S = 300.0
"""How long an unused engine stays unless a request says otherwise: Ollama's five minutes."""
LOAD_FACTOR = 2
"""Hashing the weights comes before what `start_timeout_s` bounds."""
SETTLE_TIMEOUT_S = 60.0
"""An engine is given 10 seconds to end, and its memory some more to be free."""
LOOK_TIMEOUT_S = 2.0
LOAD, SETTLE = b"load\n", b"settle\n"
READY, IDLE = b"ready\n", b"idle\n"


class Place:
    """One engine: its connection while it is in memory, and who uses it."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.sure = False
        """Whether nothing but what we hold can be in memory: not so before the first look."""
        self.users = 0
        self.leaving = False
        self.loads = 0
        self.used_s = 0.0
        self.ends_s = math.inf
        self.free = asyncio.Event()
        self.free.set()

    @property
    def usable(self) -> bool:
        """Whether it is in memory, and stays."""
        return self.streams is not None and not self.leaving

    @property
    def host(self) -> int:
        """Planned bytes of the host's memory."""
        return sum(size for name, size in self.settings.claims if name == HOST_MEMORY)

    @property
    def devices(self) -> set[str]:
        """The accelerators that it needs."""
        return {name for name, _ in self.settings.claims if name != HOST_MEMORY}


class Residence:
    """The engines that share `room` bytes of the host's memory."""

    def __init__(self, engines: Sequence[EngineSettings], room: int) -> None:
        self._places = {one.name: Place(one) for one in engines if one.lease}
        self._room = room
        self._door = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def knows(self, name: str) -> bool:
        """Whether this engine is loaded on demand."""
        return name in self._places

    def loaded(self, name: str) -> bool:
        """Whether it is in memory; true of an engine that always is."""
        return name not in self._places or self._places[name].streams is not None

    def ends_in_s(self, name: str) -> float:
        """Seconds until it leaves if nobody asks for it; infinite when it stays."""
        place = self._places.get(name)
        if place is None:
            return math.inf
        return max(0.0, place.ends_s - time.monotonic())

    def loads(self, name: str) -> int:
        """How often it was loaded."""
        return self._places[name].loads if name in self._places else 0

    @asynccontextmanager
    async def using(self, name: str, keep_s: float | None = None) -> AsyncIterator[None]:
        """Hold an engine in memory, and for `keep_s` seconds afterwards. Raises ApiError 503."""
        place = self._places.get(name)
        if place is None:
            yield
            return
        while not place.usable:
            async with self._door:
                if not place.usable:
                    await self._load(place)
        place.users += 1
        place.free.clear()
        try:
            yield
        finally:
            self._leave(place, KEEP_S if keep_s is None else keep_s)

    async def release(self, name: str) -> None:
        """Give an engine back now, or when nobody uses it any more. Raises ApiError 503."""
        place = self._places.get(name)
        if place is None or place.streams is None:
            return
        async with self._door:
            if place.usable:
                await self._unload(place)

    def close(self) -> None:
        """Give back every engine."""
        for task in self._tasks:
            task.cancel()
        for place in self._places.values():
            if place.streams is not None:
                place.streams[1].close()

    def _leave(self, place: Place, keep_s: float) -> None:
        now = asyncio.get_running_loop().time()
        place.users -= 1
        place.used_s, place.ends_s = now, now + keep_s
        if place.users == 0:
            place.free.set()
            if math.isfinite(keep_s):
                self._later(self._expire(place, place.ends_s))

    async def _expire(self, place: Place, ends_s: float) -> None:
        """Give an engine back when nobody has used it since."""
        await asyncio.sleep(ends_s - asyncio.get_running_loop().time())
        async with self._door:
            if place.usable and place.users == 0 and place.ends_s == ends_s:
                with contextlib.suppress(ApiError):
                    await self._unload(place)

    async def _load(self, place: Place) -> None:
        """Make room, ask, and wait for right answers. Raises ApiError 503."""
        await self._make_room(place)
        settings = place.settings
        try:
            async with asyncio.timeout(LOAD_FACTOR * settings.start_timeout_s):
                reader, writer = await asyncio.open_unix_connection(settings.lease)
                try:
                    writer.write(LOAD)
                    answer = await reader.readline()
                except BaseException:
                    writer.close()  # nobody waits for it any more
                    place.sure = False
                    raise
        except (OSError, TimeoutError) as error:
            raise engine_unavailable() from error
        if answer != READY:
            writer.close()
            raise engine_unavailable()
        place.streams, place.leaving, place.sure = (reader, writer), False, True
        place.ends_s = math.inf
        place.loads += 1
        self._later(self._watch(place, reader))

    async def _watch(self, place: Place, reader: asyncio.StreamReader) -> None:
        """Notice when the supervisor takes an engine away: it has failed."""
        with contextlib.suppress(OSError):
            while await reader.read(100):
                pass
        if place.streams is not None and place.streams[0] is reader:
            place.streams[1].close()
            place.streams = None
            place.sure = False

    async def _make_room(self, wanted: Place) -> None:
        """Return when everything in memory fits beside this one. Raises ApiError 503."""
        for place in self._places.values():
            if place is not wanted and not place.sure:
                await self._settle(place)
        while rivals := self._rivals(wanted):
            # one that nobody uses goes first, then the one that was used longest ago
            await self._unload(min(rivals, key=lambda place: (place.users > 0, place.used_s)))

    def _rivals(self, wanted: Place) -> list[Place]:
        """Those that may have to go; none when all fit."""
        there = [one for one in self._places.values() if one.streams and one is not wanted]
        same_device = [one for one in there if one.devices & wanted.devices]
        if same_device:
            return same_device
        taken = sum(one.host for one in there)
        return there if taken + wanted.host > self._room else []

    async def _unload(self, place: Place) -> None:
        """Wait until nobody uses it, and then until its memory is free. Raises ApiError 503."""
        place.leaving = True  # whoever asks from now on waits behind us
        try:
            await place.free.wait()
            if place.streams is None:
                return
            _, writer = place.streams
            place.streams, place.sure = None, False
            writer.close()
        finally:
            place.leaving = False
        await self._settle(place)

    async def _settle(self, place: Place) -> None:
        """Return when nothing of it is in memory. Raises ApiError 503."""
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(place.settings.lease)
                try:
                    writer.write(SETTLE)
                    answer = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise engine_unavailable() from error
        if answer != IDLE:
            raise engine_unavailable()
        place.sure = True

    async def rests(self, name: str) -> bool:
        """Whether an engine that is not in memory can be asked for; true while it is loaded."""
        place = self._places[name]
        if place.streams is not None or self._door.locked():
            return True
        async with self._door:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    await self._settle(place)
            except (ApiError, TimeoutError):
                return False
        return True

    def _later(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
