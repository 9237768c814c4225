"""A host's life in a private root: install, upgrade, roll back, a bad release, gc, remove."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.appliance import MODEL, DemoSet, RunningAppliance, free_port

QUESTION = "Which command builds a bundle?"
ANSWER = "edgekit bundle builds a signed bundle set from a recipe."


@pytest.fixture
def host(demo_set: DemoSet, tmp_path: Path) -> RunningAppliance:
    running = RunningAppliance(demo_set, tmp_path / "h", free_port())
    running.install()
    return running


def serving(host: RunningAppliance) -> str:
    return (host.root / "opt/edgekit/current").readlink().name


def install(host: RunningAppliance, which: DemoSet) -> int:
    done = host.edgekit("install", str(which.folder), "--listen", f"127.0.0.1:{host.port}")
    return done.returncode


def sequence(host: RunningAppliance) -> int:
    return int(json.loads(host.edgekit("trust", "show", "--json").stdout)["floor"]["sequence"])


def blobs(host: RunningAppliance) -> int:
    store = host.root / "var/lib/edgekit/blobs"
    return sum(1 for path in store.rglob("*") if path.is_file())


def test_upgrade_then_roll_back_then_collect_then_remove(
    host: RunningAppliance, newer_set: DemoSet
) -> None:
    first = serving(host)
    assert install(host, newer_set) == 0
    second = serving(host)
    assert (first.startswith("demo-small-1.0.0"), second.startswith("demo-small-1.1.0")) == (
        True, True)
    assert sequence(host) == 2

    done = host.edgekit("rollback")
    assert done.returncode == 0, done.stderr
    assert serving(host) == first
    assert sequence(host) == 2, "going back does not lower the floor"
    assert install(host, host.demo_set) == 23, "an old set is not accepted again"

    assert host.edgekit("gc").returncode == 0
    done = host.edgekit("rollback")
    assert (done.returncode, serving(host)) == (0, second), "the two have changed places"
    assert host.edgekit("gc").returncode == 0
    host.serve()
    try:
        assert host.edgekit("run", MODEL, QUESTION).stdout.strip() == ANSWER
    finally:
        host.stop()

    done = host.edgekit("remove")
    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(host.root)) for path in host.root.rglob("*") if path.is_file()}
    assert {name.split("/")[0] for name in left} <= {"var", "run"}
    assert all("audit" in name for name in left if name.startswith("var"))
    assert host.edgekit("audit", "verify").returncode == 0
    assert host.edgekit("status").returncode == 42


def test_a_release_that_answers_junk_falls_back_by_itself(
    host: RunningAppliance, junk_set: DemoSet
) -> None:
    before, stored = serving(host), blobs(host)
    done = host.edgekit("install", str(junk_set.folder), "--listen", f"127.0.0.1:{host.port}")
    assert done.returncode in (50, 52), done.stderr
    assert "Atlantis" in done.stderr
    assert serving(host) == before
    assert sequence(host) == 1
    assert blobs(host) == stored
    host.serve()
    try:
        assert host.edgekit("run", MODEL, QUESTION).stdout.strip() == ANSWER
    finally:
        host.stop()


def test_without_an_earlier_release_rollback_says_so(host: RunningAppliance) -> None:
    done = host.edgekit("rollback")
    assert (done.returncode, "no earlier release" in done.stderr) == (42, True)


def test_gc_keeps_what_serves_and_what_served_before(
    host: RunningAppliance, newer_set: DemoSet
) -> None:
    assert install(host, newer_set) == 0
    stray = host.root / "var/lib/edgekit/blobs/sha384" / ("0" * 96)
    stray.write_bytes(b"nobody needs this")
    before = blobs(host)
    done = host.edgekit("gc")
    assert done.returncode == 0, done.stderr
    assert "1 blobs" in done.stdout
    assert blobs(host) == before - 1
    assert host.edgekit("rollback").returncode == 0


def test_a_scrub_finds_what_rotted_and_doctor_says_what_to_type(host: RunningAppliance) -> None:
    done = host.edgekit("scrub", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bad"] == []
    program = next((host.root / "opt/edgekit/current/engines").rglob("*.so*"))
    data = program.read_bytes()
    program.chmod(0o644)
    program.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = host.edgekit("scrub")
    assert (done.returncode, program.name in done.stderr) == (22, True), done.stderr
    done = host.edgekit("doctor", "--json")
    assert done.returncode == 3
    found = {one["problem"]: one["command"] for one in json.loads(done.stdout)["findings"]}
    assert found["installed files are not what was signed"] == "edgekit install SET"


def test_a_pinned_release_outlives_gc(host: RunningAppliance, newer_set: DemoSet) -> None:
    first = serving(host)
    assert host.edgekit("pin", "no-such-release").returncode == 42
    assert host.edgekit("pin", first).returncode == 0
    assert install(host, newer_set) == 0
    second = serving(host)
    assert host.edgekit("rollback", second).returncode == 42, "it serves already"
    assert host.edgekit("gc").returncode == 0
    assert host.edgekit("rollback", first).returncode == 0
    status = json.loads(host.edgekit("status", "--json").stdout)
    assert (status["generation"], status["previous"], status["pinned"]) == (first, second, [first])
    assert status["trust"]["signers"] == ["developer"]
    assert host.edgekit("pin", first, "--remove").stdout.strip() == "pinned: none"
