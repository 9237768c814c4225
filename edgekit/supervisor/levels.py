"""Which build of llama.cpp's arithmetic an engine gets: the best that a child computed right with.

The plan lists the levels whose instructions the kernel shows. A processor can still lack one (what
virtualises it may hide the registers, a guest may have moved), and then the first instruction kills
the process; so a child computes first, at every start, in milliseconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.core.appliance import EngineSettings
from edgekit.core.cpu_levels import level_of
from edgekit.errors import EngineError, HostError
from edgekit.system.process import run

TRIAL_TIMEOUT_S = 60.0
VARIABLE = "GGML_BACKEND_PATH"
"""Where llama.cpp loads a backend from that does not lie beside the program."""


def level_environment(settings: EngineSettings) -> dict[str, str]:
    """What lets the engine load its level; nothing for an engine that has none to choose from.

    Raises EngineError when every level failed its trial.
    """
    failed = []
    for path in settings.levels:
        problem = _problem(settings.helper, path)
        name = level_of(Path(path).name)
        if problem is None:
            print(f"edgekit-supervisor: computes with level {name}", file=sys.stderr, flush=True)
            return {VARIABLE: path}
        failed.append(f"{name}: {problem}")
        print(f"edgekit-supervisor: WARNING: level {failed[-1]}", file=sys.stderr, flush=True)
    if failed:
        raise EngineError("no level of the engine computes right on this processor",
                          found="; ".join(failed)[:500])
    return {}


def _problem(helper: str, library: str) -> str | None:
    """Why a child could not compute with a level; None when its results are right."""
    try:
        done = run([helper, "try", library], timeout_s=TRIAL_TIMEOUT_S, env={}, check=False)
    except HostError as error:
        return error.message
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    if done.returncode:
        return done.stderr.decode(errors="replace").strip()[-200:] or f"status {done.returncode}"
    return None
