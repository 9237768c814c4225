"""Kill sweep, errno sweep, and kills during recovery: a fault at every call that changes a file."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edgekit.exit_codes import ExitCode
from tests.fault.oracle import Expected
from tests.fault.points import Fired, Point
from tests.fault.snapshot import copy_tree, read_snapshot
from tests.fault.tracer import Action, Call, Ended, Fail, Kill, Short
from tests.fault.world import Scenario, World

WRITES = ("write", "pwrite64")
SYNCS = ("fsync", "fdatasync")
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR")
LASTING = ("EIO", "ENOSPC", "EROFS")
"""And every later call fails, too: a disk that broke, filled up, or was remounted."""


def calls_of(world: World, scenario: Scenario) -> list[str]:
    """The names of the calls that the scenario's command makes, in order."""
    names: list[str] = []
    world.put_back(scenario)
    ended = world.run(scenario.command, decide=lambda call: names.append(call.name))
    assert ended.status == scenario.status, (scenario.name, ended)
    return names


def kill_points(world: World) -> Iterator[Point]:
    """Before every call, and in the middle of every write."""
    for scenario in world.scenarios.values():
        for number, name in enumerate(calls_of(world, scenario), 1):
            yield scenario.name, number, "before"
            if name in WRITES:
                yield scenario.name, number, "torn"


def errno_points(world: World) -> Iterator[Point]:
    """Every error at every call, once and from there on; and short writes."""
    for scenario in world.scenarios.values():
        for number, name in enumerate(calls_of(world, scenario), 1):
            for error in ERRORS:
                yield scenario.name, number, error
            for error in LASTING:
                yield scenario.name, number, f"{error} from here on"
            if name in WRITES:
                yield scenario.name, number, "short"


def is_torn(point: Point) -> bool:
    """Whether it is a kill in the middle of a write."""
    return point[2] == "torn"


def is_a_first_install(point: Point) -> bool:
    """Whether it is a kill of a command that installs a release the host did not have."""
    return point[0] in ("install", "upgrade")


def is_short(point: Point) -> bool:
    """Whether it is a write cut short."""
    return point[2] == "short"


def pair_points(world: World, count: int, seed: int) -> list[Point]:
    """A kill, and a kill of the run that recovers from it."""
    rng = random.Random(f"pairs {seed}")
    counts = {name: len(calls_of(world, s)) for name, s in world.scenarios.items()}
    names = rng.choices(list(counts), weights=list(counts.values()), k=count)
    return [(name, rng.randint(1, counts[name]), rng.random()) for name in names]


def fire_kill(world: World, point: Point) -> Fired:
    """Kill at the point; the host must be old or new, and a second run must finish the work."""
    scenario = world.scenarios[point[0]]
    world.put_back(scenario)
    ended = _killed(world, scenario, point[1], torn=point[2] == "torn")
    if ended.status != -signal.SIGKILL:
        return Fired(False, "bad", (f"ended with {ended.status}",))
    state, why = _judge(world, scenario)
    return Fired(True, state, why or converges(world, scenario))


def fire_pair(world: World, point: Point) -> Fired:
    """Kill, run again and kill that, then run again."""
    name, first, where = point
    scenario = world.scenarios[name]
    world.put_back(scenario)
    ended = _killed(world, scenario, first)
    if ended.status != -signal.SIGKILL:
        return Fired(False, "bad", (f"ended with {ended.status}",))
    if _toggles_now(world, scenario):  # the kill came too late: the next run is the way back
        scenario = replace(scenario, old=scenario.new, new=scenario.old)
    kept = world.base / "kept"
    copy_tree(world.host, kept)
    calls = world.run(scenario.command, decide=lambda _call: None).calls
    copy_tree(kept, world.host)
    ended = _killed(world, scenario, 1 + int(where * calls))
    if ended.status != -signal.SIGKILL:
        return Fired(False, "bad", (f"recovery ended with {ended.status}",))
    state, why = _judge(world, scenario)
    return Fired(True, state, why or converges(world, scenario))


def fire_errno(world: World, point: Point) -> Fired:
    """Let one call fail; never success on a lost write, never a file synced after a failed sync."""
    scenario = world.scenarios[point[0]]
    world.put_back(scenario)
    fault = _Fault(point[1], point[2])
    ended = world.run(scenario.command, decide=fault.decide)
    if not ended.fired:
        return Fired(False, "bad", (f"ended with {ended.status}",))
    state, why = _judge(world, scenario)
    why += tuple(fault.problems) + _status_problems(world, scenario, ended, fault)
    return Fired(True, state, why or converges(world, scenario))


