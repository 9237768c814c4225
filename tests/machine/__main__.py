"""`python -m tests.machine`: the whole job, even if it passed before; its figures as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tests.machine.job import JOB, check, run_job, scratch
from tools.rootfs import default_cache_dir


def main() -> None:
    """Run, check, remember."""
    with scratch() as folder:
        outcome = run_job(Path(folder))
        check(outcome)
    JOB.has_passed(default_cache_dir().parent, outcome.figures)
    print(json.dumps(outcome.figures, indent=1))


if __name__ == "__main__":
    main()
