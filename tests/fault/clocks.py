"""Clocks that are wrong: every command of the host's program in 1970 and 2100.

A command must end as it does with a right clock, and leave the same state. What reads the clock in
this process is replaced, in the fork that runs the command.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import typer

from edgekit.cli.app import build_app
from edgekit.cli.main import main
from edgekit.core.floor import COMPILED_IN
from edgekit.exit_codes import ExitCode
from edgekit.system import health
from edgekit.system.services import ForegroundServices
from tests.fault.points import Fired, Point
from tests.fault.snapshot import read_snapshot
from tests.fault.tracer import run_forked
from tests.fault.world import Scenario, World

RIGHT = COMPILED_IN + 86_400
CLOCKS = {"1970": 0, "2100": 4_102_444_800}
SAYS_SO = ("doctor",)
"""Is asked what is wrong with this host, and says that its clock is."""
CONNECTED = ("lock", "bundle")
"""Not in the program that hosts get."""

HOST = ("trust1", "install v1", "install v2")
LOG = "var/lib/edgekit/audit"


def commands_of(world: World) -> dict[str, list[str]]:
    """An example of every command, by its name."""
    root = ["--root", str(world.host)]
    log, out = ["--log", str(world.host / LOG)], world.base / "out"
    keys = str(world.base / "people")
    sets = [str(world.stick("v1")), str(world.stick("v2"))]
    alone = {name: [*name.split(), *root] for name in (
        "probe", "status", "rollback", "gc", "remove", "doctor", "scrub", "trust show",
        "config check", "config show", "config apply", "key list", "tls show", "serve")}
    return alone | {
        "verify": ["verify", sets[1], *root],
        "inspect": ["inspect", sets[1], *root],
        "plan": ["plan", sets[1], *root],
        "install": world.arguments("install v2"),
        "run": ["run", "m", "Hello", *root],
        "model list": ["model", "list", *root],
        "model show": ["model", "show", "m", *root],
        "model ps": ["model", "ps", *root],
        "model create": ["model", "create", "mine", "--file", str(world.modelfile()), *root],
        "model rm": ["model", "rm", "mine", *root],
        "pin": ["pin", world.oracle.release("v1").generation, *root],
        "diff": ["diff", *sets, *root],
        "keys init": ["keys", "init", f"{out}/dora", f"{out}/emil", "--root-out", f"{out}/r.json"],
        "keys new": ["keys", "new", f"{out}/finn"],
        "keys root": ["keys", "root", "--signer", f"{keys}/gil/gil.signer.json", "--out",
                      f"{out}/draft.json"],
        "keys sign": ["keys", "sign", f"{out}/none.json", "--key", f"file:{keys}/gil"],
        "keys rotate": ["keys", "rotate", "--root", str(world.base / "roots/1.root.json"), "--out",
                        f"{out}/2.root.json"],
        "trust import": world.arguments("trust2"),
        "audit verify": ["audit", "verify", *log],
        "audit prove": ["audit", "prove", "1", *log],
        "audit consistency": ["audit", "consistency", f"{out}/a", f"{out}/b", *log],
        "audit check-proof": ["audit", "check-proof", f"{out}/p", "--pubkey", f"{out}/k"],
        "audit tail": ["audit", "tail", *log],
        "audit search": ["audit", "search", *log],
        "audit keygen": ["audit", "keygen", f"{out}/auditor"],
        "audit text": ["audit", "text", "r1", *log],
        "audit erase": ["audit", "erase", "--request", "r1", "--reason", "a test", *root],
        "audit export": ["audit", "export", "--out", f"{out}/export", *root],
        "audit key": ["audit", "key", "--out", f"{out}/mac.key", *root],
        "audit rekey": ["audit", "rekey", "--reason", "a test", *root],
        "audit prune": ["audit", "prune", *root],
        "audit report": ["audit", "report", "--out", f"{out}/report.html", *root],
        "audit anchor": ["audit", "anchor", "--to", f"{out}/stick", *root],
        "audit stats": ["audit", "stats", *log],
        "media write": ["media", "write", sets[1], str(out), *root],
        "media check": ["media", "check", sets[1], *root],
        "key add": ["key", "add", "a test", *root],
        "key revoke": ["key", "revoke", "00000000", *root],
    }


def all_commands() -> Iterator[str]:
    """The name of every command of the host's program."""

    def below(command: Any, name: str) -> Iterator[str]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name
            return
        for word, one in inner.items():
            yield from below(one, f"{name} {word}".strip())

    return (name for name in below(typer.main.get_command(build_app()), "")
            if name not in CONNECTED)


def clock_points(world: World, _seed: int) -> list[Point]:
    """Every command at every clock; one without an example here is a point that does not fire."""
    names = sorted(set(all_commands()) | set(commands_of(world)))
    return [(name, clock) for name in names for clock in CLOCKS]


def fire_clock(world: World, point: Point) -> Fired:
    """Run the command with a right clock and with this one."""
    name, clock = point
    arguments = commands_of(world).get(name)
    if arguments is None:
        return Fired(False, "bad", ("no example of this command",))
    scenario = world.scenarios["trust update" if name == "install" else "roll back"]
    right, right_state, said = _run(world, scenario, arguments, RIGHT)
    wrong, wrong_state, also = _run(world, scenario, arguments, CLOCKS[clock])
    why = []
    if name in SAYS_SO and wrong == ExitCode.WARNINGS and "clock" in also:
        wrong = right
    if (right, right_state) != (wrong, wrong_state) or wrong == ExitCode.INTERNAL:
        why.append(f"right clock: {right} {right_state}: {said[-800:]}")
        why.append(f"this clock: {wrong} {wrong_state}: {also[-800:]}")
    return Fired(True, "new" if wrong_state.startswith("new") else "old", tuple(why))


def _run(
    world: World, scenario: Scenario, arguments: list[str], clock: int
) -> tuple[int, str, str]:
    """Exit status, the host's state, and what was said."""

    def work() -> int:
        began = time.monotonic()

        def now() -> float:
            return clock + time.monotonic() - began

        time.time = now  # type: ignore[assignment]
        time.time_ns = lambda: int(now() * 1e9)  # type: ignore[assignment]
        ForegroundServices.wait = lambda _self: None  # type: ignore[method-assign]
        health.CONNECT_TRIES = 1
        return int(main(arguments))

    world.put_back(scenario)
    world.make_people()
    ended = run_forked(work)
    verdict = world.oracle.judge(read_snapshot(world.host), scenario.old, scenario.new)
    return ended.status, " ".join((verdict.state, *verdict.why))[:300], ended.output
