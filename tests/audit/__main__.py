"""`python -m tests.audit`: every fault suite of the audit log, in full, and their figures."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.audit import crash, mutations
from tests.audit.figures import Figure, write_figures


def main() -> int:
    """Run the suites; 0 when every one is good."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit")
    parser.add_argument("--mutations", type=int, default=5_500, help="how many, each judged twice")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("mutations", "crash"))
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ek-audit-") as folder:
        if options.only != "crash":
            subject = mutations.make_subject(Path(folder) / "mutations")
            figures.append(mutations.run(subject, options.mutations, options.seed))
        if options.only != "mutations":
            figures += crash.run(Path(folder) / "crash", step=1)
    for figure in figures:
        print(figure.line())
        for problem in figure.problems[:10]:
            print(f"  {problem}")
    if options.out is not None:
        write_figures(options.out, figures)
    return 0 if all(figure.good for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
