"""Every benchmark runs, with little data; what it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ["verify_and_copy", "verify_only", "write_volumes", "rebuild_unchanged", "peak_memory",
         "start_up"]


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_prints_its_rows(name: str) -> None:
    done = benchmarks(name, "--bytes", "1000000", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)[name]
    assert len(rows) >= 2
    for row in rows:
        assert row["seconds"] > 0
        assert row["ratio"] > 0
        assert 0 < row["peak_mib"] <= 256
    assert rows[0]["ratio"] == 1


def test_rows_for_people_name_every_contender() -> None:
    done = benchmarks("rebuild_unchanged", "--bytes", "1000000", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    title, header, *rows = done.stdout.splitlines()
    assert title == "rebuild_unchanged"
    assert "peak MiB" in header
    assert [row.split("  ")[1] for row in rows] == ["hash all again", "edgekit, digest cache"]


def test_an_unknown_benchmark_is_refused() -> None:
    done = benchmarks("verify_nothing")
    assert done.returncode == 2
    assert "verify_and_copy" in done.stderr


def test_the_gateways_benchmark_gives_every_figure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateway", "--rounds=1", "--requests=2000", "--json"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert {row["contender"] for row in table["figures"]} == {"direct", "edgekit"}
    assert all(row["rate"] > 0 and row["of_direct"] > 0 for row in table["figures"])
    sizes = table["resident_mib_over_requests"]
    assert len(sizes) == 10
    assert sizes[-1] - sizes[1] < 8


def test_the_audit_logs_benchmark_gives_every_figure() -> None:
    argv = [sys.executable, "-m", "benchmarks.audit", "--rounds=1", "--seconds=0.1"]
    done = subprocess.run(
        [*argv, "--records=5000", "--json"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert {row["contender"] for row in table["append"]} == {"bare loop", "edgekit", "SQLite"}
    assert {row["group"] for row in table["append"]} == {1, 16, 64}
    assert table["verify"][0]["records"] >= 5000
    assert len(table["request"]) == 4
