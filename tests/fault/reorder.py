"""A model of a power cut: every operation that was not synced may be lost, whatever its neighbours.

The calls of a command are recorded once, with their bytes, and replayed in a model of files and
folders. At a cut, what POSIX promises is there and nothing more: a file's bytes up to its last
fsync, and of the names in a folder those up to the folder's last fsync. Of everything later any
subset may have come through: each write by itself (whole, or its first half), each change of a name
by itself, a rename as one step, changes of one name in their order. No file system loses all of
that, so what survives here does not depend on the kindness of one.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field, replace

from tests.fault.points import Fired, Point
from tests.fault.snapshot import Node, Snapshot, read_snapshot, write_snapshot
from tests.fault.sweeps import converges, position_of
from tests.fault.tracer import O_TRUNC, Call
from tests.fault.world import Scenario, World

CHANCES = (0.0, 1.0, 0.5, 0.5, 0.1, 0.9)
DRAWS = 10
"""Cuts after each step."""
RUN_AGAIN = 25
"""After one cut in so many the command is run again on what was left."""
UMASK = 0o022


@dataclass(slots=True)
class Step:
    """One recorded operation. `names` are paths below the root, `data` what was written at `at`."""

    kind: str
    names: tuple[str, ...]
    data: bytes = b""
    at: int = 0
    link: str = ""


@dataclass(slots=True)
class Item:
    """A file, link or folder of the model: what is durable of it, and what is not yet.

    `pending` of a file are writes and cuts; of a folder changes of names.
    """

    kind: str
    mode: int = 0
    data: bytes = b""
    link: str = ""
    names: dict[str, Item] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Change:
    """Something that may be lost: a write, a cut to a size, or names set (None: taken away).

    A rename sets names in one or two folders; it stands in the pending list of each, and both see
    the same outcome.
    """

    data: bytes = b""
    at: int = 0
    cut: int | None = None
    names: tuple[tuple[Item, str, Item | None], ...] = ()


class Model:
    """Files and folders below a root: as a running program sees them, and as the disk may."""

    def __init__(self, tree: Snapshot) -> None:
        self._durable = Item("dir", 0o755)
        self._live: dict[str, Item] = {"": self._durable}
        for name in sorted(tree):
            self._live[name] = _item(tree[name])
            folder, _, last = name.rpartition("/")
            self._live[folder].names[last] = self._live[name]

    # -------------------------------------------------------------------------------- recording

    def apply(self, step: Step) -> None:
        """Do a step; it is pending until it is synced."""
        getattr(self, f"_{step.kind}")(step)

    def _create(self, step: Step) -> None:
        name = step.names[0]
        if name not in self._live:
            self._name(name, Item("file", step.at & ~UMASK))
        elif step.link == "cut":
            self._live[name].pending.append(Change(cut=0))

    def _write(self, step: Step) -> None:
        item = self._live[step.names[0]]
        half = len(step.data) // 2
        for start, piece in ((0, step.data[:half]), (half, step.data[half:])):
            if piece:
                item.pending.append(Change(piece, step.at + start))

    def _cut(self, step: Step) -> None:
        self._live[step.names[0]].pending.append(Change(cut=step.at))

    def _mode(self, step: Step) -> None:
        self._live[step.names[0]].mode = step.at  # modes are not what this model is about

    def _sync(self, step: Step) -> None:
        item = self._live[step.names[0]]
        pending, item.pending = item.pending, []
        for change in pending:
            if change.names:
                for folder, name, target in change.names:
                    _set(folder.names, name, target)
                    if change in folder.pending:
                        folder.pending.remove(change)
            else:
                item.data = _written(item.data, change)

    def _mkdir(self, step: Step) -> None:
        self._name(step.names[0], Item("dir", step.at & ~UMASK))

    def _symlink(self, step: Step) -> None:
        self._name(step.names[0], Item("link", link=step.link))

    def _hardlink(self, step: Step) -> None:
        self._name(step.names[1], self._live[step.names[0]])

    def _unlink(self, step: Step) -> None:
        self._name(step.names[0], None)

    def _rename(self, step: Step) -> None:
        old, new = step.names
        item = self._live[old]
        change = Change(names=(
            (self._folder(old), old.rpartition("/")[2], None),
            (self._folder(new), new.rpartition("/")[2], item)))
        for folder in {id(f): f for f in (self._folder(old), self._folder(new))}.values():
            folder.pending.append(change)
        moved = {name: i for name, i in self._live.items()
                 if name == old or name.startswith(f"{old}/")}
        for name in moved:
            del self._live[name]
        self._live |= {new + name[len(old):]: i for name, i in moved.items()}

    def _name(self, name: str, item: Item | None) -> None:
        folder = self._folder(name)
        folder.pending.append(Change(names=((folder, name.rpartition("/")[2], item),)))
        _set(self._live, name, item)

    def _folder(self, name: str) -> Item:
        return self._live[name.rpartition("/")[0]]

    # ----------------------------------------------------------------------------------- cutting

    def cut(self, rng: random.Random) -> Snapshot:
        """What the disk may hold if the power goes now."""
        keep = _Keep(rng, rng.choice(CHANCES))
        kept: dict[int, bool] = {}
        tree: Snapshot = {}
        self._walk(self._durable, "", keep, kept, tree, frozenset())
        return tree

    def _walk(
        self, folder: Item, path: str, keep: _Keep, kept: dict[int, bool], tree: Snapshot,
        above: frozenset[int],
    ) -> None:
        names = dict(folder.names)
        for change in folder.pending:
            if kept.setdefault(id(change), keep()):
                for where, name, item in change.names:
                    if where is folder:
                        _set(names, name, item)
        for name, item in names.items():
            below = f"{path}/{name}" if path else name
            if item.kind == "link":
                tree[below] = Node(target=item.link)
            elif item.kind == "file":
                data = item.data
                for change in item.pending:
                    if kept.setdefault(id(change), keep()):
                        data = _written(data, change)
                tree[below] = Node(item.mode, data)
            elif id(item) not in above:
                tree[below] = Node(item.mode)
                self._walk(item, below, keep, kept, tree, above | {id(item)})


def _item(node: Node) -> Item:
    if node.target is not None:
        return Item("link", link=node.target)
    if node.data is None:
        return Item("dir", node.mode)
    return Item("file", node.mode, node.data)


class _Keep:
    """Whether the next pending change came through: always, never, or by chance."""

    def __init__(self, rng: random.Random, chance: float) -> None:
        self._rng, self._chance = rng, chance

    def __call__(self) -> bool:
        return self._rng.random() < self._chance


def _set(table: dict[str, Item], name: str, item: Item | None) -> None:
    if item is None:
        table.pop(name, None)
    else:
        table[name] = item


def _written(data: bytes, change: Change) -> bytes:
    if change.cut is not None:
        return data[: change.cut].ljust(change.cut, b"\0")
    end = change.at + len(change.data)
    return data[: change.at].ljust(change.at, b"\0") + change.data + data[end:]


# ---------------------------------------------------------------------------------------- recording


def record(world: World, scenario: Scenario) -> list[Step]:
    """The steps of a scenario's command, in the order in which the calls returned."""
    steps: list[Step] = []
    data: dict[int, tuple[bytes, int]] = {}
    root = f"{world.host}/"

    def decide(call: Call) -> None:
        if call.name == "pwrite64":
            data[call.number] = call.data(), call.arguments[3]
        elif call.name == "write":
            data[call.number] = call.data(), position_of(call.descriptor())

    def seen(call: Call, result: int) -> None:
        names = tuple(f"{path}/".removeprefix(root).rstrip("/") for path in call.paths)
        if result < 0 or names == call.paths or names[0].startswith("run"):
            return
        if call.name == "sendfile":
            end = position_of(call.descriptor())
            data[call.number] = call.descriptor().read_bytes()[end - result : end], end - result
        step = _step(call, names, *data.get(call.number, (b"", 0)))
        if step is not None:
            steps.append(replace(step, data=step.data[:result]))

    world.put_back(scenario)
    ended = world.run(scenario.command, decide=decide, seen=seen)
    assert ended.status == scenario.status, (scenario.name, ended)
    return steps


