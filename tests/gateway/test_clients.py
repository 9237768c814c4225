"""The official OpenAI and Ollama clients, unchanged, against both engines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anthropic
import ollama
import openai
import pytest

from edgekit.core.api_keys import KeyLimits, KeyRing
from tests.gateway.conftest import Site, make_key

MESSAGES = [{"role": "user", "content": "what is edgekit"}]


def openai_client(site: Site) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.token, max_retries=0)


def ollama_client(site: Site) -> ollama.Client:
    return ollama.Client(host=site.url, headers={"Authorization": f"Bearer {site.token}"})


def test_openai_chat(any_site: Site) -> None:
    client = openai_client(any_site)
    answer = client.chat.completions.create(
        model="demo", messages=MESSAGES, max_completion_tokens=5, temperature=0
    )  # type: ignore[arg-type]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage
    assert answer.usage.completion_tokens == 5
    chunks = list(
        client.chat.completions.create(
            model="demo",
            messages=MESSAGES,
            max_tokens=5,
            temperature=0,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 5


def test_openai_completions_and_models(any_site: Site) -> None:
    client = openai_client(any_site)
    parts = list(
        client.completions.create(
            model="demo", prompt="x", max_tokens=4, temperature=0, stream=True
        )
    )
    whole = client.completions.create(model="demo", prompt="x", max_tokens=4, temperature=0)
    assert "".join(p.choices[0].text for p in parts) == whole.choices[0].text
    assert [m.id for m in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").owned_by == "edgekit"


def test_openai_errors_have_their_classes(site: Site) -> None:
    client = openai_client(site)
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.chat.completions.create(model="other", messages=MESSAGES)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="demo", messages=MESSAGES, temperature=3)  # type: ignore[arg-type]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{site.url}/v1", api_key="x").models.list()
    with (
        pytest.raises(openai.APIError),
        openai_client(site).chat.completions.create(
            model="demo",
            stream=True,
            messages=[{"role": "user", "content": "die-midstream"}],
        ) as stream,
    ):
        list(stream)
    site.auditd.process.kill()
    with pytest.raises(openai.InternalServerError, match="audit log is unavailable"):
        client.chat.completions.create(model="demo", messages=MESSAGES)  # type: ignore[arg-type]


def test_ollama_chat_and_generate(any_site: Site) -> None:
    client = ollama_client(any_site)
    options = {"num_predict": 5, "temperature": 0}
    whole = client.chat("demo", MESSAGES, options=options)
    parts = list(client.chat("demo", MESSAGES, options=options, stream=True))
    assert "".join(p.message.content or "" for p in parts) == whole.message.content
    assert (parts[-1].done_reason, whole.eval_count) == ("length", 5)
    generated = client.generate("demo", "x", options=options, keep_alive="5m", system="short")
    streamed = list(client.generate("demo", "x", options=options, system="short", stream=True))
    assert "".join(p.response for p in streamed) == generated.response
    assert client.generate("demo").done_reason == "load"


def test_ollama_queries_and_refusals(site: Site) -> None:
    client = ollama_client(site)
    assert [m.model for m in client.list().models] == ["demo:latest"]
    assert [m.name for m in client.ps().models] == ["demo:latest"]
    shown = client.show("demo")
    assert shown.details
    assert shown.details.quantization_level == "Q8_0"
    for call in (
        lambda: client.pull("x"),
        lambda: client.delete("demo"),
        lambda: client.create("x", from_="demo"),
        lambda: client.copy("demo", "x"),
    ):
        with pytest.raises(ollama.ResponseError, match="signed bundles"):
            call()
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.chat("other", MESSAGES)


def test_quota_and_scope_have_their_classes_in_every_client(site: Site) -> None:
    """What a client does next (wait, ask the operator) hangs on these."""
    chat: Any = {"model": "demo", "messages": MESSAGES}
    key, token = make_key("chat")
    limited, limited_token = make_key("chat")
    limited = replace(limited, limits=KeyLimits(requests_per_minute=1))
    vectors, vectors_token = make_key("embed")

    async def accept() -> None:
        site.gateway.replace_keys(KeyRing((key, limited, vectors)))

    site.on_loop(accept())
    site.token = vectors_token
    with pytest.raises(openai.PermissionDeniedError, match="lacks the scope chat"):
        openai_client(site).chat.completions.create(**chat)
    with pytest.raises(ollama.ResponseError) as denied:
        ollama_client(site).chat(**chat)
    assert denied.value.status_code == 403
    site.token = token
    with pytest.raises(openai.PermissionDeniedError, match="lacks the scope embed"):
        openai_client(site).embeddings.create(model="demo", input="x")
    site.token = limited_token
    assert openai_client(site).chat.completions.create(**chat).choices
    with pytest.raises(openai.RateLimitError) as waits:
        openai_client(site).chat.completions.create(**chat)
    assert waits.value.code == "rate_limit_exceeded"
    assert int(waits.value.response.headers["retry-after"]) > 0
    with pytest.raises(ollama.ResponseError) as waiting:
        ollama_client(site).chat(**chat)
    assert waiting.value.status_code == 429
    native = anthropic.Anthropic(base_url=site.url, api_key=site.token, max_retries=0)
    with pytest.raises(anthropic.RateLimitError):
        native.messages.create(**chat, max_tokens=5)


def test_a_prompt_that_is_too_long_has_its_code(any_site: Site) -> None:
    long: Any = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client(any_site).chat.completions.create(model="demo", messages=long)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(ollama.ResponseError, match="prompt is too long") as native:
        ollama_client(any_site).chat("demo", long)
    assert native.value.status_code == 400
    other = anthropic.Anthropic(base_url=any_site.url, api_key=any_site.token, max_retries=0)
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        other.messages.create(model="demo", messages=long, max_tokens=5)
