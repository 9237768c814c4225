"""The engine's pulse: answers feed the watchdog, so does work, an open socket alone does not."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.core.appliance import CanaryCheck, EngineSettings
from edgekit.supervisor.pulse import Pulse
from tests.support.fake_engine import FakeEngine


def settings(path: Path) -> EngineSettings:
    return EngineSettings("main", "fake", ("x",), (), str(path), 1, 512, 20, (),
                          (CanaryCheck("demo", "hello", "edge"),))


@contextmanager
def engine(path: Path, delay_s: float = 0.0) -> Iterator[FakeEngine]:
    """A fake engine on a loop of its own."""
    loop, fake = asyncio.new_event_loop(), FakeEngine(str(path), delay_s=delay_s)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fake.start(), loop).result(5)
        yield fake
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def test_answers_are_beats_and_cost_one_token_each(tmp_path: Path) -> None:
    with engine(tmp_path / "s") as fake:
        pulse = Pulse(settings(tmp_path / "s"), lambda: 0.0)
        assert [pulse.beats() for _ in range(3)] == [True, True, True]
        assert [request["max_tokens"] for request in fake.requests] == [1, 1, 1]


def test_an_engine_that_computes_is_given_time_and_is_asked_once(tmp_path: Path) -> None:
    used = itertools.count(0.0, 100.0)
    with engine(tmp_path / "s", delay_s=60) as fake:
        pulse = Pulse(settings(tmp_path / "s"), lambda: next(used))
        assert [pulse.beats() for _ in range(3)] == [True, True, True]
        assert len(fake.requests) == 1


def test_an_engine_that_neither_answers_nor_computes_has_no_pulse(tmp_path: Path) -> None:
    with engine(tmp_path / "s", delay_s=60):
        pulse = Pulse(settings(tmp_path / "s"), lambda: 7.0)
        assert [pulse.beats() for _ in range(2)] == [False, False]


def test_an_open_socket_is_no_pulse(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(8)
        pulse = Pulse(settings(tmp_path / "s"), lambda: 0.0)
        assert [pulse.beats() for _ in range(2)] == [False, False]