_KINDS = {
    "write": "write", "pwrite64": "write", "sendfile": "write", "fsync": "sync",
    "fdatasync": "sync", "mkdir": "mkdir", "mkdirat": "mkdir", "link": "hardlink",
    "linkat": "hardlink", "unlink": "unlink", "unlinkat": "unlink", "rmdir": "unlink",
    "rename": "rename", "renameat": "rename", "renameat2": "rename", "ftruncate": "cut",
    "fchmod": "mode", "chmod": "mode", "fchmodat": "mode", "symlink": "symlink",
    "symlinkat": "symlink", "open": "create", "openat": "create", "creat": "create",
}
_MODES = {"mkdir": 1, "mkdirat": 2, "fchmod": 1, "chmod": 1, "fchmodat": 2, "open": 2, "openat": 3,
          "creat": 1}
_UNSEEN = ("fchown", "chown", "lchown", "fchownat", "utimensat")


def _step(call: Call, names: tuple[str, ...], written: bytes, offset: int) -> Step | None:
    """What a call did; None when the model does not care. Raises KeyError for an unknown call."""
    if call.name in _UNSEEN:
        return None
    kind, at, link = _KINDS[call.name], offset, call.link
    if call.name in _MODES:
        at = call.arguments[_MODES[call.name]] & 0o7777
    if kind == "create":
        flags = O_TRUNC if call.name == "creat" else call.arguments[_MODES[call.name] - 1]
        link = "cut" if flags & O_TRUNC else ""
    if kind == "cut":
        at = call.arguments[1]
    return Step(kind, names[-1:] if kind == "symlink" else names, written, at, link)


