"""The door to other processes: statuses, time limits, secrets, missing programs."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from edgekit.__main__ import restore_library_path
from edgekit.errors import HostError, MissingToolError, PrivilegeError
from edgekit.system.notify import notify, watchdog_interval
from edgekit.system.process import redact, run, spawn


def test_output_and_status_come_back() -> None:
    done = run(
        [sys.executable, "-c", "import sys;print(sys.stdin.read());sys.exit(3)"],
        timeout_s=20,
        stdin=b"hello",
        check=False,
    )
    assert (done.returncode, done.text.strip()) == (3, "hello")


def test_failure_says_what_the_program_said_without_secrets() -> None:
    program = "import sys;print('bad token=abc123 at https://u:pw@h/', file=sys.stderr);sys.exit(4)"
    with pytest.raises(HostError, match="status 4") as caught:
        run([sys.executable, "-c", program], timeout_s=20)
    assert caught.value.found == "bad token=[redacted] at https://u:[redacted]@h/"
    assert "abc123" not in str(caught.value.details())


@pytest.mark.parametrize(
    "text",
    [
        "--password hunter2",
        "api_key: hunter2",
        "ek_01020304_hunter2hunter2",
        "hf_hunter2hunter2",
        "PIN=hunter2",
    ],
)
def test_secrets_are_redacted(text: str) -> None:
    assert "hunter2" not in redact(text)


def test_time_limit_is_kept() -> None:
    began = time.monotonic()
    with pytest.raises(HostError, match="too long"):
        run([sys.executable, "-c", "import time;time.sleep(60)"], timeout_s=0.3)
    assert time.monotonic() - began < 10


def test_missing_and_forbidden_programs(tmp_path: Path) -> None:
    with pytest.raises(MissingToolError):
        run(["/nonexistent/tool"], timeout_s=1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(PrivilegeError):
        spawn([str(tmp_path / "file")], env={})


def test_environment_is_exactly_what_is_given() -> None:
    program = "import os;print(sorted(k for k in os.environ if k != 'LC_CTYPE'))"
    done = run([sys.executable, "-c", program], timeout_s=20, env={"ONLY": "1"})
    assert done.text.strip() == "['ONLY']"


@pytest.mark.parametrize(
    ("frozen", "given", "left"),
    [
        (True, {"LD_LIBRARY_PATH": "/tmp/_MEI1"}, {}),
        (True, {"LD_LIBRARY_PATH": "/opt/x/_internal", "LD_LIBRARY_PATH_ORIG": "/opt/cuda"},
         {"LD_LIBRARY_PATH": "/opt/cuda"}),
        (True, {"PATH": "/bin"}, {"PATH": "/bin"}),
        (False, {"LD_LIBRARY_PATH": "/opt/cuda"}, {"LD_LIBRARY_PATH": "/opt/cuda"}),
    ],
)  # fmt: skip
def test_the_hosts_programs_do_not_get_the_libraries_of_a_frozen_one(
    frozen: bool, given: dict[str, str], left: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    restore_library_path(given)
    assert given == left


def test_notify_reaches_an_abstract_socket() -> None:
    name = f"edgekit-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        assert notify("READY=1", "STATUS=x", environment={"NOTIFY_SOCKET": "@" + name})
        assert manager.recv(100) == b"READY=1\nSTATUS=x"
    for address in ("", "relative", "@" + name, "/nonexistent"):
        assert not notify("READY=1", environment={"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_watchdog_interval(environment: dict[str, str], expected: float | None) -> None:
    assert watchdog_interval(environment) == expected
