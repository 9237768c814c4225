"""Canaries: texts that people send and get appear nowhere on the host but where they were sent.

Every route and field that carries text gets a canary of its own, in requests that are served and in
such that are refused. Then they are looked for, and so are the answers: in every file below the
root, in all that the daemons and the engine printed, and, while an answer is being made, in the
command line and environment of every process. Journal and core dumps are looked at on a sealed
host (test_sealed_life.py).
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.appliance import MODEL, DemoSet, RunningAppliance, free_port

CANARY = "zq7-canary"
LEAST_ANSWER = 12
"""Characters from which on a made-up answer cannot stand somewhere by chance."""

_numbers = itertools.count()


def canary() -> str:
    """A text that was never used before."""
    return f"{CANARY}-{next(_numbers)}"


def asked() -> Iterator[tuple[str, dict[str, Any]]]:
    """Bodies with a canary in every field that takes text."""
    say = [{"role": "system", "content": canary()}, {"role": "user", "content": canary()},
           {"role": "assistant", "content": canary()}, {"role": "user", "content": canary()}]
    tool = {"name": "look", "description": canary(),
            "parameters": {"type": "object", "properties": {"x": {"description": canary()}}}}
    wild = {"temperature": 1.5, "seed": 7}
    schema = {"type": "object", "properties": {"x": {"type": "string", "description": canary()}}}
    chat = {"model": MODEL, "messages": say, "max_tokens": 24, **wild}
    yield "/v1/chat/completions", chat
    yield "/v1/chat/completions", {**chat, "stream": True, "stop": [canary()]}
    yield "/v1/chat/completions", {**chat, "tools": [{"type": "function", "function": tool}]}
    yield "/v1/chat/completions", {**chat, "max_tokens": 60, "response_format": {
        "type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}
    yield "/v1/completions", {"model": MODEL, "prompt": canary(), "max_tokens": 24, **wild}
    yield "/v1/responses", {"model": MODEL, "input": canary(), "instructions": canary(),
                            "max_output_tokens": 24}
    yield "/v1/messages", {"model": MODEL, "max_tokens": 24, "system": canary(),
                           "messages": [{"role": "user", "content": canary()}]}
    options = {"options": {"num_predict": 24, **wild}}
    yield "/api/chat", {"model": MODEL, "messages": say, **options}
    yield "/api/generate", {"model": MODEL, "prompt": canary(), "system": canary(), **options}
    yield "/tokenize", {"model": MODEL, "prompt": canary()}
    # refused, each at another place
    yield "/v1/chat/completions", {**chat, "messages": [{"role": canary(), "content": canary()}]}
    yield "/v1/chat/completions", {**chat, "messages": [{"role": "user", "content": [canary()]}]}
    yield "/v1/chat/completions", {**chat, "n": canary()}
    yield "/v1/chat/completions", {**chat, "messages": say * 400}
    yield "/v1/completions", {"model": MODEL, "prompt": f"{canary()} " * 4000}
    yield "/v1/chat/completions", {**chat, "response_format": {
        "type": "json_schema", "json_schema": {"name": "s", "schema": {"pattern": canary()}}}}
    yield "/v1/chat/completions", {**chat, "response_format": {
        "type": "json_schema", "json_schema": {"name": "s", "schema": {
            "type": "string", "pattern": f"^(?={canary()}$"}}}}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{canary()}"}}
    yield "/v1/chat/completions", {**chat, "messages": [{"role": "user", "content": [picture]}]}
    yield "/v1/chat/completions", {**chat, "tools": [{"type": canary(), "function": tool}]}
    yield "/v1/rerank", {"model": MODEL, "query": canary(), "documents": [canary()]}


@dataclass
class Watched:
    """What every process on the machine says of itself, looked at again and again."""

    seen: set[str] = field(default_factory=set)
    looks: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stopping.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ", "comm"):
                    with suppress(OSError):
                        if CANARY.encode() in (process / name).read_bytes():
                            self.seen.add(f"{name} of {(process / 'comm').read_text().strip()}")
            self.looks += 1
            time.sleep(0.01)


@dataclass
class Traces:
    """What was left after everything was asked."""

    statuses: list[int]
    answers: list[str]
    printed: str
    files: dict[str, bytes]
    watched: Watched


@pytest.fixture(scope="module")
def traces(demo_set: DemoSet, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    root = Path(tmp_path_factory.mktemp("c", numbered=True))
    config = root / "etc/edgekit/edgekit.toml"
    config.parent.mkdir(parents=True)
    config.write_text("schema = 1\n[server]\nlog_requests = true\n")
    running = RunningAppliance(demo_set, root, free_port())
    running.install()
    running.serve()
    assert running.service is not None
    watched = Watched()
    watcher = threading.Thread(target=watched.run)
    watcher.start()
    try:
        answers, statuses = _ask_all(running)
    finally:
        watched.stopping.set()
        watcher.join()
        running.service.terminate()
        printed = "".join(running.service.communicate(timeout=60))
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
             if path.is_file() and path.stat().st_size < 8 << 20}
    return Traces(statuses, answers, printed, files, watched)


def _ask_all(running: RunningAppliance) -> tuple[list[str], list[int]]:
    answers, statuses = [], []
    headers = {"Authorization": f"Bearer {running.api_key}", "User-Agent": canary()}
    with httpx.Client(base_url=running.url, headers=headers, timeout=60) as client:
        for path, body in asked():
            response = client.post(path, json=body)
            statuses.append(response.status_code)
            answers += _texts(response.text)
        statuses.append(client.post("/v1/chat/completions", content=canary()).status_code)
        broken = json.dumps({"messages": canary()})[:-3]
        statuses.append(client.post("/api/chat", content=broken).status_code)
        with suppress(httpx.ReadTimeout):
            client.post("/v1/completions", timeout=0.02, json={
                "model": MODEL, "prompt": canary(), "max_tokens": 200})
    return [text for text in answers if len(text) >= LEAST_ANSWER], statuses


def _texts(body: str) -> Iterator[str]:
    """Every long text in an answer that is not streamed."""
    with suppress(ValueError):
        yield from _strings(json.loads(body))


def _strings(value: object, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)
    elif isinstance(value, str) and key in ("content", "text", "response"):
        yield value


def test_requests_were_served_and_refused(traces: Traces) -> None:
    print("\n", traces.statuses)
    assert traces.statuses.count(200) >= 8
    assert sum(400 <= status < 500 for status in traces.statuses) >= 6
    assert len(traces.answers) >= 5


def test_no_file_holds_what_was_sent_or_answered(traces: Traces) -> None:
    logs = [name for name in traces.files if "audit-" in name and name.endswith(".jsonl")]
    assert logs
    assert b'"type":"response"' in traces.files[logs[0]]
    for text in (CANARY, *traces.answers):
        assert [name for name, data in traces.files.items() if text.encode() in data] == []


def test_daemons_and_engine_say_what_they_do_without_it(traces: Traces) -> None:
    logs = {Path(name).name: data.decode() for name, data in traces.files.items()
            if name.endswith(".log")}
    assert {"auditd.log", "gateway.log", f"engine-{MODEL}.log"} <= logs.keys()
    assert "/v1/chat/completions" in logs["gateway.log"], "a line for each request was asked for"
    engine = logs[f"engine-{MODEL}.log"]
    assert "buffer size =" in engine
    assert "eval time" in engine.rpartition("listening on")[2], "it still tells how it serves"
    assert "JSON schema conversion was incomplete" not in engine, "it is asked no such pattern"
    for text in (CANARY, *traces.answers):
        assert text not in traces.printed


def test_no_process_shows_it(traces: Traces) -> None:
    assert traces.watched.looks > 10
    assert traces.watched.seen == set()
