"""The supervisor as a real process, with engines that behave and engines that do not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgekit.core.appliance import (
    Appliance,
    CanaryCheck,
    EngineSettings,
    WeightsFile,
    encode_appliance,
)
from tests.support.daemons import NotReadyError, running

PROGRAM = Path(__file__).parents[1] / "support" / "engine_program.py"
GOOD = CanaryCheck("demo", "everything", "42")


def describe(
    work: Path,
    mode: str,
    *,
    canaries: Sequence[CanaryCheck] = (GOOD,),
    start_timeout_s: int = 20,
    damage: bool = False,
    argv: tuple[str, ...] | None = None,
    on_demand: bool = False,
) -> list[str | Path]:
    """Write weights and appliance.json; the supervisor's arguments."""
    content = os.urandom(3 << 20)
    weights = work / "weights.gguf"
    digest = hashlib.sha384(content).hexdigest()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage else content)
    engine = EngineSettings(
        name="main",
        kind="fake",
        argv=argv or (sys.executable, str(PROGRAM), "fake", str(work / "engine.sock"), mode),
        environment=(("EDGEKIT_TEST", "1"),),
        socket=str(work / "engine.sock"),
        slots=1,
        context=512,
        start_timeout_s=start_timeout_s,
        weights=(WeightsFile(str(weights), f"sha384:{digest}", len(content)),),
        canaries=tuple(canaries),
        lease=str(work / "engine.lease") if on_demand else "",
    )
    appliance = Appliance("a", "1", "g", "127.0.0.1:1", str(work / "audit.sock"), (), (engine,))
    (work / "appliance.json").write_bytes(encode_appliance(appliance))
    return ["--appliance", work / "appliance.json", "--engine", "main"]


def supervise(work: Path, mode: str, **options: object):  # type: ignore[no-untyped-def]
    wait = bool(options.pop("wait", True))
    # pings that nobody reads fill the queue: an engine on demand is not watched that closely
    environment = {"WATCHDOG_USEC": "3000000" if options.get("on_demand") else "400000"}
    return running(
        "edgekit.supervisor.daemon",
        describe(work, mode, **options),  # type: ignore[arg-type]
        work,
        wait=wait,
        environment=environment,
    )


