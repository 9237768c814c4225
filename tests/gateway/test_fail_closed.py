"""No answer without its records; no record with a prompt in it; no failure that hangs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import hmac
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edgekit.operations.audit import verify_audit
from tests.gateway.conftest import SLOTS, Site
from tests.support.daemons import running_auditd
from tests.support.fake_engine import WORDS

SECRET = "the launch code is 0000"
CHAT = {"model": "demo", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 6}
OPENAI = "/v1/chat/completions"
PATIENCE_S = 3
"""Room for a busy machine; the figure itself: `python -m benchmarks.audit`."""


def with_prompt(text: str, **fields: Any) -> dict[str, Any]:
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 6,
        **fields,
    }


def eventually(condition: Any, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_records_name_the_caller_and_hold_only_keyed_digests(site: Site) -> None:
    text = site.post(OPENAI, CHAT).json()["choices"][0]["message"]["content"]
    request, response = site.records()
    messages = b'[{"content":"' + SECRET.encode() + b'","role":"user"}]'
    assert request["prompt_hmac"] == hmac.new(b"k" * 48, messages, hashlib.sha384).hexdigest()
    assert response["output_hmac"] == hmac.new(b"k" * 48, text.encode(), hashlib.sha384).hexdigest()
    assert request["actor"] == response["actor"] == site.token.split("_")[1]
    assert request["request_id"] == response["request_id"]
    assert request["weights_digest"].startswith("sha384:abab")
    assert request["src"].startswith("127.0.0.1:")
    assert request["params"] == {"max_tokens": 6}
    everything = json.dumps(site.records()) + b"".join(
        path.read_bytes() for path in site.work.rglob("*") if path.is_file()
    ).decode(errors="replace")
    assert SECRET not in everything
    assert text not in everything
    assert site.token not in everything


def test_digest_of_a_streamed_answer_equals_the_whole_one(site: Site) -> None:
    site.post(OPENAI, CHAT)
    site.post(OPENAI, {**CHAT, "stream": True})
    digests = {r["output_hmac"] for r in site.records() if r["type"] == "response"}
    assert len(digests) == 1


def test_killed_audit_writer_means_503_within_a_second_and_no_engine_call(site: Site) -> None:
    assert site.post(OPENAI, CHAT).status_code == 200
    site.auditd.process.kill()
    began, asked = time.monotonic(), len(site.engine.requests)
    response = site.post(OPENAI, CHAT)
    assert time.monotonic() - began < 1
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "audit_unavailable"
    assert int(response.headers["retry-after"]) > 0
    for path in ("/api/chat", "/api/generate"):
        body = CHAT if path == "/api/chat" else {"model": "demo", "prompt": "x"}
        body = {k: v for k, v in body.items() if k != "max_tokens"}
        assert site.post(path, body).status_code == 503
    assert len(site.engine.requests) == asked
    assert httpx.get(f"{site.url}/readyz").status_code == 503


def test_writer_that_comes_back_is_used_again(site: Site) -> None:
    site.auditd.process.kill()
    site.auditd.process.wait()
    assert site.post(OPENAI, CHAT).status_code == 503
    with running_auditd(site.work):
        assert site.post(OPENAI, CHAT).status_code == 200


@pytest.mark.parametrize("path", [OPENAI, "/api/chat"])
def test_writer_killed_midway_withholds_the_end(site: Site, path: str) -> None:
    site.engine.delay_s = 0.1
    body: dict[str, Any] = {**CHAT, "stream": True}
    if path == "/api/chat":
        body["options"] = {"num_predict": body.pop("max_tokens")}
    with site.http.stream("POST", path, json=body) as response:
        pieces = response.iter_text()
        text = next(pieces)
        site.auditd.process.kill()
        text += "".join(pieces)
    assert response.status_code == 200
    assert "[DONE]" not in text
    assert '"done":true' not in text
    assert "audit" in text


def test_writer_killed_before_a_whole_answer_withholds_all_of_it(site: Site) -> None:
    site.engine.delay_s = 0.1
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(site.post, OPENAI, CHAT)
        eventually(lambda: site.engine.running)
        site.auditd.process.kill()
        response = pending.result()
    assert response.status_code == 503
    assert "edge" not in response.text


@contextlib.contextmanager
def stopped(site: Site) -> Iterator[None]:
    """The audit writer hangs: it is there, its socket takes what it is sent, nothing comes back."""
    os.kill(site.auditd.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(site.auditd.process.pid, signal.SIGCONT)


def open_requests_of(site: Site) -> set[str]:
    records = site.records()
    ended = {r["request_id"] for r in records if r["type"] in ("response", "orphaned")}
    return {r["request_id"] for r in records if r["type"] == "request"} - ended


def test_hung_writer_means_503_within_a_second_and_no_engine_call(site: Site) -> None:
    assert site.post(OPENAI, CHAT).status_code == 200
    asked = len(site.engine.requests)
    with stopped(site):
        for _ in range(3):
            began = time.monotonic()
            response = site.post(OPENAI, CHAT)
            assert time.monotonic() - began < PATIENCE_S
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "audit_unavailable"
        began = time.monotonic()
        assert httpx.get(f"{site.url}/v1/models").status_code == 401
        assert time.monotonic() - began < PATIENCE_S
    assert len(site.engine.requests) == asked
    # their records were on the way: now they are written, and closed as what they are
    eventually(lambda: len(site.records()) == 2 + 3 + 3 + 1 and not open_requests_of(site))
    ends = [r for r in site.records() if r["type"] == "response"]
    assert [(r["status"], r["error"]) for r in ends] == [(200, None)] + [
        (503, "audit_unavailable")
    ] * 3
    assert site.post(OPENAI, CHAT).status_code == 200


def test_hung_writer_costs_no_answer_that_the_engine_has_given(site: Site) -> None:
    site.engine.delay_s = 0.05
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(site.post, OPENAI, CHAT)
        eventually(lambda: site.engine.running)
        with stopped(site):
            eventually(lambda: not site.engine.running)
            time.sleep(1.2)
            assert not pending.done()
        assert pending.result().status_code == 200


def test_client_that_leaves_before_its_record_is_durable_is_closed(site: Site) -> None:
    assert site.post(OPENAI, CHAT).status_code == 200
    with stopped(site):
        with pytest.raises(httpx.ReadTimeout):
            site.http.post(OPENAI, json=CHAT, timeout=0.2)
        time.sleep(0.1)
    eventually(lambda: site.records()[-1]["type"] == "response" and len(site.records()) == 4)
    assert (site.records()[-1]["status"], site.records()[-1]["error"]) == (499, "client_gone")
    assert len(site.engine.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_frees_the_engine_and_is_recorded(site: Site, stream: bool) -> None:
    site.engine.delay_s = 0.2
    with pytest.raises(httpx.ReadTimeout):
        site.http.post(
            OPENAI,
            json={**CHAT, "stream": stream, "max_tokens": 100},
            timeout=httpx.Timeout(5, read=0.1 if not stream else 0.15),
        )
    eventually(lambda: site.engine.aborted == 1)
    eventually(lambda: site.engine.running == 0)
    record = site.wait_for_record("response")
    assert record["aborted"] is True
    assert record["status"] == 499


def test_client_that_leaves_the_queue_is_no_request(site: Site) -> None:
    site.engine.delay_s = 0.2
    with concurrent.futures.ThreadPoolExecutor(SLOTS) as pool:
        running = [pool.submit(site.post, OPENAI, CHAT) for _ in range(SLOTS)]
        eventually(lambda: site.engine.running == SLOTS)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                site.url + OPENAI,
                json=CHAT,
                timeout=0.2,
                headers={"Authorization": f"Bearer {site.token}"},
            )
        assert all(f.result().status_code == 200 for f in running)
    assert sum(r["type"] == "request" for r in site.records()) == SLOTS


@pytest.mark.parametrize(
    ("trick", "stream", "status"),
    [
        ("die-early", False, 502),
        ("die-early", True, 502),
        ("die-begun", True, 502),
        ("not-json", False, 502),
    ],
)
def test_engine_that_fails_before_its_answer(
    site: Site, trick: str, stream: bool, status: int
) -> None:
    response = site.post(OPENAI, with_prompt(trick, stream=stream))
    assert response.status_code == status
    assert site.wait_for_record("response")["error"] == "engine_failed"


def test_how_an_answer_begins_comes_with_its_first_token(site: Site) -> None:
    site.engine.delay_s = 0.1
    asked = with_prompt("hello", stream=True)
    with site.http.stream("POST", OPENAI, json=asked) as response:
        first = next(response.iter_raw())
    assert first.count(b"data: ") == 2
    assert b'"role":"assistant"' in first
    assert WORDS[0].encode() in first


@pytest.mark.parametrize("trick", ["die-midstream", "error-midstream", "no-end"])
def test_engine_that_fails_midstream_ends_in_one_error(site: Site, trick: str) -> None:
    text = site.post(OPENAI, with_prompt(trick, stream=True)).text
    assert text.count('"error"') == 1
    assert "[DONE]" not in text
    assert "secret" not in text
    lines = site.post("/api/generate", {"model": "demo", "prompt": trick}).text.splitlines()
    assert "error" in json.loads(lines[-1])
    assert all(not json.loads(line).get("done") for line in lines)
    assert [r["status"] for r in site.records() if r["type"] == "response"] == [502, 502]


def test_engine_that_is_down_is_503_and_comes_back(site: Site) -> None:
    site.on_loop(site.engine.stop())
    response = site.post(OPENAI, CHAT)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_unavailable"
    assert response.headers["retry-after"]
    site.on_loop(site.engine.start())
    assert site.post(OPENAI, CHAT).status_code == 200


def test_kept_connections_are_used_and_their_loss_is_not_noticed(site: Site) -> None:
    for _ in range(5):
        assert site.post(OPENAI, CHAT).status_code == 200
    assert site.engine.connections == 1
    site.engine.close_after = True
    for _ in range(5):
        assert site.post(OPENAI, CHAT).status_code == 200


def test_request_lost_with_a_kept_connection_is_sent_once_more(site: Site) -> None:
    site.engine.drop_reused = True
    for _ in range(5):
        assert site.post(OPENAI, CHAT).status_code == 200
    assert site.engine.connections == len(site.engine.requests) == 5


def test_request_that_ends_every_connection_is_not_sent_again_and_again(site: Site) -> None:
    assert site.post(OPENAI, CHAT).status_code == 200
    assert site.post(OPENAI, with_prompt("die-early")).status_code == 502
    assert len(site.engine.requests) == 1 + 2


def test_only_as_many_run_as_the_engine_has_slots(site: Site) -> None:
    site.engine.delay_s = 0.01
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: site.post(OPENAI, CHAT), range(16)))
    assert {a.status_code for a in answers} == {200}
    assert site.engine.peak == SLOTS


def test_full_queue_is_503_with_retry_after(site: Site) -> None:
    site.engine.delay_s = 1.0
    limit = SLOTS * 9
    with (
        httpx.Client(
            base_url=site.url,
            timeout=30,
            limits=httpx.Limits(max_connections=100),
            headers={"Authorization": f"Bearer {site.token}"},
        ) as client,
        concurrent.futures.ThreadPoolExecutor(limit) as pool,
    ):
        pending = [
            pool.submit(client.post, OPENAI, json={**CHAT, "max_tokens": 2}) for _ in range(limit)
        ]
        admission = site.gateway._engines["main"].admission
        eventually(lambda: admission.waiting == limit - SLOTS)
        refused = site.post(OPENAI, CHAT)
        site.engine.delay_s = 0
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.headers["retry-after"]
        assert {p.result().status_code for p in pending} == {200}


def test_denials_are_recorded_at_a_bounded_rate(site: Site) -> None:
    for _ in range(60):
        httpx.get(f"{site.url}/v1/models")
    records = [r for r in site.records(200) if r["type"] == "auth_fail"]
    assert 15 <= len(records) <= 40
    assert records[0]["reason"] == "missing_api_key"
    time.sleep(1)
    httpx.get(f"{site.url}/v1/models", headers={"x-api-key": "wrong"})
    records = [r for r in site.records(200) if r["type"] == "auth_fail"]
    assert records[-1]["reason"] == "invalid_api_key"
    assert sum(r["suppressed_before"] + 1 for r in records) == 61


def test_refused_fields_and_management_are_recorded_with_their_caller(site: Site) -> None:
    site.post("/api/pull", {"model": "x"})
    site.post(OPENAI, {**CHAT, "n": 9})
    denied = [r for r in site.records() if r["type"] == "denied"]
    assert [(r["reason"], r["param"]) for r in denied] == [
        ("not_on_an_appliance", None),
        ("invalid_value", "n"),
    ]
    assert {r["actor"] for r in denied} == {site.token.split("_")[1]}


def test_log_of_all_this_verifies(site: Site) -> None:
    site.post(OPENAI, CHAT)
    site.post(OPENAI, {**CHAT, "stream": True})
    summary = verify_audit(site.work / "audit")
    assert (summary.requests, summary.responses, summary.orphans) == (2, 2, 0)
