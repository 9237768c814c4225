"""The medium: pulled out at every look at it, and read once and no more.

Reads of the set's folder, and everything else that asks for a name in it, fail from one call on, as
they do when a stick is pulled. Nothing on the medium may be read twice by a whole installation:
then it does not matter what a second read says.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from edgekit.exit_codes import ExitCode
from tests.fault.points import Fired, Point
from tests.fault.snapshot import read_snapshot
from tests.fault.sweeps import converges, position_of
from tests.fault.tracer import LOOKS, READS, Action, Call, Fail
from tests.fault.world import World

COMMANDS = ("install", "upgrade", "repair", "fall back", "first install of junk", "upgrade again",
            "break the glass")
LOST = ("EIO", "ENODEV", "ENOTCONN")
ONE_PASS = "one pass"


def stick_points(world: World, _seed: int) -> Iterator[Point]:
    """Every look of every command that reads a set, and that no byte is read twice."""
    for name in COMMANDS:
        yield name, 0, ONE_PASS
        for number in range(1, _looks(world, name) + 1):
            for error in LOST:
                yield name, number, error


def fire_stick(world: World, point: Point) -> Fired:
    """Pull the stick; the host must be as it was, and a run with the stick put in again ends."""
    name, number, error = point
    if error == ONE_PASS:
        twice = tuple(_twice(_reads(world, name)))
        return Fired(True, "new", twice)
    scenario = world.scenarios[name]

    def decide(call: Call) -> Action:
        return Fail(getattr(errno, error)) if call.number >= number else None

    world.put_back(scenario)
    ended = world.run(scenario.command, decide=decide, calls=LOOKS, below=_sticks(world))
    verdict = world.oracle.judge(read_snapshot(world.host), scenario.old, scenario.new)
    why = verdict.why
    lost = ended.status == ExitCode.OK and verdict.state != "new"  # else it was all read by then
    if ended.status not in set(ExitCode) or ended.status == ExitCode.INTERNAL or lost:
        why += (f"status {ended.status}: {ended.output[-1500:]}",)
    return Fired(ended.fired > 0, verdict.state, why or converges(world, scenario))


def _sticks(world: World) -> tuple[str, ...]:
    return tuple(str(world.stick(label)) for label in ("v1", "v2", "junk"))


def _looks(world: World, name: str) -> int:
    """How often a scenario's command asks the medium for anything."""
    scenario = world.scenarios[name]
    world.put_back(scenario)
    return world.run(scenario.command, decide=lambda _call: None, calls=LOOKS,
                     below=_sticks(world)).calls


def _reads(world: World, name: str) -> list[tuple[str, int, int]]:
    """(file, offset, bytes) of every read of the medium by a scenario's command."""
    scenario = world.scenarios[name]
    found: list[tuple[str, int, int]] = []
    offsets: dict[int, int] = {}

    def decide(call: Call) -> None:
        plain = call.name == "read"
        offsets[call.number] = position_of(call.descriptor()) if plain else call.arguments[3]

    def seen(call: Call, result: int) -> None:
        found.append((call.paths[0], offsets[call.number], result))

    world.put_back(scenario)
    ended = world.run(scenario.command, decide=decide, seen=seen, calls=READS,
                      below=_sticks(world))
    assert ended.status == scenario.status, (name, ended)
    return found


def _twice(reads: list[tuple[str, int, int]]) -> Iterator[str]:
    """Ranges of a file that were read before."""
    known: dict[str, list[range]] = {}
    for path, offset, length in reads:
        here = range(offset, offset + length)
        if any(max(r.start, here.start) < min(r.stop, here.stop) for r in known.get(path, [])):
            yield f"read twice: {path}, bytes {offset} to {offset + length - 1}"
        known.setdefault(path, []).append(here)
