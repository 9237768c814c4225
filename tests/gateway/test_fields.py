"""Fields beyond the plain question, checked against the fake engine and the real one."""

from __future__ import annotations

import math
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.gateway.conftest import Site
from tests.gateway.test_clients import MESSAGES, ollama_client, openai_client
from tests.gateway.test_conformance import GREEDY, chat, sse
from tests.gateway.test_keys import client

TEXT = "Paris é"


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_are_numbered_and_counted(any_site: Site, stream: bool) -> None:
    one = chat(any_site).json()
    if stream:
        text = chat(any_site, n=3, stream=True, stream_options={"include_usage": True}).text
        *chunks, last = sse(text)
        usage, answers = last["usage"], ["", "", ""]
        for chunk in chunks:
            (choice,) = chunk["choices"]
            answers[choice["index"]] += choice["delta"].get("content") or ""
        ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
        assert ends == [0, 1, 2]
    else:
        whole = chat(any_site, n=3).json()
        usage = whole["usage"]
        assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
        answers = [choice["message"]["content"] for choice in whole["choices"]]
    assert answers == [one["choices"][0]["message"]["content"]] * 3  # temperature 0
    assert usage["completion_tokens"] == 3 * one["usage"]["completion_tokens"]
    assert usage["prompt_tokens"] == one["usage"]["prompt_tokens"]
    record = any_site.wait_for_record("response")
    assert record["tokens_out"] == usage["completion_tokens"]


def test_each_of_several_answers_has_a_seed_of_its_own(site: Site) -> None:
    site.post("/v1/completions", {"model": "demo", "prompt": "x", "n": 2, "seed": 7})
    assert [request["seed"] for request in site.engine.requests] == [7, 8]
    assert "n" not in site.engine.requests[0]
    assert site.wait_for_record("request")["params"]["n"] == 2


def test_probabilities_of_openais_chat(any_site: Site) -> None:
    answer = openai_client(any_site).chat.completions.create(
        model="demo", messages=MESSAGES, max_tokens=4, temperature=0, logprobs=True, top_logprobs=2
    )  # type: ignore[call-overload]
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    for token in tokens:
        assert 0 < math.exp(token.logprob) <= 1
        assert len(token.top_logprobs) == 2
        assert bytes(token.bytes).decode() == token.token


def test_probabilities_of_completions_have_their_own_shape(any_site: Site) -> None:
    fields: Any = {"model": "demo", "prompt": "edgekit", "max_tokens": 4, "temperature": 0}
    create = openai_client(any_site).completions.create
    choice = create(**fields, logprobs=2).choices[0]
    found = choice.logprobs
    assert found is not None
    assert "".join(found.tokens or []) == choice.text
    assert [len(top) for top in found.top_logprobs or []] == [2] * 4
    lengths = [len(token) for token in found.tokens or []]
    assert found.text_offset == [sum(lengths[:index]) for index in range(4)]
    parts = [part.choices[0].logprobs for part in create(**fields, logprobs=2, stream=True)]
    streamed = [part for part in parts if part]
    assert [t for part in streamed for t in part.tokens or []] == found.tokens
    assert [o for part in streamed for o in part.text_offset or []] == found.text_offset


@pytest.mark.parametrize("raw", [False, True])
def test_probabilities_of_ollamas_calls(any_site: Site, raw: bool) -> None:
    ask: Any = {"logprobs": True, "top_logprobs": 2, "options": {"num_predict": 4, **GREEDY}}
    native = ollama_client(any_site)
    if raw:
        whole = native.generate("demo", "edgekit", raw=True, **ask)
        text = whole.response
        parts = list(native.generate("demo", "edgekit", raw=True, stream=True, **ask))
    else:
        whole = native.chat("demo", MESSAGES, **ask)
        text = whole.message.content
        parts = list(native.chat("demo", MESSAGES, stream=True, **ask))
    assert whole.logprobs is not None
    assert "".join(token.token for token in whole.logprobs) == text
    assert {len(token.top_logprobs or []) for token in whole.logprobs} == {2}
    assert [t.token for p in parts for t in p.logprobs or []] == [t.token for t in whole.logprobs]


