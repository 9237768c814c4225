"""Engines that are loaded on demand: never over the plan, whoever asks for what and in which order.

The supervisors here are sockets that keep the protocol of `edgekit.supervisor.lease`; the real one
keeps it in tests/integration/test_supervisor.py, and both together in test_embedding_appliance.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgekit.core.appliance import EngineSettings
from edgekit.gateway.problems import ApiError
from edgekit.gateway.residence import Residence

ROOM = 10


class Host:
    """What is in memory, in the order of loading; fails the test when it is more than fits."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.there: list[str] = []
        self.most = 0

    def load(self, name: str) -> None:
        assert name not in self.there
        self.there.append(name)
        self.most = max(self.most, sum(self.sizes[one] for one in self.there))


class Supervisor:
    """One engine's supervisor: one connection at a time, the memory free before its end closes."""

    def __init__(self, name: str, host: Host, *, answer: bytes = b"ready\n") -> None:
        self.name, self._host, self._answer = name, host, answer
        self._turn = asyncio.Lock()
        self.loads = 0
        self.serving = 0
        self.leases: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving += 1
        async with self._turn:
            if await reader.readline() == b"settle\n":
                writer.write(b"idle\n")
            else:
                await self._lend(reader, writer)
            writer.close()
        self.serving -= 1

    async def _lend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host.load(self.name)
        self.loads += 1
        await asyncio.sleep(0.002)
        self.leases.add(writer)
        with contextlib.suppress(OSError):
            writer.write(self._answer)
            if self._answer == b"ready\n":
                await reader.read()
        await asyncio.sleep(0.002)  # an engine takes its time to end
        self.leases.discard(writer)
        self._host.there.remove(self.name)


@asynccontextmanager
async def residence_of(
    folder: Path, host: Host, *, devices: dict[str, str] | None = None, answer: bytes = b"ready\n"
) -> AsyncIterator[tuple[Residence, dict[str, Supervisor]]]:
    """The engines of `host`, each with its supervisor; some need an accelerator."""
    supervisors = {name: Supervisor(name, host, answer=answer) for name in host.sizes}
    settings = []
    async with contextlib.AsyncExitStack() as stack:
        for name, supervisor in supervisors.items():
            lease = str(folder / f"{name}.lease")
            await stack.enter_async_context(
                await asyncio.start_unix_server(supervisor.serve, lease)
            )
            claims = [("host", host.sizes[name])]
            if devices and name in devices:
                claims.append((devices[name], 1))
            settings.append(
                EngineSettings(
                    name, "fake", (), (), "", 1, 1, 5, (), (), claims=tuple(claims), lease=lease
                )
            )
        residence = Residence(settings, ROOM)
        yield residence, supervisors
        residence.close()
        while host.there or any(one.serving for one in supervisors.values()):
            await asyncio.sleep(0.001)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    complaints: list[str] = []

    async def limited() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(repr(context)))
        async with asyncio.timeout(20):
            await scenario()
        gc.collect()

    asyncio.run(limited())
    assert not complaints


async def use(residence: Residence, name: str, keep_s: float | None = None) -> None:
    async with residence.using(name, keep_s):
        await asyncio.sleep(0)


def test_what_fits_together_stays_together_and_the_oldest_leaves_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = Host({"a": 4, "b": 4, "c": 4})
        async with residence_of(tmp_path, host) as (residence, supervisors):
            for name in ("a", "b", "a", "b", "a"):
                await use(residence, name)
            assert [one.loads for one in supervisors.values()] == [1, 1, 0]
            await use(residence, "c")
            assert host.there == ["a", "c"]
            assert (residence.loaded("b"), residence.loaded("c")) == (False, True)
            assert host.most <= ROOM

    run(scenario)


def test_an_engine_in_use_is_waited_for_and_late_users_do_not_keep_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = Host({"a": 8, "b": 8})
        order: list[str] = []

        async def asks(name: str, word: str) -> None:
            async with residence.using(name):
                order.append(word)

        async with residence_of(tmp_path, host) as (residence, supervisors):
            async with residence.using("a"):
                other = asyncio.ensure_future(asks("b", "b"))
                await asyncio.sleep(0.02)
                late = asyncio.ensure_future(asks("a", "late"))
                await asyncio.sleep(0.02)
                assert (order, host.there) == ([], ["a"])
            await asyncio.gather(other, late)
            assert order == ["b", "late"]
            assert supervisors["a"].loads == 2
            assert host.most <= ROOM

    run(scenario)


