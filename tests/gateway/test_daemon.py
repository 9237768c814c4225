"""The gateway as systemd runs it: inherited socket, credentials, notifications, signals."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from edgekit.cli.main import main
from edgekit.core.api_keys import KeyLimits, KeyRing, encode_keys, make_api_key
from edgekit.core.appliance import encode_appliance
from edgekit.gateway.limits import DayUse
from edgekit.gateway.quotas import load_quotas, save_quotas
from tests.gateway.conftest import make_appliance, make_key
from tests.support.daemons import Daemon, NotReadyError, running, running_auditd

MODULE = "edgekit.gateway.daemon"


@contextmanager
def gateway(
    work: Path,
    listen: str,
    *,
    sock: socket.socket | None = None,
    keys: int = 1,
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> Iterator[tuple[Daemon, str]]:
    """A gateway process and a token; the keys come as systemd credentials do."""
    made = [make_key() for _ in range(keys)]
    (work / "credentials").mkdir(exist_ok=True)
    (work / "credentials" / "api-keys").write_bytes(encode_keys(KeyRing(tuple(k for k, _ in made))))
    address, _, port = listen.rpartition(":")
    appliance = make_appliance(work, int(port), engine_socket=str(work / "engine.sock"))
    data = encode_appliance(appliance).replace(b"127.0.0.1:", address.encode() + b":")
    (work / "appliance.json").write_bytes(data)
    passed: tuple[int, ...] = ()
    variables = {"CREDENTIALS_DIRECTORY": str(work / "credentials"), **(environment or {})}
    if sock is not None:
        os.dup2(sock.fileno(), 3)
        passed, variables["LISTEN_FDS"] = (3,), "1"
    with running(
        MODULE,
        ["--appliance", work / "appliance.json", *arguments],
        work,
        environment=variables,
        pass_fds=passed,
    ) as daemon:
        yield daemon, made[0][1] if made else ""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket that will be descriptor 3 of the gateway; ours at 3 is put back."""
    try:
        kept = os.dup(3)
    except OSError:
        kept = -1
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock
    if kept >= 0:
        os.dup2(kept, 3)
        os.close(kept)
    else:
        os.close(3)


def test_inherited_socket_is_served_and_stopped_cleanly(
    tmp_path: Path, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    environment = {"STATE_DIRECTORY": str(tmp_path), "WATCHDOG_USEC": "400000"}
    with (
        running_auditd(tmp_path),
        gateway(tmp_path, f"127.0.0.1:{port}", sock=listener, environment=environment) as (
            daemon,
            token,
        ),
    ):
        headers = {"Authorization": f"Bearer {token}"}
        models = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers)
        assert models.json()["data"][0]["id"] == "demo"
        for _ in range(2):
            daemon.wait_notified("WATCHDOG=1", 5)
        assert daemon.stop() == 0
    key = tmp_path / "audit-hmac.key"
    assert (stat.S_IMODE(key.stat().st_mode), key.stat().st_size) == (0o600, 48)


def test_gateway_outlives_the_writer_and_answers_503(
    tmp_path: Path, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    body = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}
    with gateway(tmp_path, f"127.0.0.1:{port}", sock=listener) as (_, token):
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.json()["error"]["code"] == "audit_unavailable"


def test_named_host_needs_to_be_allowed(tmp_path: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with gateway(
        tmp_path, f"127.0.0.1:{port}", sock=listener, arguments=("--allow-host", "edge.site")
    ) as (_, _token):
        for name, status in (("edge.site", 200), ("other.site", 403)):
            answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"Host": f"{name}:{port}"})
            assert answer.status_code == status


