"""The rows that the fault suites write, and the page made from them.

`docs/reliability.json` holds one row per suite: what was planned and what happened.
`python -m tests.fault SUITE --full --record` writes a row; nobody edits them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROWS = Path(__file__).resolve().parent.parent / "docs/reliability.json"

Row = dict[str, Any]

_HEAD = """\
<!-- written by tools/generate_docs.py from reliability.json, which the suites write -->
# Reliability: what happens when things fail

Nobody can log in to an isolated host. Whatever happens during a command that changes it, the host
afterwards serves the old release or the new one, and the same command run again finishes the work.
These suites try it. Each plans its points, makes every fault happen, and judges the files that are
left with an oracle that shares no writing code with edgekit.

* **planned, fired**: faults that were to happen, and that did. Fewer fired is a failure.
* **old, new**: what the host served afterwards. **bad**: neither, or what a rule forbids.
* **control**: the same suite over an edgekit with a bug put in on purpose, and how many of its
  points were bad. A control without a bad point is a failure: the suite would see nothing.

Every row was written by its command. **of** is how many points there are; where it is more than
planned, the seed chose. A smaller sample of each suite is part of `make test`.

"""


def load_rows(path: Path = ROWS) -> dict[str, Row]:
    """The rows by suite; empty before any was written."""
    if not path.exists():
        return {}
    rows: dict[str, Row] = json.loads(path.read_text("utf-8"))
    return rows


def save_row(name: str, row: Row, path: Path = ROWS) -> None:
    """Put a suite's row in the place of its last one."""
    rows = load_rows(path) | {name: row}
    path.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", "utf-8")


def problems(rows: dict[str, Row]) -> list[str]:
    """What a release may not ship with."""
    found = []
    for name, row in rows.items():
        if row["fired"] != row["planned"] or row["planned"] < row["bar"]:
            found.append(f"{name}: {row['fired']} fired of {row['planned']}, bar {row['bar']}")
        if row["bad"] or row["old"] + row["new"] != row["planned"]:
            found.append(f"{name}: {row['bad']} bad")
        found += [f"{name}: the control {control} saw nothing"
                  for control, bad in row["controls"].items() if not bad["bad"]]
    return found


def render_reliability(rows: dict[str, Row]) -> str:
    """The page."""
    lines = [_HEAD, "| suite | planned | of | fired | old | new | bad | seed | s | control |\n",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"]
    for name in sorted(rows):
        row = rows[name]
        controls = "; ".join(f"{control}: {found['bad']} of {found['planned']}"
                             for control, found in sorted(row["controls"].items()))
        lines.append(f"| {name} | {row['planned']:,} | {row['possible']:,} | "
                     f"{row['fired']:,} | {row['old']:,} | {row['new']:,} | {row['bad']} | "
                     f"{row['seed']} | {row['seconds']:,} | "
                     f"{controls or '-'} |\n")
    lines.append("\n")
    lines += [f"* **{name}**: {rows[name]['what']}\n\n  `{rows[name]['command']}`\n"
              for name in sorted(rows)]
    return "".join(lines)
