"""vLLM on a sealed host, when something changed that it depends on; the planner's blocks always."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgekit.core.planning.vllm_memory import page_bytes
from tests.support.named_job import REPOSITORY
from tests.vllm.job import JOB, check, no_routes, run_job, scratch
from tests.vllm.shapes import CASES
from tools.rootfs import default_cache_dir
from tools.sealed_host import missing_requirements


@pytest.mark.timeout(2400)
def test_vllm_answers_right_on_a_sealed_host() -> None:
    cache = default_cache_dir().parent
    if missing := missing_requirements():
        pytest.skip("cannot run here: " + "; ".join(missing))
    if words := JOB.passed_before(cache):
        pytest.skip(words)
    if missing := missing_torch():
        pytest.skip("cannot run here: " + missing)
    JOB.run_again(cache, scratch, run_job, check)


def missing_torch() -> str:
    """Why pip cannot get the locked torch, or nothing: its build for processors is not on PyPI."""
    lock = json.loads((REPOSITORY / "bundles/demo-vllm.lock.json").read_text("utf-8"))
    (version,) = {
        wheel["version"]
        for house in lock["wheelhouses"]
        for wheel in house["wheels"]
        if wheel["name"] == "torch"
    }
    wanted = f"torch=={version}"
    argv = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", wanted]
    done = subprocess.run([sys.executable, "-m", "pip", *argv], capture_output=True, check=False)
    why = f"pip is configured for no index or folder with {wanted} (docs/reference/vllm.md)"
    return why if done.returncode else ""


def test_a_cache_is_cut_into_whole_blocks_of_every_layer() -> None:
    for case in CASES:
        block = page_bytes(case.shape, block=128) * case.shape.layers
        assert case.planned == case.bytes // block
        assert case.bytes - case.planned * block == case.extra % block


def test_an_attempt_to_reach_out_is_read_from_the_counters() -> None:
    assert no_routes("Ip: Forwarding OutNoRoutes\nIp: 1 3\nTcp: x\nTcp: 1\n") == 3
