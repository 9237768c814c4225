"""Starting: `edgekit --help` of this checkout and of the one-file installer on a stick."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measure import Contender, Row, compare

DEMO_SETS = Path(__file__).resolve().parents[1] / ".cache/demo/sets"


def run(folder: Path, _total: int, rounds: int) -> list[Row]:
    """Rows for warm caches; the reference is the bare interpreter."""
    contenders = [
        Contender("python -c pass", (sys.executable, "-c", "pass")),
        Contender("edgekit --help, checkout", (sys.executable, "-m", "edgekit", "--help")),
    ]
    installers = sorted(DEMO_SETS.glob("*/edgekit"))
    if installers:
        contenders.append(Contender("edgekit --help, one file", (str(installers[0]), "--help")))
    else:
        print("no set from `make demo` here: one-file start-up skipped", file=sys.stderr)
    return compare(contenders, amount=0, rounds=rounds, folder=folder)
