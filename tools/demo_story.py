"""What `make demo` prints: one line per step, with the seconds it took on the left.

On a terminal the step under way is shown and then overwritten; elsewhere a step appears when it is
over, and one that takes long also when it begins.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass

_INDENT = 23
_SHORT_S = 1.0
"""Parts of a step that took less are not worth a line."""

DONE = re.compile(r"^(?P<what>.+): done in (?P<seconds>[\d.]+) s(?:, (?P<size>[\d.]+ [KMG]?i?B))?")


class DemoError(Exception):
    """Why the demo cannot go on, in words for the person who started it."""


@dataclass
class Step:
    """A step under way; `result` replaces its text when it is over."""

    result: str


class Story:
    """Prints steps; knows how long everything took."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._live = sys.stdout.isatty()
        self._under_way = ""
        self._width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """One line without a time, inside or between steps."""
        self.line("", text)

    def line(self, label: str, text: str, seconds: float | None = None) -> None:
        """One line, folded where the terminal ends."""
        time_text = "" if seconds is None else f"{seconds:.1f} s"
        print(self._erase() + textwrap.fill(
            text, self._width, initial_indent=f"{time_text:>9}  {label:<{_INDENT - 11}}",
            subsequent_indent=" " * _INDENT, break_long_words=False, break_on_hyphens=False,
        ))
        print(self._under_way, end="", flush=True)

    def plain(self, text: str = "") -> None:
        """A line as it is."""
        print(self._erase() + text, flush=True)

    @contextlib.contextmanager
    def step(self, label: str, text: str, *, slow: bool = False) -> Iterator[Step]:
        """A step: shown while it runs, printed with its time when it is over."""
        started = time.monotonic()
        self.under_way(label, text)
        if slow and not self._live:
            self.line(label, f"{text} ...")
        step = Step(text)
        try:
            yield step
        finally:
            self._under_way = ""
            print(self._erase(), end="", flush=True)
        self.line(label, step.result, time.monotonic() - started)

    def under_way(self, label: str, text: str) -> None:
        """Show what is being done until the next line is printed; nothing without a terminal."""
        if self._live:
            self._under_way = f"{'...':>9}  {label:<{_INDENT - 11}}{text}"[: self._width - 1]
            print(self._erase() + self._under_way, end="", flush=True)

    def over(self) -> None:
        """Nothing is under way any more."""
        self._under_way = ""

    def part(self, line: str) -> None:
        """A line of a program's own progress: shown when it took long, dropped otherwise."""
        found = DONE.match(line)
        if found and float(found["seconds"]) >= _SHORT_S:
            self.say(f"{found['what']}: {found['seconds']} s")

    def _erase(self) -> str:
        return "\r\x1b[K" if self._live else ""


def size_text(count: int) -> str:
    """Bytes for people."""
    return f"{count / (1 << 20):.1f} MiB"