def engines_left(work: Path) -> list[int]:
    """Processes that still run an engine of this test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(work / "engine.sock").encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_ready_after_a_right_answer_then_watched_then_stopped(tmp_path: Path) -> None:
    with supervise(tmp_path, "good") as daemon:
        for _ in range(3):
            daemon.wait_notified("WATCHDOG=1", 5)
        assert engines_left(tmp_path)
        assert daemon.stop() == 0
    assert not engines_left(tmp_path)


@pytest.mark.parametrize(
    ("mode", "options", "code"),
    [
        ("wrong", {}, 52),
        ("good", {"damage": True}, 22),
        ("dies", {}, 50),
        ("never-ready", {"start_timeout_s": 2}, 51),
        ("hang", {"start_timeout_s": 2}, 50),
        ("missing", {"argv": ("/nonexistent/engine",)}, 33),
    ],
)
def test_engine_that_does_not_get_ready_has_its_own_code(
    tmp_path: Path, mode: str, options: dict[str, object], code: int
) -> None:
    with (
        pytest.raises(NotReadyError, match=f"ended with {code}"),
        supervise(tmp_path, mode, **options),
    ):
        pass
    assert not engines_left(tmp_path)


def test_damaged_weights_never_reach_the_engine(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError), supervise(tmp_path, "environment", damage=True):
        pass
    assert not (tmp_path / "engine.sock.env").exists()


def test_engine_gets_exactly_its_environment(tmp_path: Path) -> None:
    with supervise(tmp_path, "environment"):
        environment = json.loads((tmp_path / "engine.sock.env").read_text())
    environment.pop("LC_CTYPE", None)  # the interpreter's own
    assert environment == {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "EDGEKIT_TEST": "1"}


def test_dead_engine_ends_the_supervisor(tmp_path: Path) -> None:
    with supervise(tmp_path, "good") as daemon:
        for pid in engines_left(tmp_path):
            os.kill(pid, signal.SIGKILL)
        assert daemon.process.wait(5) == 50


@pytest.mark.parametrize("mode", ["stubborn", "forks"])
def test_nothing_outlives_a_stop(tmp_path: Path, mode: str) -> None:
    with supervise(tmp_path, mode) as daemon:
        began = time.monotonic()
        assert daemon.stop(20) == 0
        assert (time.monotonic() - began > 9) == (mode == "stubborn")
    assert not engines_left(tmp_path)


def test_stop_interrupts_a_start_that_hangs(tmp_path: Path) -> None:
    with supervise(tmp_path, "hang", start_timeout_s=600, wait=False) as daemon:
        daemon.wait_notified("STATUS=asking canary prompts")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
    assert not engines_left(tmp_path)


def test_engine_dies_with_a_killed_supervisor(tmp_path: Path) -> None:
    with supervise(tmp_path, "good") as daemon:
        daemon.process.kill()
        daemon.process.wait()
    deadline = time.monotonic() + 5
    while engines_left(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not engines_left(tmp_path)


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    with supervise(tmp_path, "good") as daemon:
        daemon.process.kill()
        daemon.process.wait()
    assert (tmp_path / "engine.sock").exists()
    with supervise(tmp_path, "good") as daemon:
        assert daemon.stop() == 0


def test_unknown_engine_is_a_format_error(tmp_path: Path) -> None:
    arguments = describe(tmp_path, "good")
    arguments[-1] = "other"
    with (
        pytest.raises(NotReadyError, match="ended with 10"),
        running("edgekit.supervisor.daemon", arguments, tmp_path),
    ):
        pass


def ask(work: Path, words: bytes) -> socket.socket:
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(20)
    asking.connect(str(work / "engine.lease"))
    asking.sendall(words)
    return asking


def test_on_demand_engine_lives_as_long_as_its_lease(tmp_path: Path) -> None:
    with supervise(tmp_path, "good", on_demand=True) as daemon:
        assert not engines_left(tmp_path)
        with ask(tmp_path, b"settle\n") as settled:
            assert settled.recv(100) == b"idle\n"
        for _ in range(2):
            with ask(tmp_path, b"load\n") as lease:
                assert lease.recv(100) == b"ready\n"
                assert engines_left(tmp_path)
                daemon.wait_notified("STATUS=answers canary prompts", 5)
                lease.shutdown(socket.SHUT_WR)
                assert lease.recv(100) == b""  # said last of all
                assert not engines_left(tmp_path)
                daemon.wait_notified("STATUS=waits to be asked for", 5)
        assert daemon.stop() == 0


def test_whoever_asks_next_is_answered_when_the_memory_is_free(tmp_path: Path) -> None:
    with supervise(tmp_path, "stubborn", on_demand=True) as daemon:
        lease = ask(tmp_path, b"load\n")
        assert lease.recv(100) == b"ready\n"
        lease.close()  # as a gateway that was killed
        with ask(tmp_path, b"settle\n") as settled:
            assert settled.recv(100) == b"idle\n"
        assert not engines_left(tmp_path)
        assert daemon.stop() == 0


def test_a_lease_that_ends_while_the_engine_loads_stops_it(tmp_path: Path) -> None:
    with supervise(tmp_path, "never-ready", on_demand=True, start_timeout_s=600) as daemon:
        lease = ask(tmp_path, b"load\n")
        daemon.wait_notified("STATUS=starting the engine")
        lease.close()
        with ask(tmp_path, b"settle\n") as settled:
            assert settled.recv(100) == b"idle\n"
        assert not engines_left(tmp_path)


def test_noise_on_the_lease_socket_loads_nothing(tmp_path: Path) -> None:
    with supervise(tmp_path, "good", on_demand=True):
        for words in (b"", b"GET / HTTP/1.1\r\n", b"load"):
            with ask(tmp_path, words) as stranger:
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(100) == b""
        assert not engines_left(tmp_path)


@pytest.mark.parametrize(
    ("mode", "damage", "code", "slug"),
    [("wrong", False, 52, b"wrong-answer"), ("good", True, 22, b"digest")],
)
def test_an_engine_that_cannot_be_vouched_for_is_not_lent(
    tmp_path: Path, mode: str, damage: bool, code: int, slug: bytes
) -> None:
    with supervise(tmp_path, mode, on_demand=True, damage=damage) as daemon:
        with ask(tmp_path, b"load\n") as lease:
            assert lease.recv(100) == b"refused " + slug + b"\n"
        assert daemon.process.wait(10) == code
    assert not engines_left(tmp_path)
