"""`python -m tests.fault [SUITE...] [--full] [--seed N]`: make faults happen, judge what is left.

Without --full a sample chosen by the seed. Each suite prints one line: planned, fired, old, new,
bad, seed; fewer fired than planned is a failure, and so is a control (a bug put in on purpose) that
finds nothing. With --record a run of at least the suite's bar writes its row of
docs/reliability.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.fault.points import Tally
from tests.fault.suites import SUITES, Suite
from tools.generate_docs import ROOT, write
from tools.reliability import save_row

MAX_SHOWN = 20


def show(name: str, tally: Tally, seed: int, seconds: float) -> None:
    """The suite's line, and its first problems."""
    print(f"{name}: planned {tally.planned}, fired {tally.fired}, old {tally.old}, "
          f"new {tally.new}, bad {tally.bad}, seed {seed}, seconds {seconds:.0f}", flush=True)


def show_problems(tally: Tally) -> None:
    """The first points that went wrong."""
    for point, why in tally.problems[:MAX_SHOWN]:
        print(f"  {point}: {'; '.join(why)[:2000]}", flush=True)
    if len(tally.problems) > MAX_SHOWN:
        print(f"  and {len(tally.problems) - MAX_SHOWN} more", flush=True)


def run_suite(name: str, suite: Suite, options: argparse.Namespace) -> bool:
    """Run it and its controls; whether all was as it must be."""
    count = None if options.full else (options.points or suite.sample)
    started = time.monotonic()
    tally = suite.run(count, options.seed, options.processes, None)
    seconds = time.monotonic() - started
    show(name, tally, options.seed, seconds)
    show_problems(tally)
    keeps = options.record and not options.no_controls
    good = tally.good and (tally.planned >= suite.bar or not (options.full or keeps))
    controls = {}
    for bug, points in ({} if options.no_controls else suite.controls).items():
        found = suite.run(points, options.seed, options.processes, bug)
        controls[bug] = {"planned": found.planned, "bad": found.bad}
        print(f"  control {bug}: bad {found.bad} of {found.planned}", flush=True)
        good &= found.bad > 0
    if keeps:
        how = "--full" if options.full else f"--points {tally.planned}"
        save_row(name, {
            "what": suite.what, "bar": suite.bar, "possible": tally.possible,
            "planned": tally.planned, "fired": tally.fired,
            "old": tally.old, "new": tally.new, "bad": tally.bad, "seed": options.seed,
            "seconds": round(seconds), "controls": controls,
            "command": f"python -m tests.fault {name} {how} --seed {options.seed}",
        })
        write(ROOT)
    return good


def main() -> int:
    """0 when every suite was good."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", nargs="*", help=f"of: {', '.join(SUITES)}; all unless said")
    parser.add_argument("--full", action="store_true", help="every point instead of a sample")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int, help="size of the sample")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-controls", action="store_true", help="leave the planted bugs out")
    parser.add_argument("--record", action="store_true", help="write its row")
    options = parser.parse_args()
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # mkfs
    os.chdir(Path(__file__).resolve().parents[2])
    names = options.suite or list(SUITES)
    for name in names:
        if name not in SUITES:
            parser.error(f"no suite named {name}; there are: {', '.join(SUITES)}")
    failed = [name for name in names if not run_suite(name, SUITES[name], options)]
    if failed:
        print(f"FAILED: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
