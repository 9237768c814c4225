"""Reasoning: asked for and shown in each protocol's own words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.gateway.conftest import FakeEngine, Site, running_site
from tests.gateway.test_clients import ollama_client, openai_client

ASK: Any = [{"role": "user", "content": "think-first"}]
THOUGHT = "let me think"


@pytest.fixture
def plain_site(tmp_path: Path) -> Iterator[Site]:
    """A model whose chat template has no thinking in it."""
    engine = FakeEngine(str(tmp_path / "plain.sock"))
    with running_site(tmp_path, engine, engine.socket_path, capabilities=("completion",)) as ready:
        yield ready


def kwargs_of(site: Site) -> Any:
    return site.engine.requests[-1].get("chat_template_kwargs")


def test_ollama_shows_thinking_apart_from_the_answer(site: Site) -> None:
    client = ollama_client(site)
    whole = client.chat("demo", ASK, think=True)
    parts = list(client.chat("demo", ASK, think=True, stream=True))
    assert whole.message.thinking == THOUGHT
    assert "".join(p.message.thinking or "" for p in parts) == THOUGHT
    assert "".join(p.message.content or "" for p in parts) == whole.message.content != ""
    assert client.generate("demo", "think-first", think=True).thinking == THOUGHT


@pytest.mark.parametrize(
    ("think", "asked"),
    [
        (None, None),
        (True, {"enable_thinking": True}),
        (False, {"enable_thinking": False}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_ollamas_think_reaches_the_template(site: Site, think: Any, asked: Any) -> None:
    answer = ollama_client(site).chat("demo", ASK, think=think)
    assert kwargs_of(site) == asked
    assert (answer.message.thinking is None) == (think is False)


def test_a_model_that_cannot_think_says_so_to_ollama_alone(plain_site: Site) -> None:
    client = ollama_client(plain_site)
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        client.chat("demo", ASK, think=True)
    client.chat("demo", ASK, think=False)
    openai_client(plain_site).chat.completions.create(
        model="demo", messages=ASK, reasoning_effort="high"
    )
    assert kwargs_of(plain_site) is None


@pytest.mark.parametrize(
    ("effort", "asked"),
    [
        ("none", {"enable_thinking": False}),
        ("minimal", {"enable_thinking": True, "reasoning_effort": "low"}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_openais_effort_reaches_the_template(site: Site, effort: Any, asked: Any) -> None:
    client = openai_client(site)
    client.chat.completions.create(model="demo", messages=ASK, reasoning_effort=effort)
    assert kwargs_of(site) == asked
    client.responses.create(model="demo", input="think-first", reasoning={"effort": effort})
    assert kwargs_of(site) == asked


def test_openai_calls_it_reasoning_content(site: Site) -> None:
    body = {"model": "demo", "messages": ASK, "stream": True}
    text = site.post("/v1/chat/completions", body).text
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in text.split("\n\n")[:-2]]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == THOUGHT


def test_a_client_cannot_set_template_variables_itself(site: Site) -> None:
    body = {"model": "demo", "messages": ASK, "chat_template_kwargs": {"x": 1}}
    assert site.post("/v1/chat/completions", body).status_code == 400
    assert (
        site.post(
            "/v1/responses", {"model": "demo", "input": "x", "reasoning": {"effort": 5}}
        ).status_code
        == 400
    )
    assert site.engine.requests == []