def test_own_socket_without_activation(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with gateway(tmp_path, f"127.0.0.1:{port}"):
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
        with (
            pytest.raises(NotReadyError, match="ended with 35"),
            gateway(tmp_path, f"127.0.0.1:{port}"),
        ):
            pass


@pytest.mark.parametrize(
    ("listen", "keys", "starts"), [("0.0.0.0:0", 0, False), ("127.0.0.1:0", 0, True)]
)
def test_listening_beyond_the_host_needs_keys(
    tmp_path: Path, listen: str, keys: int, starts: bool
) -> None:
    if starts:
        with gateway(tmp_path, listen, keys=keys):
            return
    with pytest.raises(NotReadyError, match="ended with 20"), gateway(tmp_path, listen, keys=keys):
        pass


def test_damaged_digest_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit-hmac.key").write_bytes(b"short")
    with (
        pytest.raises(NotReadyError, match="ended with 30"),
        gateway(tmp_path, "127.0.0.1:0", environment={"STATE_DIRECTORY": str(tmp_path)}),
    ):
        pass


def test_log_is_json_lines_without_a_prompt(tmp_path: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    (tmp_path / "edgekit.toml").write_text("schema = 1\n[server]\nlog_requests = true\n")
    arguments = ("--config", str(tmp_path / "edgekit.toml"))
    secret = "the launch code is 0000"
    body = {"model": "demo", "messages": [{"role": "user", "content": secret}]}
    with (
        running_auditd(tmp_path),
        gateway(tmp_path, f"127.0.0.1:{port}", sock=listener, arguments=arguments) as (
            daemon,
            token,
        ),
    ):
        headers = {"x-api-key": token}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        assert httpx.post(url, json=body, headers=headers).status_code == 503  # no engine
        assert httpx.post(url, json={**body, secret: 1}, headers=headers).status_code == 400
        assert daemon.stop() == 0
    text = (tmp_path / f"{MODULE}.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == ["started", "request", "stopped"]
    assert (lines[1]["status"], lines[1]["model"], lines[1]["key"]) == (
        503,
        "demo",
        token.split("_")[1],
    )
    assert "launch" not in text


def test_sealing_without_a_key_does_not_start(tmp_path: Path) -> None:
    """A site that wants texts sealed gets no gateway that keeps none, or clear ones."""
    config = tmp_path / "edgekit.toml"
    config.write_text('schema = 1\n[audit]\ntexts = "sealed"\n')
    arguments = ("--config", str(config))
    environment = {"STATE_DIRECTORY": str(tmp_path)}
    with (
        pytest.raises(NotReadyError, match="ended with 10"),
        gateway(tmp_path, "127.0.0.1:0", arguments=arguments, environment=environment),
    ):
        pass
    assert main(["audit", "keygen", str(tmp_path / "auditor")]) == 0
    shutil.copy(tmp_path / "auditor/auditor.pub.pem", tmp_path)
    with (
        pytest.raises(NotReadyError, match="ended with 15"),  # nowhere to put them
        gateway(tmp_path, "127.0.0.1:0", arguments=arguments),
    ):
        pass
    with gateway(tmp_path, "127.0.0.1:0", arguments=arguments, environment=environment):
        pass


def test_a_days_quota_outlives_a_restart(tmp_path: Path, listener: socket.socket) -> None:
    key, token = make_api_key(
        os.urandom(4), os.urandom(32), scopes=("chat",), note="", created=0,
        limits=KeyLimits(tokens_per_day=1000),
    )  # fmt: skip
    (tmp_path / "keys.json").write_bytes(encode_keys(KeyRing((key,))))
    state = tmp_path / "state"
    state.mkdir()
    before = int(time.time()) - 10
    save_quotas(state, {key.id: DayUse(1000, before)})
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    arguments = ("--keys", str(tmp_path / "keys.json"))
    with (
        running_auditd(tmp_path),
        gateway(
            tmp_path, url.removeprefix("http://"), sock=listener, arguments=arguments,
            environment={"STATE_DIRECTORY": str(state)},
        ) as (daemon, _),
    ):  # fmt: skip
        body = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}
        headers = {"x-api-key": token}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 60
        assert daemon.stop() == 0
    kept = load_quotas(state)[key.id]
    assert kept.tokens >= 999
    assert kept.at_s > before  # written anew at its end
