"""`python -m tests.audit [SUITE...] [--full] [--seed N]`: fault suites of the audit log.

Without --full a sample. Each suite prints what was planned, what happened and what was bad; fewer
than planned is a failure, and so is a control (a bug put in on purpose) in which nothing was found.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.audit import crash, kills, mutations
from tests.audit.figures import Figure, write_figures

Suite = Callable[[Path, bool, int], list[Figure]]


def _mutations(folder: Path, full: bool, seed: int) -> list[Figure]:
    subject = mutations.make_subject(folder)
    return [mutations.run(subject, 5_500 if full else 500, seed)]


def _crash(folder: Path, full: bool, _seed: int) -> list[Figure]:
    return crash.run(folder, step=1 if full else 20)


def _kills(folder: Path, full: bool, seed: int) -> list[Figure]:
    found = kills.run_kills(folder / "none", *(kills.FULL if full else kills.SAMPLE), seed)
    return [found, *kills.run_controls(folder, seed)]


SUITES: dict[str, Suite] = {"mutations": _mutations, "crash": _crash, "kills": _kills}


def main() -> int:
    """Run the suites; 0 when every one is good."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit")
    parser.add_argument("suite", nargs="*", help=f"of: {', '.join(SUITES)}; all unless said")
    parser.add_argument("--full", action="store_true", help="everything instead of a sample")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    names = options.suite or list(SUITES)
    for name in names:
        if name not in SUITES:
            parser.error(f"no suite named {name}; there are: {', '.join(SUITES)}")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ek-audit-") as folder:
        for name in names:
            figures += SUITES[name](Path(folder) / name, options.full, options.seed)
    for figure in figures:
        print(figure.line())
        for problem in figure.problems[:10]:
            print(f"  {problem}")
    if options.out is not None:
        write_figures(options.out, figures)
    return 0 if all(figure.good for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