# ------------------------------------------------------------------------------------------- suite


def cut_points(world: World, seed: int) -> list[Point]:
    """So many cuts after each step of each scenario; one after the last must find the new state."""
    return [(scenario.name, after, f"{seed}:{draw}")
            for scenario in world.scenarios.values()
            for after in range(len(record(world, scenario)) + 1)
            for draw in range(DRAWS)]


@dataclass
class _Replay:
    """A scenario's steps and the model after some of them; points come in their order."""

    name: str
    steps: list[Step]
    start: Snapshot
    done: int = 0
    model: Model = field(default_factory=lambda: Model({}))

    def at(self, after: int) -> Model:
        """The model after this many steps."""
        if after < self.done or self.done == 0:
            self.model, self.done = Model(self.start), 0
        for step in self.steps[self.done : after]:
            self.model.apply(step)
        self.done = after
        return self.model


_replays: dict[str, _Replay] = {}


def fire_cut(world: World, point: Point) -> Fired:
    """Judge what a cut leaves; now and then run the command again on it."""
    name, after, draw = point
    scenario = world.scenarios[name]
    if name not in _replays:
        world.put_back(scenario)
        start = read_snapshot(world.host)
        _replays[name] = _Replay(name, record(world, scenario), start)
    replay = _replays[name]
    rng = random.Random(f"{name}:{after}:{draw}")
    tree = replay.at(min(after, len(replay.steps))).cut(rng)
    ended = after >= len(replay.steps)
    verdict = world.oracle.judge(tree, scenario.end if ended else scenario.old,
                                 scenario.end if ended else scenario.new)
    why = verdict.why
    if not why and rng.randrange(RUN_AGAIN) == 0:
        shutil.rmtree(world.host)
        write_snapshot(tree, world.host)
        why = converges(world, scenario)
    return Fired(True, verdict.state, why)