class _Fault:
    """Fails the call with this number, and watches what is synced afterwards."""

    def __init__(self, number: int, kind: str) -> None:
        self._number = number
        self._kind, _, lasting = kind.partition(" ")
        self._lasting = bool(lasting)
        self._unsynced: dict[tuple[int, int], list[range]] = {}
        self._lost: dict[tuple[int, int], list[range]] = {}
        self.sync_failed = False
        self.problems: list[str] = []

    def decide(self, call: Call) -> Action:
        hit = call.number == self._number or (self._lasting and call.number > self._number)
        if call.name in SYNCS:
            self._watch_sync(call, hit=hit)
        elif call.name in WRITES and not hit:
            self._watch_write(call)
        if not hit:
            return None
        return Short() if self._kind == "short" else Fail(getattr(errno, self._kind))

    def _watch_write(self, call: Call) -> None:
        """What is written is not durable yet; what was lost and is written again is not lost."""
        descriptor, offset = call.descriptor(), call.arguments[3]
        status = descriptor.stat()
        if call.name == "write":
            offset = position_of(descriptor)
        written = range(offset, offset + call.arguments[2])
        key = (status.st_dev, status.st_ino)
        self._unsynced.setdefault(key, []).append(written)
        self._lost[key] = [lost for lost in self._lost.get(key, [])
                           if not (written.start <= lost.start and lost.stop <= written.stop)]

    def _watch_sync(self, call: Call, *, hit: bool) -> None:
        """A file whose fsync failed may not be synced before its bytes were written again."""
        status = call.descriptor().stat()
        if not stat.S_ISREG(status.st_mode):
            self.sync_failed |= hit and self._kind != "EINTR"
            return
        key = (status.st_dev, status.st_ino)
        if self._lost.get(key):
            self.problems.append(f"synced after a failed fsync, not rewritten: {call.paths[0]}")
        if not hit:
            self._unsynced.pop(key, None)
        elif self._kind != "EINTR":
            self.sync_failed = True
            self._lost[key] = self._lost.get(key, []) + self._unsynced.pop(key, [])


def position_of(descriptor: Path) -> int:
    """Where a write to an open file will go: to its end, or to its position."""
    text = (descriptor.parents[1] / "fdinfo" / descriptor.name).read_text("ascii")
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    append = int(fields["flags"], 8) & os.O_APPEND
    return descriptor.stat().st_size if append else int(fields["pos"])


def _status_problems(
    world: World, scenario: Scenario, ended: Ended, fault: _Fault
) -> tuple[str, ...]:
    """What the exit status may not say."""
    said = ended.output.strip()[-1500:]
    if ended.status not in set(ExitCode) or ended.status == ExitCode.INTERNAL:
        return (f"status {ended.status}: {said}",)
    if ended.status == 0:
        if fault.sync_failed:
            return (f"success although an fsync failed: {said}",)
        return _unfinished(world, scenario.end)
    return ()


def _killed(world: World, scenario: Scenario, number: int, *, torn: bool = False) -> Ended:
    def decide(call: Call) -> Action:
        return Kill(torn) if call.number == number else None

    return world.run(scenario.command, decide=decide)


def _judge(world: World, scenario: Scenario) -> tuple[str, tuple[str, ...]]:
    verdict = world.oracle.judge(read_snapshot(world.host), scenario.old, scenario.new)
    return verdict.state, verdict.why


def converges(
    world: World, scenario: Scenario, *, skip: tuple[str, ...] = ("run",)
) -> tuple[str, ...]:
    """Run the command again, without a fault: what is wrong after that."""
    if _toggles_now(world, scenario):
        return ()
    ended = world.run(scenario.command)
    if ended.status == scenario.again and not _unfinished(world, scenario.end, skip=skip):
        return ()
    if ended.status != scenario.status:
        return (f"run again: status {ended.status}: {ended.output.strip()[-1500:]}",)
    return tuple(f"run again: {text}" for text in _unfinished(world, scenario.end, skip=skip))


def _toggles_now(world: World, scenario: Scenario) -> bool:
    """Whether the work has ended, so that the same command again would lead back."""
    return (scenario.toggles and not _cut_off(world)
            and not _unfinished(world, scenario.end))


def _cut_off(world: World) -> bool:
    return (world.host / "var/lib/edgekit/installing.json").exists()


def _unfinished(
    world: World, end: Expected, *, skip: tuple[str, ...] = ("run",)
) -> tuple[str, ...]:
    tree = read_snapshot(world.host, skip=skip)
    return (*world.oracle.judge(tree, end, end).why, *world.oracle.unsettled(tree))
