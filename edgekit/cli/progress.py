"""Progress on stderr: bars with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.cli.report import format_bytes
from edgekit.core.events import Advanced, Event, Finished, Listener, Started, Warned

PLAIN_INTERVAL_S = 5.0


@contextmanager
def progress_listener() -> Iterator[Listener]:
    """A listener that fits this process's stderr, for the length of the block."""
    if not sys.stderr.isatty():
        yield _PlainPrinter()
        return
    # rich is loaded only when there is a terminal to draw on
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def listen(event: Event) -> None:
            if isinstance(event, Started):
                tasks[event.task] = bars.add_task(event.task, total=event.total)
            elif isinstance(event, Advanced) and event.task in tasks:
                bars.advance(tasks[event.task], event.amount)
            elif isinstance(event, Finished) and event.task in tasks:
                task = bars.tasks[bars.task_ids.index(tasks[event.task])]
                bars.update(
                    tasks[event.task], total=task.completed or 1, completed=task.completed or 1
                )
            elif isinstance(event, Warned):
                console.print(f"warning: {event.text}", highlight=False)

        yield listen


class _PlainPrinter:
    """One line when a task starts taking time, one when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[float, int | None, int, float]] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Warned):
                _say(f"warning: {event.text}")
            elif isinstance(event, Started):
                now = time.monotonic()
                self._tasks[event.task] = (now, event.total, 0, now)
            elif isinstance(event, Advanced):
                self._advance(event)
            else:
                self._finish(event)

    def _advance(self, event: Advanced) -> None:
        now = time.monotonic()
        started, total, done, said = self._tasks.get(event.task, (now, None, 0, now))
        done += event.amount
        if now - said >= PLAIN_INTERVAL_S and total:
            rate = done / max(now - started, 0.001)
            left = (total - done) / max(rate, 1)
            _say(
                f"{event.task}: {100 * done // total} %, {format_bytes(int(rate))}/s, "
                f"{left:.0f} s left"
            )
            said = now
        self._tasks[event.task] = (started, total, done, said)

    def _finish(self, event: Finished) -> None:
        started, _, done, _ = self._tasks.pop(event.task, (time.monotonic(), None, 0, 0.0))
        seconds = time.monotonic() - started
        size = f", {format_bytes(done)}" if done else ""
        note = f" ({event.note})" if event.note and not event.note.endswith(" s") else ""
        _say(f"{event.task}: done in {seconds:.1f} s{size}{note}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
