"""Races: two to eight commands at once on one host. One after the other they act, or not at all."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Sequence

from edgekit.cli.main import main
from edgekit.exit_codes import ExitCode
from tests.fault.oracle import Expected
from tests.fault.points import Fired, Point
from tests.fault.snapshot import read_snapshot
from tests.fault.world import World

COMMANDS = ("install v1", "install v2", "install v2", "rollback", "gc", "trust2", "install junk",
            "status")
ALLOWED = {ExitCode.OK, ExitCode.BUSY, ExitCode.NOT_INSTALLED, ExitCode.ROLLBACK, ExitCode.ENGINE}
"""Done, not now, nothing to go back to, older than the floor, and junk that does not start."""


def race_points(_world: World, seed: int) -> list[Point]:
    """Five hundred races of every size."""
    return [(2 + number % 7, f"{seed}:{number}") for number in range(500)]


def fire_race(world: World, point: Point) -> Fired:
    """Let them run; the host must be in one of the states that some order of them leads to."""
    size, seed = point
    commands = random.Random(f"race {seed}").choices(COMMANDS, k=size)
    world.put_back(world.scenarios["upgrade"])
    statuses, said = run_together(world, commands)
    roots = frozenset({1, 2})
    old = Expected("v1", frozenset({"v1"}), frozenset({1, 2}), roots)
    new = Expected("v2", frozenset({"v1", "v2"}), frozenset({2}), roots)
    tree = read_snapshot(world.host)
    verdict = world.oracle.judge(tree, old, new)
    why = (*verdict.why, *world.oracle.unsettled(tree))
    told = list(zip(commands, statuses, strict=True))
    if not set(statuses) <= ALLOWED:
        why += (f"{told}: {said[-1500:]}",)
    if all(status == ExitCode.BUSY for status in statuses):
        why += (f"nobody got through: {told}",)
    if why:
        why += (str(told),)
    return Fired(True, verdict.state, why)


def run_together(world: World, commands: Sequence[str]) -> tuple[list[int], str]:
    """Exit statuses of the commands, started at the same moment, and everything they said."""
    gate_in, gate_out = os.pipe()
    with tempfile.TemporaryFile() as output:
        children = []
        for command in commands:
            arguments = world.arguments(command)
            child = os.fork()
            if child == 0:
                status = 99
                try:
                    os.close(gate_out)
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                    os.read(gate_in, 1)  # until the parent has started them all
                    status = int(main(arguments))
                finally:
                    os._exit(status)
            children.append(child)
        os.close(gate_in)
        os.close(gate_out)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        output.seek(0)
        return statuses, output.read().decode(errors="replace")
