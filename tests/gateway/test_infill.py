"""`suffix`, on both surfaces, and `context` of Ollama's generate, with both engines."""

from __future__ import annotations

from typing import Any

import ollama
import pytest

from tests.gateway.conftest import Site
from tests.gateway.test_clients import ollama_client, openai_client

QUESTION = "Which command builds a bundle?"
FOLLOWING = "What is the capital of France?"
GREEDY: dict[str, Any] = {"options": {"temperature": 0, "num_predict": 40}}


def test_ollama_inserts_between_two_texts(infill_site: Site) -> None:
    answer = ollama_client(infill_site).generate("demo", QUESTION, suffix=" ", options={
        "temperature": 0, "num_predict": 40,
    })
    if infill_site.engine.socket_path:
        assert infill_site.engine.requests[-1]["prompt"] == ["", 3, QUESTION, 1, " ", 4]
    else:
        assert "edgekit bundle" in answer.response
    assert answer.context is None


def test_openai_inserts_between_two_texts(infill_site: Site) -> None:
    answer = openai_client(infill_site).completions.create(
        model="demo", prompt=QUESTION, suffix=" ", temperature=0, max_tokens=40, stream=True
    )
    text = "".join(chunk.choices[0].text for chunk in answer)
    if infill_site.engine.socket_path:
        assert infill_site.engine.requests[-1]["prompt"] == ["", 3, QUESTION, 1, " ", 4]
    else:
        assert "edgekit bundle" in text


@pytest.mark.parametrize("path", ["/v1/completions", "/api/generate"])
def test_a_model_without_the_tokens_says_so(site: Site, path: str) -> None:
    response = site.post(path, {"model": "demo", "prompt": "x", "suffix": "y"})
    assert response.status_code == 400
    assert "insert" in response.text
    assert not site.engine.requests


def test_a_suffix_changes_the_digest_of_the_prompt(infill_site: Site) -> None:
    digests = set()
    for suffix in ("", "y", "z"):
        body = {"model": "demo", "prompt": "x", "suffix": suffix, "max_tokens": 1}
        infill_site.post("/v1/completions", body)
        digests.add(infill_site.wait_for_record("request")["prompt_hmac"])
    assert len(digests) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_by_its_context(any_site: Site, stream: bool) -> None:
    client = ollama_client(any_site)
    first = last(client.generate("demo", QUESTION, system="be short", stream=stream, **GREEDY))
    assert first.context
    assert all(0 <= number < 256 for number in first.context)
    second = last(client.generate(
        "demo", FOLLOWING, context=first.context, stream=stream, **GREEDY))
    assert second.context is not None
    assert len(second.context) > len(first.context)
    if any_site.engine.socket_path:
        messages = any_site.engine.requests[-1]["messages"]
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
        assert [m["content"] for m in messages][:2] == ["be short", QUESTION]
        assert messages[3]["content"] == FOLLOWING
        given = any_site.engine.requests[0]["messages"]
        assert messages[:2] == given
    tokens = any_site.post("/api/chat", {
        "model": "demo", "stream": False, "messages": [{"role": "user", "content": FOLLOWING}],
        **GREEDY,
    }).json()["prompt_eval_count"]
    assert (second.prompt_eval_count or 0) > tokens  # the engine saw the earlier turns


def test_a_new_system_prompt_takes_the_place_of_the_earlier(site: Site) -> None:
    client = ollama_client(site)
    first = client.generate("demo", "one", system="be short")
    client.generate("demo", "two", system="be long", context=first.context)
    messages = site.engine.requests[-1]["messages"]
    assert [m["content"] for m in messages if m["role"] == "system"] == ["be long"]
    assert len(messages) == 4


@pytest.mark.parametrize("context", [
    [1, 2], [300], ["x"], [0.5], "xx", {"a": 1}, [True],
    [*b'[["root","x"]]'], [*b'[["user",5]]'], [*b'[["user"]]'], [*b'{"user":"x"}'],
    [*b'["ab"]'], [*b"[5]"], [*b"[null]"], [*b"[" * 50],
    [*b'[["user","\xff"]]'], [*b'[[["user"],"x"]]'],
    [*(b'[["user","x"]' + b',["user","x"]' * 1000 + b"]")],
])
def test_a_context_of_another_origin_is_refused(site: Site, context: Any) -> None:
    response = site.post("/api/generate", {"model": "demo", "prompt": "x", "context": context})
    assert response.status_code == 400, response.text
    assert "context" in response.json()["error"]
    assert not site.engine.requests


@pytest.mark.parametrize("other", [{"raw": True}, {"suffix": "y"}])
def test_a_context_goes_with_chat_templates_alone(site: Site, other: dict[str, Any]) -> None:
    context = ollama_client(site).generate("demo", "one").context
    body = {"model": "demo", "prompt": "x", "context": context, **other}
    assert site.post("/api/generate", body).status_code == 400
    assert site.post("/api/generate", {**body, "context": []} | {"suffix": ""}).status_code == 200


def test_answers_without_a_template_have_no_context(site: Site) -> None:
    body = {"model": "demo", "prompt": "x", "raw": True, "stream": False}
    assert "context" not in site.post("/api/generate", body).json()


def last(answer: Any) -> ollama.GenerateResponse:
    if isinstance(answer, ollama.GenerateResponse):
        return answer
    *_, final = answer
    assert isinstance(final, ollama.GenerateResponse)
    return final
