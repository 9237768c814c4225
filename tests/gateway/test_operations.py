"""What operators and their tools ask: life, readiness, metrics, state."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgekit.core.planning.engine_report import Buffer
from edgekit.gateway.metrics import Meter
from edgekit.gateway.state import FRESH_S
from edgekit.system.engine_report import keep_report, report_path
from tests.gateway.conftest import Site
from tests.gateway.test_keys import client

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
NAMES = {
    "edgekit_requests": "counter",
    "edgekit_denied": "counter",
    "edgekit_ttft_seconds": "histogram",
    "edgekit_inter_token_seconds": "histogram",
    "edgekit_tokens": "counter",
    "edgekit_queue_depth": "gauge",
    "edgekit_running": "gauge",
    "edgekit_slots": "gauge",
    "edgekit_engine_up": "gauge",
    "edgekit_engine_loaded": "gauge",
    "edgekit_engine_restarts": "counter",
    "edgekit_memory_plan_bytes": "gauge",
    "edgekit_audit_lag_seconds": "gauge",
    "edgekit_audit_sequence": "gauge",
    "edgekit_disk_free_bytes": "gauge",
    "edgekit_generation_info": "gauge",
}
"""The names that dashboards are built on: one that goes or changes breaks them."""


def scrape(site: Site) -> dict[str, Any]:
    with client(site, "metrics") as other:
        text = other.get("/metrics").text
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family: Any) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


GOOD = {"audit": True, "audit_space": True, "disk": True}


def test_life_needs_nothing_and_readiness_everything(site: Site) -> None:
    assert httpx.get(f"{site.url}/healthz").json()["status"] == "ok"
    answer = httpx.get(f"{site.url}/readyz")
    assert answer.json() == {
        "status": "ready",
        "parts": {"audit": True, "audit_space": True, "disk": True, "engine:main": True},
    }
    site.auditd.process.kill()
    site.auditd.process.wait()
    answer = httpx.get(f"{site.url}/readyz")
    assert (answer.status_code, answer.json()["parts"]["audit"]) == (503, False)
    assert httpx.get(f"{site.url}/healthz").status_code == 200


def test_readiness_wants_a_real_token_and_takes_a_recent_one_for_it(site: Site) -> None:
    assert httpx.get(f"{site.url}/readyz").status_code == 200
    assert site.engine.requests == [{"model": "demo", "prompt": "1", "max_tokens": 1}]
    assert httpx.get(f"{site.url}/readyz").status_code == 200
    assert len(site.engine.requests) == 1  # within FRESH_S the first token counts


def test_token_of_a_client_is_proof_enough(site: Site) -> None:
    assert site.post("/v1/chat/completions", {**CHAT, "stream": True}).status_code == 200
    assert httpx.get(f"{site.url}/readyz").status_code == 200
    assert len(site.engine.requests) == 1


def test_engine_that_listens_and_gives_no_token_is_not_ready(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.gateway.state.PROOF_TIMEOUT_S", 0.3)
    site.engine.delay_s = 5
    answer = httpx.get(f"{site.url}/readyz", timeout=20)
    assert answer.json()["parts"] == {**GOOD, "engine:main": False}
    for _ in range(5):
        assert httpx.get(f"{site.url}/readyz", timeout=20).status_code == 503
    assert len(site.engine.requests) == 1  # strangers cannot make it work by asking


@pytest.mark.parametrize(
    ("placement", "device", "good"),
    [("gpu", "CUDA0", True), ("gpu", "CPU_Mapped", False), ("cpu", "CPU_Mapped", True)],
)
def test_readiness_holds_the_engines_device_against_the_plan(
    site: Site, placement: str, device: str, good: bool
) -> None:
    (engine,) = site.gateway._appliance.engines
    moved = replace(site.gateway._appliance, engines=(replace(engine, placement=placement),))
    site.gateway._state._appliance = moved
    keep_report(Path(engine.socket), (Buffer("weights", device, 4 << 20),))
    answer = httpx.get(f"{site.url}/readyz")
    assert answer.status_code == (200 if good else 503)
    assert answer.json()["parts"]["device:main"] is good


def test_a_report_that_cannot_be_read_is_not_taken_for_good(site: Site) -> None:
    report_path(Path(site.engine.socket_path)).write_text('{"schema": "other/1"}')
    assert httpx.get(f"{site.url}/readyz").json()["parts"]["device:main"] is False


def test_engine_that_is_gone_is_not_ready(site: Site) -> None:
    site.on_loop(site.engine.stop())
    assert httpx.get(f"{site.url}/readyz").json()["parts"]["engine:main"] is False


def test_metrics_have_their_stable_names_and_count(site: Site) -> None:
    site.post("/v1/chat/completions", {**CHAT, "stream": True})
    site.post("/api/generate", {"model": "demo", "prompt": "x", "stream": False})
    site.post("/v1/chat/completions", {**CHAT, "n": 9})
    families = scrape(site)
    assert {name: families[name].type for name in NAMES} == NAMES
    assert values(families["edgekit_requests"]) == {
        ("/v1/chat/completions", "demo", "200"): 1,
        ("/api/generate", "demo", "200"): 1,
    }
    assert values(families["edgekit_denied"])[("invalid_value",)] == 1
    tokens = values(families["edgekit_tokens"])
    assert tokens["out", "demo"] == 4 + 16
    assert tokens["in", "demo"] > 0
    assert values(families["edgekit_engine_up"]) == {("main",): 1}
    assert values(families["edgekit_slots"]) == {("main",): 4}
    assert values(families["edgekit_audit_sequence"])[()] >= 4
    first = [s for s in families["edgekit_ttft_seconds"].samples if s.name.endswith("_count")]
    assert first[0].value == 2


def test_reference_names_every_metric() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/api.md").read_text("utf-8")
    named = set(re.findall(r"`(edgekit_[a-z_]+?)(?:_total)?`", text))
    assert named == set(NAMES)


def test_queue_and_running_are_seen_while_they_last(site: Site) -> None:
    site.engine.delay_s = 0.5
    with site.http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}):
        families = scrape(site)
    assert values(families["edgekit_running"]) == {("main",): 1}
    assert values(families["edgekit_queue_depth"]) == {("main",): 0}


def test_restart_of_an_engine_is_counted(site: Site) -> None:
    scrape(site)
    site.on_loop(site.engine.stop())
    Path(site.engine.socket_path).unlink(missing_ok=True)
    site.on_loop(site.engine.start())
    time.sleep(1.1)  # the state is looked at once a second
    assert values(scrape(site)["edgekit_engine_restarts"]) == {("main",): 1}


def test_engines_own_metrics_keep_their_names(any_site: Site) -> None:
    any_site.post("/v1/chat/completions", CHAT)
    families = scrape(any_site)
    own = families["llamacpp:tokens_predicted"]
    assert own.type == "counter"
    assert [sample.labels for sample in own.samples] == [{"engine": "main"}]
    assert own.samples[0].value >= 4


def test_metrics_and_state_never_hold_a_prompt(site: Site) -> None:
    secret = "the launch code is 0000"
    site.post("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": secret}]})
    site.post("/v1/chat/completions", {**CHAT, secret: 1})
    httpx.get(f"{site.url}/{secret}", headers={"x-api-key": site.token})
    with client(site, "metrics", "admin") as other:
        assert "launch" not in other.get("/metrics").text + other.get("/edgekit/state").text


def test_state_says_what_runs(site: Site) -> None:
    site.post("/v1/chat/completions", CHAT)
    with client(site, "admin") as other:
        state = other.get("/edgekit/state").json()
    assert (state["schema"], state["generation"]) == ("edgekit.state/1", "g1")
    assert state["engines"][0]["up"] is True
    assert state["engines"][0]["last_token_s"] < FRESH_S
    assert sum(state["engines"][0]["series"]) + state["engines"][0]["tokens_per_second"] >= 0
    assert state["audit"]["sequence"] > 0
    assert state["models"][0]["name"] == "demo"


def test_meter_keeps_a_minute() -> None:
    now = 100.0
    meter = Meter(lambda: now)
    meter.add(3)
    meter.add(4)
    now = 101.5
    meter.add(5)
    now = 102
    assert meter.series()[-2:] == [7, 5]
    now = 300
    assert sum(meter.series()) == 0


def test_stopped_writer_is_seen_by_the_next_request_not_by_a_hang(site: Site) -> None:
    os.kill(site.auditd.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert httpx.get(f"{site.url}/healthz").status_code == 200
        assert time.monotonic() - began < 1
    finally:
        os.kill(site.auditd.process.pid, signal.SIGCONT)
