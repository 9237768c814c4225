"""An appliance on a machine with its own kernel, when something changed that it depends on."""

from __future__ import annotations

import pytest

from tests.machine.job import JOB, check, run_job, scratch
from tools import sealed_host, virtual_machine
from tools.rootfs import default_cache_dir


@pytest.mark.timeout(2400)
def test_clock_memory_seals_and_sticks_of_a_whole_machine() -> None:
    cache = default_cache_dir().parent
    if missing := [*sealed_host.missing_requirements(), *virtual_machine.missing_requirements()]:
        pytest.skip("cannot run here: " + "; ".join(missing))
    if words := JOB.passed_before(cache):
        pytest.skip(words)
    print(JOB.run_again(cache, scratch, run_job, check))
