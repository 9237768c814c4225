"""The engine's output on its way to the journal: read in passing, for what it says it allocated,
and without the texts of people once it serves them.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from edgekit.core.appliance import EngineSettings
from edgekit.core.engine_words import hide_texts
from edgekit.core.planning.engine_report import (
    MAX_LOG_LINE,
    Buffer,
    compare,
    device_problem,
    parse_buffers,
)
from edgekit.core.planning.values import CPU
from edgekit.errors import EngineError
from edgekit.system.engine_report import keep_report

MAX_BUFFERS = 256
LLAMA_CPP = "llama.cpp"


class Tap:
    """A pipe for an engine's output whose lines go on to this process's standard error."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        self._buffers: list[Buffer] = []
        self._hiding = False
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    def start(self) -> None:
        """Pass lines on until the engine's side is closed. Call after the engine was started."""
        os.close(self.write)
        self._thread.start()

    def buffers(self) -> tuple[Buffer, ...]:
        """What the engine has reported so far."""
        return tuple(self._buffers)

    def hide_texts(self) -> None:
        """From now on pass on known words alone: the engine serves (`core.engine_words`)."""
        self._hiding = True

    def _pass_on(self) -> None:
        with os.fdopen(self._read, "rb") as source:
            while line := source.readline(MAX_LOG_LINE):
                text = line.decode("utf-8", errors="replace")
                with suppress(OSError, ValueError):  # nobody listens: the engine goes on
                    sys.stderr.buffer.write(hide_texts(text).encode() if self._hiding else line)
                    sys.stderr.buffer.flush()
                if len(self._buffers) < MAX_BUFFERS:
                    self._buffers += parse_buffers([text])


def check_report(settings: EngineSettings, buffers: tuple[Buffer, ...]) -> list[str]:
    """Hold what the engine reports against the plan, and keep it beside its socket.

    Returns a warning for each large difference. Raises EngineError when the weights do not lie on
    the device that was planned, or when llama.cpp does not say that they do: it falls back in
    silence. vLLM fails instead.
    """
    if not buffers:
        if settings.kind == LLAMA_CPP and settings.placement != CPU:
            raise EngineError("the engine does not say where its weights lie",
                              needed=settings.placement)
        return []
    with suppress(OSError):
        keep_report(Path(settings.socket), buffers)
    problem = device_problem(settings.placement, buffers)
    if problem is not None:
        raise EngineError(problem, found=buffers[0].device, needed=settings.placement)
    return [
        f"{d.name}: planned {d.planned} {d.unit}, the engine took {d.found} ({d.percent:+.1f} %)"
        for d in compare(dict(settings.planned), buffers)
        if d.is_large
    ]
