"""The fair queue in front of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from edgekit.gateway.admission import Admission
from edgekit.gateway.problems import ApiError


async def hold(admission: Admission, key: str, order: list[str], turn: asyncio.Event) -> None:
    async with admission.slot(key):
        order.append(key)
        await turn.wait()


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scene()

    asyncio.run(bounded())


def test_keys_take_turns_whoever_asked_more() -> None:
    async def scene() -> None:
        admission, order, turn = Admission(1, queue=20), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(admission, "greedy", order, turn)) for _ in range(6)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(hold(admission, "modest", order, turn)) for _ in range(2)]
        await asyncio.sleep(0)
        turn.set()
        await asyncio.gather(*tasks)
        assert order[:5] == ["greedy", "greedy", "modest", "greedy", "modest"]
        assert (admission.running, admission.waiting) == (0, 0)

    run(scene)


def test_full_queue_takes_its_newest_place_from_the_greediest_key() -> None:
    async def scene() -> None:
        admission, order, turn = Admission(1, queue=3), [], asyncio.Event()
        greedy = [asyncio.create_task(hold(admission, "greedy", order, turn)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await hold(admission, "greedy", order, turn)
        assert refused.value.status == 503
        assert refused.value.retry_after is not None
        modest = asyncio.create_task(hold(admission, "modest", order, turn))
        await asyncio.sleep(0)
        turn.set()
        results = await asyncio.gather(*greedy, modest, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 3 + [ApiError, type(None)]
        assert admission.running == 0

    run(scene)


def test_waiting_client_that_leaves_gives_its_place_up() -> None:
    async def scene() -> None:
        admission, order, turn = Admission(1), [], asyncio.Event()
        first = asyncio.create_task(hold(admission, "a", order, turn))
        await asyncio.sleep(0)
        second = asyncio.create_task(hold(admission, "b", order, turn))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert admission.waiting == 0
        turn.set()
        await first
        assert admission.running == 0

    run(scene)


def test_slot_that_comes_to_a_client_that_just_left_is_not_lost() -> None:
    async def scene() -> None:
        admission, order, turn = Admission(1), [], asyncio.Event()
        first = asyncio.create_task(hold(admission, "a", order, turn))
        await asyncio.sleep(0)
        second = asyncio.create_task(hold(admission, "b", order, turn))
        await asyncio.sleep(0)
        turn.set()
        await first  # the slot is handed over in this very turn of the loop
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        async with admission.slot("c"):
            assert admission.running == 1
        assert admission.running == 0

    run(scene)
