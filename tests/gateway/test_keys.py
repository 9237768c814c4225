"""API keys at work: scopes, quotas, and changes that count without a restart."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import httpx
import pytest

from edgekit.core.api_keys import KeyLimits, KeyRing, encode_keys, make_api_key, parse_keys
from edgekit.core.host_layout import HostLayout
from edgekit.errors import EngineNotReadyError, FormatError, HostError, TrustError
from edgekit.operations.api_keys import add_key, list_keys, revoke_key
from edgekit.system.gateway_control import push_keys
from tests.gateway.conftest import Site, make_key
from tests.gateway.test_daemon import gateway, listener
from tests.support.daemons import running_auditd

__all__ = ["listener"]  # a fixture

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}


def client(site: Site, *scopes: str, **limits: int) -> httpx.Client:
    """A client of another key, which the gateway accepts from now on."""
    key, token = make_api_key(
        os.urandom(4),
        os.urandom(32),
        scopes=scopes or ("chat",),
        note="",
        created=0,
        limits=KeyLimits(**limits),
    )

    async def accept() -> None:
        site.gateway.replace_keys(KeyRing((key,)))

    site.on_loop(accept())
    return httpx.Client(base_url=site.url, headers={"x-api-key": token}, timeout=20)


@pytest.mark.parametrize(
    ("scope", "path", "status"),
    [
        ("chat", "/v1/models", 200),
        ("embed", "/v1/models", 200),
        ("metrics", "/v1/models", 403),
        ("metrics", "/metrics", 200),
        ("chat", "/metrics", 403),
        ("admin", "/v1/models", 200),
        ("admin", "/edgekit/state", 200),
        ("chat", "/edgekit/state", 403),
    ],
)
def test_scope_opens_what_it_names(site: Site, scope: str, path: str, status: int) -> None:
    with client(site, scope) as other:
        assert other.get(path).status_code == status


@pytest.mark.parametrize("scope", ["embed", "metrics", "admin"])
def test_only_chat_may_ask_a_model(site: Site, scope: str) -> None:
    with client(site, scope) as other:
        answer = other.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")
    assert not site.engine.requests


def test_request_rate_is_429_with_retry_after(site: Site) -> None:
    with client(site, requests_per_minute=2) as other:
        answers = [other.post("/v1/chat/completions", json=CHAT) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["type"] == "rate_limit_error"
    assert 25 <= int(answers[2].headers["retry-after"]) <= 30
    assert len(site.engine.requests) == 2
    assert site.wait_for_record("denied")["reason"] == "rate_limit_exceeded"


def test_token_quota_counts_prompt_and_answer(site: Site) -> None:
    with client(site, tokens_per_day=6) as other:
        assert other.post("/v1/chat/completions", json=CHAT).status_code == 200
        answer = other.post("/api/chat", json={"model": "demo", "messages": CHAT["messages"]})
    assert answer.status_code == 429
    assert isinstance(answer.json()["error"], str)


def test_revoked_key_is_refused_by_the_next_request(site: Site) -> None:
    assert site.post("/v1/chat/completions", CHAT).status_code == 200
    with client(site) as other:
        assert other.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert site.post("/v1/chat/completions", CHAT).status_code == 401


def installed(root: Path, *keys: object) -> tuple[HostLayout, str]:
    """A private root with a generation's name and the host's own key, and nothing else."""
    layout = HostLayout(root)
    key, token = make_key("chat", "admin")
    layout.generation("g1").mkdir(parents=True)
    layout.current.symlink_to(layout.generation("g1"))
    layout.configuration.mkdir(parents=True)
    layout.run.mkdir(parents=True)
    layout.api_keys.write_bytes(encode_keys(KeyRing((key,))))
    layout.local_key.write_text(token)
    return layout, key.id


def test_keys_added_and_revoked_count_in_a_running_gateway(
    tmp_path: Path, listener: socket.socket
) -> None:
    layout, own = installed(tmp_path / "root")
    arguments = ("--control", str(layout.gateway_control()))
    port = listener.getsockname()[1]
    with (
        running_auditd(tmp_path),
        gateway(tmp_path, f"127.0.0.1:{port}", sock=listener, arguments=arguments),
    ):
        added = add_key(layout, scopes=("chat", "embed"), note="line 4", limits=KeyLimits(5))
        assert added.in_force
        url, headers = f"http://127.0.0.1:{port}/v1/models", {"x-api-key": added.token}
        assert httpx.get(url, headers=headers).status_code == 200
        assert [key.note for key in list_keys(layout).keys] == ["", "line 4"]
        assert revoke_key(layout, added.key.id).in_force
        assert httpx.get(url, headers=headers).status_code == 401
        with pytest.raises(HostError, match="did not take"):
            push_keys(layout.gateway_control(), b"{}")
    assert added.token not in layout.api_keys.read_text()
    with pytest.raises(EngineNotReadyError):
        push_keys(layout.gateway_control(), b"{}")
    assert not add_key(layout, scopes=("chat",), note="", limits=KeyLimits()).in_force
    with pytest.raises(TrustError, match="host itself"):
        revoke_key(layout, own)
    with pytest.raises(FormatError, match="no such API key"):
        revoke_key(layout, "00000000")
    with pytest.raises(FormatError, match="no such scope"):
        add_key(layout, scopes=("root",), note="", limits=KeyLimits())
    assert len(parse_keys(layout.api_keys.read_bytes()).keys) == 2