def test_tokens_of_a_text_and_back(any_site: Site) -> None:
    body = {"model": "demo", "prompt": TEXT, "return_token_strs": True}
    found = any_site.post("/tokenize", body).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"]) > 1
    assert found["max_model_len"] == 512
    plain = any_site.post("/tokenize", {**body, "add_special_tokens": False}).json()
    assert plain["tokens"] == found["tokens"][1:]
    back = any_site.post("/detokenize", {"model": "demo", "tokens": plain["tokens"]}).json()
    assert back == {"prompt": TEXT}
    control = any_site.post("/tokenize", {"model": "demo", "prompt": "<|end|>"}).json()
    assert control["count"] > 2  # the text, not the control token of this name
    record = any_site.wait_for_record("request")
    assert record["endpoint"] == "/tokenize"
    refused = any_site.post("/detokenize", {"model": "demo", "tokens": [70_000]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tokens")


def test_a_conversation_is_counted_as_it_is_served(any_site: Site) -> None:
    native = anthropic.Anthropic(base_url=any_site.url, api_key=any_site.token, max_retries=0)
    messages: Any = [*MESSAGES]
    counted = native.messages.count_tokens(model="demo", messages=messages).input_tokens
    more = native.messages.count_tokens(model="demo", messages=messages, system="be short")
    assert more.input_tokens > counted > 0
    other = openai_client(any_site).responses.input_tokens.count(
        model="demo", input=MESSAGES[0]["content"]
    )
    assert other.input_tokens == counted
    assert other.object == "response.input_tokens"


def test_the_real_engines_count_is_what_it_bills(real_site: Site) -> None:
    body = {"model": "demo", "input": MESSAGES[0]["content"]}
    counted = real_site.post("/v1/responses/input_tokens", body).json()["input_tokens"]
    assert chat(real_site).json()["usage"]["prompt_tokens"] == counted


def test_counting_is_no_proof_of_an_engine(site: Site) -> None:
    site.post("/tokenize", {"model": "demo", "prompt": "x"})
    with client(site, "admin") as other:
        (engine,) = other.get("/edgekit/state").json()["engines"]
    assert engine["last_token_s"] is None or engine["last_token_s"] < 1
    asked = [request for request in site.engine.requests if request.get("max_tokens") == 1]
    assert asked  # the state asked for a token of its own: the count was none


def test_thinking_is_told_apart_and_can_be_switched(site: Site) -> None:
    ask: Any = [{"role": "user", "content": "think-first"}]
    native = ollama_client(site)
    whole = native.chat("demo", ask)
    assert whole.message.thinking == "let me think"
    parts = list(native.chat("demo", ask, think="high", stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == "let me think"
    assert native.generate("demo", "think-first").thinking == "let me think"
    assert native.chat("demo", ask, think=False).message.thinking is None
    kwargs = [request.get("chat_template_kwargs") for request in site.engine.requests]
    high = {"enable_thinking": True, "reasoning_effort": "high"}
    assert kwargs == [None, high, None, {"enable_thinking": False}]


def test_a_model_that_cannot_think_says_so(plain_site: Site) -> None:
    native = ollama_client(plain_site)
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        native.chat("demo", MESSAGES, think=True)
    assert native.chat("demo", MESSAGES, think=False, options={"num_predict": 2}).eval_count == 2


def test_what_is_too_long_to_embed_is_said_by_name(embedding_site: Site) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client(embedding_site).embeddings.create(model="demo", input="word " * 3000)
    assert refused.value.code == "context_length_exceeded"
    assert "prompt is too long" in refused.value.message


def test_reranking_is_not_pretended(site: Site) -> None:
    with client(site, "embed") as other:
        answer = other.post("/v1/rerank", json={"model": "demo", "query": "a", "documents": ["b"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")
    assert "does not support rerank" in answer.json()["error"]["message"]
