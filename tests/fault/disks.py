"""Real file systems on loop devices: the power goes in the middle of a command, or room does.

While a command is stopped before a call that changes a file, the file below the loop device holds
what the file system has handed to its disk so far, and nothing that is still in memory. A copy of
it is what a disk without a cache of its own holds after a power cut; it is mounted, so that the
file system recovers from its journal, and judged. Each stop takes some hundredths of a second, and
journals are committed every second: what nobody synced reaches the disk in an order of its own.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.system.files import free_bytes
from edgekit.system.process import run
from tests.fault.points import (
    Fired,
    Point,
    Tally,
    a_world,
    fire_all,
    sampled,
    scratch_base,
)
from tests.fault.snapshot import copy_contents, read_snapshot
from tests.fault.sweeps import calls_of, converges
from tests.fault.tracer import Call
from tests.fault.world import Scenario, World

SKIPPED = ("run", "lost+found")
SIZES = {"ext4": 48 << 20, "xfs": 320 << 20, "btrfs": 128 << 20}
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4"],
        "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f", "--mixed"]}
MAX_FREE, FREE_STEP = 1536 << 10, 16 << 10
OPTIONS = {"ext4": "loop,noatime,commit=1", "xfs": "loop,noatime,nouuid",
           "btrfs": "loop,noatime,commit=1"}


def why_not(kind: str) -> str:
    """Why this machine cannot make and mount such a file system; "" when it can."""
    base = scratch_base()
    try:
        (base / "empty").mkdir()
        make_image(kind, base / "i", base / "empty", base / "m")
    except EdgekitError as error:
        return f"{kind} on a loop device: {error.message}"
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return ""


def make_image(kind: str, image: Path, start: Path, folder: Path) -> None:
    """A file system in a sparse file, with a copy of the tree `start`; mounted on the way."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(SIZES[kind])
    run([*MAKE[kind], str(image)], timeout_s=60)
    with mounted(kind, image, folder):
        copy_contents(start, folder)


@contextmanager
def mounted(kind: str, image: Path, folder: Path) -> Iterator[None]:
    """The image's file system on `folder`."""
    folder.mkdir(exist_ok=True)
    run(["mount", "-t", kind, "-o", OPTIONS[kind], str(image), str(folder)], timeout_s=60)
    try:
        assert folder.is_mount(), "the fault would hit another file system"
        yield
    finally:
        run(["umount", str(folder)], timeout_s=60)


def cut_states(kind: str, world: World, name: str, moments: frozenset[int]) -> list[Fired]:
    """The state at each of the moments (numbers of calls; 0 is after the end), in their order."""
    scenario = world.scenarios[name]
    live, copies = world.base / "disk", []
    shutil.rmtree(world.host, ignore_errors=True)
    make_image(kind, live, world.start_of(scenario), world.host)

    def keep(number: int) -> None:
        if number in moments:
            copy = world.base / f"cut-{number}"
            run(["cp", "--sparse=always", str(live), str(copy)], timeout_s=60)
            copies.append((number, _judged(kind, copy, world, scenario, ended=number == 0)))
            copy.unlink()

    def decide(call: Call) -> None:
        keep(call.number)

    with mounted(kind, live, world.host):
        ended = world.run(scenario.command, decide=decide)
        keep(0)
    assert ended.status == scenario.status, (name, ended)
    live.unlink()
    found = dict(copies)
    return [found.get(moment, Fired(False, "bad", ("no such call",))) for moment in sorted(moments)]


def _judged(kind: str, copy: Path, world: World, scenario: Scenario, *, ended: bool) -> Fired:
    """What the disk holds, after the file system recovered what it can."""
    place = world.base / "m"
    with mounted(kind, copy, place):
        tree = read_snapshot(place, skip=SKIPPED)
    old, new = (scenario.end, scenario.end) if ended else (scenario.old, scenario.new)
    verdict = world.oracle.judge(tree, old, new)
    return Fired(True, verdict.state, verdict.why)


def full_points(_world: World, _seed: int) -> list[Point]:
    """Every file system, with so many bytes free, from none up to more than an upgrade needs."""
    return [(kind, free) for kind in SIZES for free in range(0, MAX_FREE, FREE_STEP)]


def fire_full(world: World, point: Point) -> Fired:
    """Upgrade on a disk that has this much room; then again, with room."""
    kind, free = point
    scenario = world.scenarios["upgrade"]
    live = world.base / "disk"
    shutil.rmtree(world.host, ignore_errors=True)
    make_image(kind, live, world.start_of(scenario), world.host)
    with mounted(kind, live, world.host):
        ballast = world.host / "lost+found" if kind == "ext4" else world.host / "run"
        ballast = ballast / "ballast"
        _fill(ballast, free)
        ended = world.run(scenario.command)
        tree = read_snapshot(world.host, skip=SKIPPED)
        verdict = world.oracle.judge(tree, scenario.old, scenario.new)
        why = verdict.why
        if ended.status not in (ExitCode.OK, ExitCode.DISK_FULL, ExitCode.AUDIT_UNAVAILABLE):
            why += (f"status {ended.status}: {ended.output[-1500:]}",)
        if (ended.status == ExitCode.OK) != (verdict.state == "new"):
            why += (f"status {ended.status}, but {verdict.state}",)
        ballast.unlink()
        run(["sync", "-f", str(world.host)], timeout_s=60)  # btrfs gives room back then
        why = why or converges(world, scenario, skip=SKIPPED)
    return Fired(True, verdict.state, why)


def _fill(ballast: Path, free: int) -> None:
    """Take all room but so many bytes, in smaller and smaller pieces."""
    ballast.parent.mkdir(exist_ok=True)
    with ballast.open("wb") as file:
        size, piece = 0, 1 << 20
        while piece >= 1024:
            room = free_bytes(ballast) - free
            try:
                if room < piece:
                    raise OSError("less room than that")
                os.posix_fallocate(file.fileno(), size, piece)
                size += piece
            except OSError:
                piece //= 2
        os.fsync(file.fileno())


def fire_cuts(world: World, job: Point) -> list[tuple[Point, Fired]]:
    """All states of one command on one file system."""
    kind, name, moments = job
    found = cut_states(kind, world, name, frozenset(moments))
    return [((kind, name, moment), one)
            for moment, one in zip(sorted(moments), found, strict=True)]


def run_cuts(
    kind: str, count: int | None, seed: int, processes: int, sabotage: str | None
) -> Tally:
    """The suite of one file system: every call of every command, or a sample of an upgrade's."""
    with a_world() as world:
        points = [(scenario.name, moment) for scenario in world.scenarios.values()
                  for moment in range(len(calls_of(world, scenario)) + 1)]
    pool = points if count is None else [p for p in points if p[0] in ("upgrade", "roll back")]
    chosen = sampled(pool, count, seed)
    if count is not None:  # what was done when the command had ended is always looked at
        chosen = [*{(name, 0) for name, _ in pool} | set(chosen)]
    names = dict.fromkeys(name for name, _ in chosen)
    jobs = [(kind, name, tuple(m for n, m in chosen if n == name)) for name in names]
    tally = fire_all(fire_cuts, jobs, processes=processes, sabotage=sabotage)
    tally.planned, tally.possible = len(chosen), len(points)
    return tally


def cuts_on(kind: str) -> functools.partial[Tally]:
    """The runner of one file system's suite."""
    return functools.partial(run_cuts, kind)
