"""Work in copies of this process, one for each job: what the interpreter's lock would put in turn.

The copies see everything that was there when they began, and hand back a value.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from edgekit.errors import EdgekitError


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def run_side_by_side(jobs: Sequence[Callable[[], Any]]) -> list[Any] | None:
    """The jobs' values, the first one's made by this process; None when one failed.

    Values must be picklable. A job fails by an EdgekitError or OSError, which is not passed on.
    """
    try:
        context = multiprocessing.get_context("fork")
    except ValueError:
        return None  # no such thing on this system
    children, answers = [], []
    for job in jobs[1:]:
        mine, its = context.Pipe(duplex=False)
        child = context.Process(target=_run, args=(job, its), daemon=True)
        try:
            child.start()
        except OSError:
            mine.close()
            break
        finally:
            its.close()
        children.append(child)
        answers.append(mine)
    values = []
    try:
        if len(children) == len(jobs) - 1:
            values = [_attempt(jobs[0]), *map(_receive, answers)]
    finally:
        for child, answer in zip(children, answers, strict=True):
            answer.close()
            child.terminate()
            child.join()
    return values if values and None not in values else None


def _run(job: Callable[[], Any], answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    value = _attempt(job)
    with contextlib.suppress(OSError):
        answer.send(value)


def _attempt(job: Callable[[], Any]) -> Any:
    try:
        return job()
    except (EdgekitError, OSError):
        return None


def _receive(answer: Connection) -> Any:
    try:
        return answer.recv()
    except (EOFError, OSError):
        return None
