"""The list of suites: what each does, how many points it must have, and the bugs it must see."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.fault import clocks, disks, races, reorder, sticks, sweeps
from tests.fault.points import Fire, Point, Tally, a_world, fire_all, sampled
from tests.fault.world import World


class Runner(Protocol):
    """Runs a suite: `count` points (None for all), with a bug put in when one is named."""

    def __call__(
        self, count: int | None, seed: int, processes: int, sabotage: str | None
    ) -> Tally: ...


@dataclass(frozen=True)
class Suite:
    """`bar` is how many points the full form must have, `sample` how many the short one has.

    `controls` are bugs of `sabotage` by the number of points they are given; `why_not` says why
    this machine cannot run it, or "".
    """

    what: str
    bar: int
    sample: int
    run: Runner
    controls: dict[str, int]
    why_not: Callable[[], str] = str


def _over_points(
    plan: Callable[[World, int], list[Point]],
    fire: Fire,
    aims: dict[str, Callable[[Point], bool]] | None = None,
) -> Runner:
    """A suite whose points all start from a scenario of the world.

    `aims` names the points, by bug, at which that bug can matter: its control is given no others.
    """

    def run(count: int | None, seed: int, processes: int, sabotage: str | None) -> Tally:
        with a_world() as world:
            points = plan(world, seed)
        if aim := (aims or {}).get(sabotage or ""):
            points = list(filter(aim, points))
        chosen = sampled(points, count, seed)
        tally = fire_all(fire, chosen, processes=processes, sabotage=sabotage)
        tally.possible = len(points)
        return tally

    return run


SUITES: dict[str, Suite] = {
    "kill": Suite(
        "SIGKILL before every call that changes a file, and in the middle of every write, of each "
        "command that changes a host; then the same command again",
        2000, 300, _over_points(lambda world, _seed: list(sweeps.kill_points(world)),
                                sweeps.fire_kill, {"write_in_place": sweeps.is_torn,
                                                   "switch_first": sweeps.is_a_first_install}),
        {"write_in_place": 60, "switch_first": 40}),
    "kill-recovery": Suite(
        "SIGKILL at a call, SIGKILL at a call of the run that recovers; then the command again",
        500, 40, _over_points(lambda world, seed: sweeps.pair_points(world, 500, seed),
                              sweeps.fire_pair),
        {"switch_first": 60}),
    "errno": Suite(
        "EIO, ENOSPC, EDQUOT, EROFS and EINTR at every call that changes a file, EIO, ENOSPC and "
        "EROFS also from there on, and every write cut short: no success on a lost write, no file "
        "synced again after a failed fsync, no unexpected error; then the command again",
        3000, 250, _over_points(lambda world, _seed: list(sweeps.errno_points(world)),
                                sweeps.fire_errno, {"one_write": sweeps.is_short}),
        {"swallow_errors": 100, "retry_fsync": 100, "one_write": 30}),
    "reorder": Suite(
        "a power cut after every step, in a model that loses any subset of what was not synced; "
        "after one in 25 the command is run again",
        20000, 1500, _over_points(reorder.cut_points, reorder.fire_cut),
        {"no_fsync": 100, "no_folder_sync": 200}),
    "races": Suite(
        "two to eight commands at once on one host: install of the older, the newer and a broken "
        "release, rollback, gc, trust import, status",
        500, 40, _over_points(races.race_points, races.fire_race), {"no_lock": 20}),
    "clocks": Suite(
        "every command of the host's program, with a clock in 1970 and in 2100, ends as with a "
        "right one and leaves the same state",
        70, 200, _over_points(clocks.clock_points, clocks.fire_clock), {"clock_decides": 200}),
    "stick": Suite(
        "the stick is pulled at every read, open, look at a name or listing of every command that "
        "reads a set (EIO, ENODEV, ENOTCONN from there on), and no byte of it is read twice",
        1000, 40, _over_points(lambda world, seed: list(sticks.stick_points(world, seed)),
                              sticks.fire_stick), {"lost_is_success": 30}),
    "disk-full": Suite(
        "an upgrade on ext4, xfs and btrfs with 0, 16, 32, ... KiB free: done and new, or refused "
        "and old; then again with room",
        250, 9, _over_points(disks.full_points, disks.fire_full), {"full_is_success": 12},
        lambda: " ".join(filter(None, map(disks.why_not, disks.SIZES)))),
    **{f"power-cut-{kind}": Suite(
        f"{kind} on a loop device: what its disk holds before every call that changes a file and "
        "after the end, recovered by a mount",
        2000, 16, disks.cuts_on(kind), {"no_fsync": 8},
        functools.partial(disks.why_not, kind))
       for kind in ("ext4", "xfs", "btrfs")},
}
