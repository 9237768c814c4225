"""Requests while engine, audit writer and gateway are killed at random: what clients were told is
what the log holds.

The daemons are real processes, started again as systemd would; the listener outlives them. Each
kill belongs to a request: it happens a little after that one began. One in five kills strikes two
at once, one in five strikes again while the process is starting. At the end, after everybody was
given the time to close what is open (tests/audit/kills_judge.py):

    K1  an answer that a client holds has one request record, and after it one response record with
        its status, and the digests in them are those of the very texts
    K2  a refusal by the engine's fault has its response record, too
    K3  of a client that got any text there is a request record
    K4  what the engine saw has a request record
    K5  every request record has one end: a response, or that it was orphaned
    K6  a response record with status 200 that no client holds belongs to a request that failed
    K7  the log verifies
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.audit.figures import Figure
from tests.audit.kills_auditd import GIVE_UP_S
from tests.audit.kills_judge import Judgement, judge
from tests.audit.kills_site import NAMES, SHAPES, Attempt, KillSite, ask, kill_site

BUGS = ("answers_first", "asks_first", "acknowledges_first")
CLIENTS = 4
FULL = (1000, 150)
CONTROL = (80, 10)
SAMPLE = (40, 4)
"""Requests, and kills among them; SAMPLE is that of every test run."""


@dataclass(frozen=True)
class Kill:
    """Who dies, how long after request `number` began, and how long into its next life again."""

    number: int
    names: tuple[str, ...]
    after_s: float
    again_s: float | None


def plan_kills(requests: int, kills: int, seed: int) -> list[Kill]:
    """The seed's kills, in the order of their requests."""
    dice = random.Random(seed)
    plan = []
    for number in sorted(dice.sample(range(1, requests), kills)):
        kind = dice.randrange(5)
        names = tuple(dice.sample(NAMES, 2 if kind == 0 else 1))
        again_s = dice.uniform(0, 0.6) if kind == 1 else None
        plan.append(Kill(number, names, dice.uniform(0, 0.04), again_s))
    return plan


@dataclass
class Load:
    """Clients that take one number after the other; a kill holds back who would only be refused."""

    site: KillSite
    requests: int
    kills: dict[int, Kill]
    attempts: list[Attempt] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _striking: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Until every number was asked and every kill has happened."""
        with ThreadPoolExecutor(1) as killer, ThreadPoolExecutor(CLIENTS) as clients:
            work = [clients.submit(self._client, killer) for _ in range(CLIENTS)]
            for future in work:
                future.result()

    def _client(self, killer: ThreadPoolExecutor) -> None:
        headers = {"Authorization": f"Bearer {self.site.token}"}
        with httpx.Client(base_url=self.site.url, headers=headers, timeout=60) as client:
            while (attempt := self._next()) is not None:
                kill = self.kills.get(attempt.number)
                if kill is not None:
                    killer.submit(self._strike, kill)
                ask(client, attempt)
                if not attempt.acknowledged:
                    with self._striking:
                        self.site.wait_ready()

    def _next(self) -> Attempt | None:
        with self._lock:
            number = len(self.attempts)
            if number == self.requests:
                return None
            self.attempts.append(Attempt(number, SHAPES[number % len(SHAPES)]))
            return self.attempts[-1]

    def _strike(self, kill: Kill) -> None:
        time.sleep(kill.after_s)
        with self._striking:
            for name in kill.names:
                daemon = self.site.daemons[name]
                good = (
                    daemon.kill_now()
                    if kill.again_s is None
                    else daemon.kill_young(kill.again_s)
                )
                self.fired[name] += good
            self.site.wait_ready()


def run_kills(folder: Path, requests: int, kills: int, seed: int, bug: str = "none") -> Figure:
    """The whole suite once; a figure whose points are the requests and the kills."""
    plan = plan_kills(requests, kills, seed)
    figure = Figure(f"audit kills{'' if bug == 'none' else f', control {bug}'}", seed)
    figure.planned = requests + sum(len(kill.names) for kill in plan)
    with kill_site(folder, bug) as site:
        load = Load(site, requests, {kill.number: kill for kill in plan})
        load.run()
        site.wait_ready()
        site.daemons["gateway"].end()
        time.sleep(GIVE_UP_S + 1.5)  # the writer closes what nobody will answer any more
        site.daemons["auditd"].end()
    found = judge(folder, load.attempts)
    figure.fired = len(load.attempts) + load.fired.total()
    figure.problems += found.problems
    figure.note = _note(load, found)
    return figure


def run_controls(folder: Path, seed: int) -> list[Figure]:
    """The same with each bug that it must find; a figure is bad when it found nothing."""
    figures = []
    for bug in BUGS:
        found = run_kills(folder / bug, *CONTROL, seed, bug)
        figures.append(control_figure(found))
    return figures


def control_figure(found: Figure) -> Figure:
    """What finding nothing, or something, means for a control."""
    figure = Figure(found.suite, found.seed, 1)
    figure.add("control", "" if found.problems else "the bug was not found")
    figure.note = f"{len(found.problems)} found"
    return figure


def _note(load: Load, found: Judgement) -> str:
    kills = ", ".join(f"{name} {load.fired[name]}" for name in NAMES)
    return (
        f"{len(load.attempts)} requests, kills: {kills}; answers held by clients "
        f"{found.acknowledged}, their response records {found.matched}; recorded but not received "
        f"{found.unreceived}, orphaned {found.orphaned}, records {found.records}"
    )
