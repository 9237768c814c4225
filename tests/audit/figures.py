"""What a fault suite of the audit log prints: planned, fired, bad; and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Figure:
    """One suite's line. `fired` below `planned` is a failure as much as anything bad."""

    suite: str
    seed: int = 0
    planned: int = 0
    fired: int = 0
    problems: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, name: str, problem: str) -> None:
        """One point that fired; `problem` is empty when the log did what it promises."""
        self.fired += 1
        if problem:
            self.problems.append(f"{name}: {problem}")

    @property
    def good(self) -> bool:
        """Whether everything planned happened and nothing was bad."""
        return self.planned == self.fired > 0 and not self.problems

    def line(self) -> str:
        """For a person."""
        counts = f"planned {self.planned}, fired {self.fired}, bad {len(self.problems)}"
        return f"{self.suite}: {counts}, seed {self.seed}" + (f"; {self.note}" if self.note else "")

    def table(self) -> dict[str, object]:
        """For a program."""
        return {
            "suite": self.suite,
            "seed": self.seed,
            "planned": self.planned,
            "fired": self.fired,
            "bad": len(self.problems),
            "problems": self.problems[:20],
            "note": self.note,
        }


def write_figures(path: Path, figures: list[Figure]) -> None:
    """All suites' figures as one JSON document."""
    table = {"schema": "edgekit.reliability/1", "suites": [figure.table() for figure in figures]}
    path.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
