"""The clients that appliances' users have, unchanged, against llama.cpp's own server.

What the test model answers is known, so each client is judged by the meaning of what it got.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.gateway.conftest import Site
from tests.support.client_environments import NPM, node_modules, python_with_clients

ANSWER = "The capital of France is Paris."
NOWHERE = "http://127.0.0.1:9"
"""Nobody listens there: what a client asks of anybody but the gateway fails."""


def called(site: Site, *argv: str, **environment: str) -> Any:
    """What a client program printed, which may reach the gateway and nothing else."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), NOWHERE)
    kept = {"PATH": os.environ["PATH"], "HOME": str(site.work), "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [*argv, site.url, site.token],
        capture_output=True,
        check=False,
        env={**kept, **proxies, **environment},
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_langchain(answering: Site) -> None:
    found = called(answering, str(python_with_clients()), str(NPM / "langchain_calls.py"))
    openai, ollama = found["openai"], found["ollama"]
    assert {openai[key] for key in ("whole", "stream", "responses")} == {ANSWER}
    assert {ollama[key] for key in ("whole", "stream", "generate")} == {ANSWER}
    assert openai["tokens"] == ollama["tokens"] > 10
    assert (openai["near"], ollama["near"], openai["json"]) == (True, True, True)
    assert openai["overflow"] == "context_length_exceeded"


def test_litellm(answering: Site) -> None:
    found = called(answering, str(python_with_clients()), str(NPM / "litellm_calls.py"))
    for way in ("openai", "ollama", "anthropic"):
        wanted = {"whole": ANSWER, "stream": ANSWER, "finish": "stop", "counted": True}
        assert found[way] == wanted, way
    assert found["embeddings"] == 2
    assert found["too long"] == "ContextWindowExceededError"
    assert found["no model"] == "NotFoundError"
    assert found["no key"] == "AuthenticationError"


def test_openai_npm(answering: Site) -> None:
    modules = str(node_modules())
    found = called(answering, "node", str(NPM / "openai_calls.cjs"), NODE_PATH=modules)
    assert {found[key] for key in ("whole", "stream", "response")} == {ANSWER}
    assert found["finish"] == "stop"
    assert len(set(found["lengths"])) == 1
    assert found["names"] == ["demo", "demo-embed"]
    assert found["too long"] == ["BadRequestError", 400, "context_length_exceeded"]
    assert found["no model"] == ["NotFoundError", 404, "model_not_found"]
    assert found["no key"] == ["AuthenticationError", 401, "invalid_api_key"]


def test_ollama_npm(answering: Site) -> None:
    modules = str(node_modules())
    found = called(answering, "node", str(NPM / "ollama_calls.cjs"), NODE_PATH=modules)
    assert {found[key] for key in ("whole", "stream", "generate")} == {ANSWER}
    assert (found["reason"], found["shown"]) == ("stop", "Q8_0")
    assert len(found["lengths"]) == 2
    assert found["names"] == found["running"] == ["demo:latest", "demo-embed:latest"]
    assert found["pull"][:2] == ["ResponseError", 403]
    assert "signed bundles" in found["pull"][2]
    assert found["no model"][:2] == ["ResponseError", 404]


@pytest.mark.parametrize("stream", [False, True])
def test_curl(answering: Site, stream: bool) -> None:
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "stream": stream,
    }
    done = subprocess.run(
        [
            "curl", "-sS", "--fail-with-body", "--no-buffer",
            "-H", f"Authorization: Bearer {answering.token}",
            "-H", "Content-Type: application/json",
            "-d", "@-", f"{answering.url}/v1/chat/completions",
        ],
        input=json.dumps(body), capture_output=True, check=True, text=True, timeout=60,
    )  # fmt: skip
    if not stream:
        assert json.loads(done.stdout)["choices"][0]["message"]["content"] == ANSWER
        return
    *events, end = [line[6:] for line in done.stdout.splitlines() if line]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas) == ANSWER
    assert end == "[DONE]"
