"""Points of failure, fired by several processes, and what became of them."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fault.sabotage import SABOTAGES
from tests.fault.world import World

Point = tuple[Any, ...]
"""Names one fault for good: scenario, number of the call, kind."""

CHUNK = 8


@dataclass(frozen=True, slots=True)
class Fired:
    """One point: whether the fault happened, the state after it, and what is wrong."""

    fired: bool
    state: str
    why: tuple[str, ...] = ()


@dataclass
class Tally:
    """The line that a suite prints. `problems` are (point, what was wrong)."""

    planned: int = 0
    fired: int = 0
    old: int = 0
    new: int = 0
    bad: int = 0
    possible: int = 0
    """Points there are; more than `planned` in a sample."""
    problems: list[tuple[Point, tuple[str, ...]]] = field(default_factory=list)

    def add(self, point: Point, found: Fired) -> None:
        """Count one point."""
        self.fired += found.fired
        state = "bad" if found.why else found.state
        setattr(self, state, getattr(self, state) + 1)
        if found.why or not found.fired:
            self.problems.append((point, found.why or ("did not fire",)))

    def extend(self, other: Tally) -> None:
        """Add another tally's counts."""
        for name in ("planned", "fired", "old", "new", "bad"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems

    @property
    def good(self) -> bool:
        """Everything that was planned happened, and nothing was bad."""
        return self.bad == 0 and self.fired == self.planned > 0


Fire = Callable[[World, Point], Fired | list[tuple[Point, Fired]]]
"""Fires one point, or a job of several that it names itself."""

_world: World | None = None


def scratch_base() -> Path:
    """A new folder with a short path, in memory where there is a memory disk."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="ek-", dir=memory if os.access(memory, os.W_OK) else None))


@contextmanager
def a_world() -> Iterator[World]:
    """A world of this process's own, removed afterwards."""
    base = scratch_base()
    try:
        world = World(base)
        world.build()
        yield world
    finally:
        shutil.rmtree(base, ignore_errors=True)


def fire_all(
    fire: Fire, points: Sequence[Point], *, processes: int, sabotage: str | None = None
) -> Tally:
    """Fire every point; each process has a world of its own. `sabotage` breaks edgekit first."""
    total = Tally(planned=len(points))
    bases = [scratch_base() for _ in range(processes)]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    for base in bases:
        queue.put(str(base))
    try:
        with context.Pool(processes, _begin, (queue, sabotage)) as pool:
            jobs = ((fire, point) for point in points)
            for results in pool.imap_unordered(_fire, jobs, CHUNK if len(points) > CHUNK else 1):
                for point, found in results:
                    total.add(point, found)
    finally:
        for base in bases:
            shutil.rmtree(base, ignore_errors=True)
    return total


def _begin(queue: Any, sabotage: str | None) -> None:
    global _world  # noqa: PLW0603 - one world per process
    try:
        world = World(Path(queue.get()))
        world.build()
        if sabotage is not None:
            SABOTAGES[sabotage]()
    except Exception:  # noqa: BLE001 - a pool would start this process again for ever
        traceback.print_exc()
    else:
        _world = world


def _fire(job: tuple[Fire, Point]) -> list[tuple[Point, Fired]]:
    fire, point = job
    assert _world is not None, "this process could not make its world; see above"
    found = fire(_world, point)
    return found if isinstance(found, list) else [(point, found)]


def sampled(points: Sequence[Point], count: int | None, seed: int) -> list[Point]:
    """All points, or `count` of them, chosen by the seed, in their order."""
    if count is None or count >= len(points):
        return list(points)
    chosen = sorted(random.Random(seed).sample(range(len(points)), count))
    return [points[index] for index in chosen]
