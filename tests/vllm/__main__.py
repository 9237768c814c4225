"""`python -m tests.vllm`: the whole job, whether or not it passed before; its figures as JSON."""

from __future__ import annotations

import json

from tests.vllm.job import JOB, check, run_job, scratch
from tools.rootfs import default_cache_dir


def main() -> None:
    """Run, check, remember."""
    figures = JOB.run_again(default_cache_dir().parent, scratch, run_job, check)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
