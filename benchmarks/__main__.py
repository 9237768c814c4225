"""`python -m benchmarks [NAME ...]`; `--help` says what else."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import (
    bundle,
    measure,
    peak_memory,
    rebuild_unchanged,
    start_up,
    verify_and_copy,
    verify_only,
    write_volumes,
)
from benchmarks.measure import CACHES, render, run_child

BENCHMARKS = {
    "verify_and_copy": verify_and_copy.run,
    "verify_only": verify_only.run,
    "write_volumes": write_volumes.run,
    "bundle": bundle.run,
    "rebuild_unchanged": rebuild_unchanged.run,
    "peak_memory": peak_memory.run,
    "start_up": start_up.run,
}
WITHOUT_PAYLOAD = {"bundle", "peak_memory", "start_up"}
DEFAULT_BYTES = 1_000_000_000
COPIES = 6
"""The payload, two sets of it, two more or what peers make of it, and what a contender writes."""

WORK = Path(__file__).resolve().parents[1] / ".cache/benchmarks"


def main() -> None:
    """Run the named benchmarks, or all, and print their rows."""
    arguments = _arguments()
    names = arguments.names or list(BENCHMARKS)
    work = (arguments.keep or WORK).absolute()
    work.mkdir(parents=True, exist_ok=True)
    needed = 0 if any(work.iterdir()) or not set(names) - WITHOUT_PAYLOAD else arguments.bytes
    if shutil.disk_usage(work).free < COPIES * needed:
        raise SystemExit(f"benchmarks need {COPIES} times --bytes of free disk")
    tables = {}
    with ExitStack() as stack:
        folder = (
            work
            if arguments.keep
            else Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work)))
        )
        if set(names) - WITHOUT_PAYLOAD:
            run_child("payload", folder, str(arguments.bytes))
        for name in names:
            rows = BENCHMARKS[name](folder, arguments.bytes, arguments.rounds)
            tables[name] = [row.table() for row in rows]
            if not arguments.json:
                print(render(name, rows), flush=True)
    if arguments.json:
        print(json.dumps(tables, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--bytes", type=int, default=DEFAULT_BYTES, help="size of the payload")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="make the payload there, keep it, and use it again"
    )
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    parser.add_argument(
        "--caches", choices=CACHES, help="only these page caches, where both would be measured"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="WORD",
        help="the reference and contenders with one of these words in their names",
    )
    arguments = parser.parse_args()
    if arguments.only:
        measure.only_words = tuple(arguments.only)
    if arguments.caches:
        measure.only_caches = arguments.caches
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown or arguments.bytes < 1 or arguments.rounds < 1:
        parser.error(f"unknown name, or a number below 1 (names: {', '.join(BENCHMARKS)})")
    return arguments


if __name__ == "__main__":
    main()
