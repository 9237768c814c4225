"""What an installation leaves behind when it is cut off, and how the next run finishes the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edgekit.core.audit_record import OWN_TYPES
from tests.support.appliance import MODEL, DemoSet, RunningAppliance, free_port

QUESTION = "Which command builds a bundle?"
ANSWER = "edgekit bundle builds a signed bundle set from a recipe."


@pytest.fixture
def host(demo_set: DemoSet, tmp_path: Path) -> RunningAppliance:
    running = RunningAppliance(demo_set, tmp_path / "h", free_port())
    running.trust()
    return running


def kill_install_when(host: RunningAppliance, path: Path) -> None:
    """Start an installation and SIGKILL it, daemons included, as soon as `path` exists."""
    argv = [host.demo_set.program, "install", str(host.demo_set.folder), "--root", str(host.root),
            "--listen", f"127.0.0.1:{host.port}"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          start_new_session=True) as process:
        while process.poll() is None and not os.path.lexists(path):
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, "the installation ended before it was cut off"
    time.sleep(0.5)  # the daemons die with their parent


def floor(host: RunningAppliance) -> int:
    done = host.edgekit("trust", "show", "--json")
    return int(json.loads(done.stdout)["floor"]["sequence"])


def audit_types(host: RunningAppliance) -> list[str]:
    done = host.edgekit("audit", "tail", "-n", "100")
    types = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    return [kind for kind in types if kind not in OWN_TYPES]


@pytest.mark.parametrize(
    "moment",
    ["var/lib/edgekit/staging", "opt/edgekit/generations", "opt/edgekit/current"],
)
def test_a_killed_installation_is_finished_by_the_next_run(
    host: RunningAppliance, moment: str
) -> None:
    kill_install_when(host, host.root / moment)
    assert floor(host) == 0, "trust advances only after the commit (I6)"
    host.install()
    assert host.api_key.startswith("ek_"), "a key nobody was shown is made anew"
    assert floor(host) == 1
    types = audit_types(host)
    assert types.count("install_begin") == types.count("install_commit") + types.count(
        "install_abort"
    ), types
    assert host.edgekit("audit", "verify").returncode == 0
    host.serve()
    try:
        assert host.edgekit("run", MODEL, QUESTION).stdout.strip() == ANSWER
    finally:
        host.stop()


def test_weights_that_rotted_are_replaced_by_installing_again(host: RunningAppliance) -> None:
    host.install()
    settings = next((host.root / "opt/edgekit/generations").glob("*/appliance.json"))
    weights = Path(json.loads(settings.read_text("utf-8"))["engines"][0]["weights"][0]["path"])
    good = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(good[:100_000] + bytes([good[100_000] ^ 1]) + good[100_001:])
    serving = subprocess.run(
        [host.demo_set.program, "serve", "--root", str(host.root)], capture_output=True, text=True,
        check=False, timeout=120,
    )
    assert serving.returncode == 50, serving.stderr
    assert "status 22" in serving.stderr, "the digest error's own exit code"
    done = host.edgekit("install", str(host.demo_set.folder), "--listen",
                        f"127.0.0.1:{host.port}")
    assert done.returncode == 0, done.stderr
    assert "installed" in done.stdout
    assert weights.read_bytes() == good


def test_a_fingerprint_does_not_set_the_hosts_own_trust_aside(host: RunningAppliance) -> None:
    host.install()
    other = host.edgekit("install", str(host.demo_set.folder), "--fingerprint", "ab" * 48,
                         "--insecure-developer-root")
    assert other.returncode == 24, other.stderr
    same = host.edgekit("install", str(host.demo_set.folder), "--fingerprint",
                        host.demo_set.fingerprint, "--insecure-developer-root")
    assert (same.returncode, "already installed" in same.stdout) == (0, True)
    assert floor(host) == 1


def test_a_first_installation_whose_engine_fails_leaves_no_keys_and_no_blobs(
    host: RunningAppliance,
) -> None:
    """The engine cannot bind its socket: a folder lies where the socket belongs."""
    (host.root / "run/edgekit" / f"engine-{MODEL}.sock" / "x").mkdir(parents=True)
    done = host.edgekit("install", str(host.demo_set.folder), "--listen",
                        f"127.0.0.1:{host.port}")
    assert done.returncode in (50, 51, 1), done.stderr
    assert done.returncode != 1, done.stderr
    assert not (host.root / "etc/edgekit/api-keys.json").exists()
    assert not (host.root / "opt/edgekit/current").is_symlink()
    assert list((host.root / "opt/edgekit/generations").iterdir()) == []
    blobs = [path for path in (host.root / "var/lib/edgekit/blobs").rglob("*") if path.is_file()]
    assert blobs == []
    told = [kind for kind in audit_types(host) if kind.startswith("install")]
    assert told.count("install_begin") == told.count("install_abort")
    assert told[-1] == "install_abort"
