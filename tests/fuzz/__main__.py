"""`python -m tests.fuzz TARGET --inputs N --seed S`: feed a reader inputs that are nearly right.

Every input follows from target, seed and its own number alone, whatever the number of processes, so
`--only NUMBER` makes one again. An input that raises anything but an EdgekitError, breaks a promise
(AssertionError) or takes longer than SLOW_S is saved below --save and printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.errors import EdgekitError
from tests.fuzz.targets import TARGETS

CHUNK = 2000
SLOW_S = 10.0
MAX_SAVED = 20


@dataclass
class Tally:
    """What became of some inputs; `failures` are (number, what happened)."""

    fired: int = 0
    refused: int = 0
    accepted: int = 0
    slowest_s: float = 0.0
    failures: list[tuple[int, str]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Take in another tally."""
        self.fired += other.fired
        self.refused += other.refused
        self.accepted += other.accepted
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.failures += other.failures
        self.kinds += other.kinds


def make_input(target: str, seed: int, number: int) -> bytes:
    """One input, the same whenever it is asked for."""
    return TARGETS[target].input(random.Random(f"{target}:{seed}:{number}"))


def try_input(target: str, data: bytes, number: int, tally: Tally) -> None:
    """Feed one input and note what became of it."""
    started = time.perf_counter()
    tally.fired += 1
    try:
        TARGETS[target].check(data)
        tally.accepted += 1
    except EdgekitError as error:
        tally.refused += 1
        tally.kinds[type(error).__name__] += 1
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        tally.failures.append((number, f"{type(error).__name__}: {str(error)[:200]}"))
    seconds = time.perf_counter() - started
    tally.slowest_s = max(tally.slowest_s, seconds)
    if seconds > SLOW_S:
        tally.failures.append((number, f"took {seconds:.1f} s"))


def run_chunk(job: tuple[str, int, int, int]) -> Tally:
    """Inputs from `start` up to `end`."""
    target, seed, start, end = job
    warnings.simplefilter("ignore")
    tally = Tally()
    for number in range(start, end):
        try_input(target, make_input(target, seed, number), number, tally)
    return tally


def fuzz(target: str, inputs: int, seed: int, processes: int) -> Tally:
    """Run them all; chunks finish in any order and add up to the same."""
    jobs = [(target, seed, start, min(start + CHUNK, inputs)) for start in range(0, inputs, CHUNK)]
    total = Tally()
    with multiprocessing.Pool(processes) as pool:
        for tally in pool.imap_unordered(run_chunk, jobs):
            total.add(tally)
    return total


def save(target: str, seed: int, tally: Tally, folder: Path) -> None:
    """Keep the first inputs that failed, and say how to make each again."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, problem in sorted(tally.failures)[:MAX_SAVED]:
        path = folder / f"{target}-{seed}-{number}"
        path.write_bytes(make_input(target, seed, number))
        print(
            f"FAILED {problem}\n  again: python -m tests.fuzz {target} --seed {seed} "
            f"--only {number}\n  input: {path}"
        )


def main() -> int:
    """0 when nothing failed."""
    parser = argparse.ArgumentParser(description="fuzz the readers of what others wrote")
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, help="one input, by its number, without protection")
    parser.add_argument("--save", type=Path, default=Path(".cache/fuzz"))
    options = parser.parse_args()
    names = list(TARGETS) if options.target == "all" else [options.target]
    if options.only is not None:
        TARGETS[names[0]].check(make_input(names[0], options.seed, options.only))
        return 0
    failed = 0
    for name in names:
        started = time.monotonic()
        tally = fuzz(name, options.inputs, options.seed, options.processes)
        seconds = time.monotonic() - started
        print(
            f"{name}: planned {options.inputs}, fired {tally.fired}, refused {tally.refused}, "
            f"accepted {tally.accepted}, errors {len(tally.failures)}, seconds {seconds:.1f}, "
            f"slowest {tally.slowest_s:.3f}, seed {options.seed}",
            flush=True,
        )
        if tally.failures:
            save(name, options.seed, tally, options.save)
        failed += len(tally.failures) + (tally.fired != options.inputs)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