def test_engines_of_one_accelerator_are_never_there_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = Host({"a": 1, "b": 1, "c": 1})
        async with residence_of(tmp_path, host, devices={"a": "g0", "b": "g0"}) as (residence, _):
            for name in ("a", "c", "b"):
                await use(residence, name)
            assert host.there == ["c", "b"]

    run(scenario)


@pytest.mark.parametrize("keep_s", [0, 0.03])
def test_an_engine_leaves_when_its_time_is_over(tmp_path: Path, keep_s: float) -> None:
    async def scenario() -> None:
        host = Host({"a": 8})
        async with residence_of(tmp_path, host) as (residence, supervisors):
            await use(residence, "a", keep_s=60)
            assert 50 < residence.ends_in_s("a") <= 60
            await use(residence, "a", keep_s)
            while host.there:
                await asyncio.sleep(0.005)
            assert not residence.loaded("a")
            assert supervisors["a"].loads == 1
            await residence.release("a")
            await use(residence, "a", keep_s=float("inf"))
            assert residence.ends_in_s("a") == float("inf")
            await residence.release("a")
            assert not host.there

    run(scenario)


def test_a_later_request_with_more_patience_keeps_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = Host({"a": 8})
        async with residence_of(tmp_path, host) as (residence, supervisors):
            await use(residence, "a", 0.02)
            await use(residence, "a")
            await asyncio.sleep(0.1)
            assert (host.there, supervisors["a"].loads) == (["a"], 1)

    run(scenario)


def test_a_new_gateway_waits_until_what_the_last_one_held_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = Host({"a": 8, "b": 8})
        async with residence_of(tmp_path, host) as (residence, supervisors):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "a.lease"))
            writer.write(b"load\n")
            assert await reader.readline() == b"ready\n"
            asking = asyncio.ensure_future(use(residence, "b"))
            await asyncio.sleep(0.02)
            assert host.there == ["a"]
            writer.close()
            await asking
            assert (host.there, supervisors["b"].loads) == (["b"], 1)

    run(scenario)


def test_an_engine_that_fails_is_noticed_and_asked_for_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = Host({"a": 8, "b": 8})
        async with residence_of(tmp_path, host) as (residence, supervisors):
            await use(residence, "a")
            for writer in tuple(supervisors["a"].leases):
                writer.transport.abort()
            while residence.loaded("a"):
                await asyncio.sleep(0.005)
            await use(residence, "b")
            await use(residence, "a")
            assert supervisors["a"].loads == 2
            assert host.most <= ROOM

    run(scenario)


def test_a_refusal_or_nobody_there_is_a_503(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = Host({"a": 8})
        async with residence_of(tmp_path, host, answer=b"refused digest\n") as (residence, _):
            with pytest.raises(ApiError) as caught:
                await use(residence, "a")
            assert (caught.value.status, residence.loaded("a")) == (503, False)
            (tmp_path / "a.lease").unlink()
            with pytest.raises(ApiError):
                await use(residence, "a")
            assert not await residence.rests("a")

    run(scenario)


def test_a_client_that_leaves_while_its_engine_loads_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = Host({"a": 8, "b": 8})
        async with residence_of(tmp_path, host, answer=b"") as (residence, _):
            asking = asyncio.ensure_future(use(residence, "a"))
            await asyncio.sleep(0.001)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            while host.there:
                await asyncio.sleep(0.005)
            assert not residence.loaded("a")

    run(scenario)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_asked_in_whatever_order_the_plan_holds(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    names = ["a", "b", "c", "d"]

    async def scenario() -> None:
        host = Host({"a": 3, "b": 5, "c": 7, "d": 10})
        served: list[str] = []

        async def client() -> None:
            for _ in range(6):
                name = chance.choice(names)
                keep_s = chance.choice([None, 0, 0.001])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.choice([0.002, 5, 5])):
                        async with residence.using(name, keep_s):
                            assert name in host.there
                            await asyncio.sleep(chance.random() / 500)
                            assert name in host.there
                            served.append(name)

        async with residence_of(tmp_path, host) as (residence, _):
            await asyncio.gather(*(client() for _ in range(8)))
            assert host.most <= ROOM
            assert len(served) > 20

    run(scenario)
