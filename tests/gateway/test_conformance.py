"""Both surfaces, checked against the fake engine and the real one with the same eyes."""

from __future__ import annotations

import concurrent.futures
import json
from typing import Any

import pytest

from tests.gateway.conftest import Site

MESSAGES = [{"role": "user", "content": "what is edgekit"}]
GREEDY = {"temperature": 0, "seed": 1}


def sse(text: str) -> list[Any]:
    """The payloads of a stream that ends as it must."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    assert blocks.pop() == "data: [DONE]"
    return [json.loads(block[6:]) for block in blocks]


def chat(site: Site, **fields: Any) -> Any:
    response = site.post(
        "/v1/chat/completions",
        {"model": "demo", "messages": MESSAGES, "max_tokens": 6, **GREEDY, **fields},
    )
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("asked", [None, {"include_usage": True}, {"include_usage": False}])
def test_chat_stream_has_openais_order(any_site: Site, asked: dict[str, bool] | None) -> None:
    response = chat(any_site, stream=True, stream_options=asked, model="demo:latest")
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = sse(response.text)
    assert {(c["id"], c["created"], c["model"], c["object"]) for c in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], "demo:latest", "chat.completion.chunk")
    }
    if asked and asked["include_usage"]:
        usage = chunks.pop()
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == 6
        assert usage["usage"]["total_tokens"] == 6 + usage["usage"]["prompt_tokens"]
    choices = [chunk["choices"] for chunk in chunks]
    assert all(len(choice) == 1 and choice[0]["index"] == 0 for choice in choices)
    assert choices[0][0]["delta"]["role"] == "assistant"
    assert choices[-1][0] == {"index": 0, "delta": {}, "finish_reason": "length"}
    content = [choice[0] for choice in choices[1:-1]]
    assert content
    assert all(set(c["delta"]) == {"content"} and c["finish_reason"] is None for c in content)
    assert not any("usage" in chunk or "timings" in chunk for chunk in chunks)


def test_chat_whole_equals_its_stream(any_site: Site) -> None:
    whole = chat(any_site).json()
    streamed = sse(chat(any_site, stream=True).text)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": text}
    assert whole["choices"][0]["finish_reason"] == "length"
    assert (whole["object"], whole["model"]) == ("chat.completion", "demo")
    assert whole["usage"]["completion_tokens"] == 6
    assert "timings" not in whole


def test_completion_stream_and_whole(any_site: Site) -> None:
    body = {"model": "demo", "prompt": "edgekit", "max_tokens": 5, **GREEDY}
    whole = any_site.post("/v1/completions", body).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = sse(any_site.post("/v1/completions", {**body, **options}).text)
    usage = chunks.pop()
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    assert "".join(c["choices"][0]["text"] for c in chunks) == whole["choices"][0]["text"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert not any("usage" in chunk for chunk in chunks)
    assert whole["object"] == chunks[0]["object"] == usage["object"] == "text_completion"


def test_ollama_chat_stream_and_whole(any_site: Site) -> None:
    body = {"model": "demo", "messages": MESSAGES, "options": {"num_predict": 5, **GREEDY}}
    response = any_site.post("/api/chat", body)
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    whole = any_site.post("/api/chat", {**body, "stream": False}).json()
    text = "".join(line["message"]["content"] for line in lines)
    assert whole["message"] == {"role": "assistant", "content": text}
    for last in (lines[-1], whole):
        assert (last["model"], last["done_reason"], last["eval_count"]) == ("demo", "length", 5)
        assert last["prompt_eval_count"] > 0
        assert 0 < last["eval_duration"] < last["total_duration"] < 60_000_000_000
        assert last["prompt_eval_duration"] > 0


def test_ollama_generate_stream_whole_and_raw(any_site: Site) -> None:
    body = {
        "model": "demo:latest",
        "prompt": "what is edgekit",
        "system": "be short",
        "options": {"num_predict": 5, **GREEDY},
    }
    lines = [json.loads(line) for line in any_site.post("/api/generate", body).text.splitlines()]
    whole = any_site.post("/api/generate", {**body, "stream": False}).json()
    assert "".join(line["response"] for line in lines) == whole["response"]
    assert (whole["done_reason"], whole["eval_count"], whole["model"]) == (
        "length",
        5,
        "demo:latest",
    )
    raw = any_site.post("/api/generate", {**body, "raw": True, "stream": False}).json()
    assert raw["eval_count"] == 5


def test_context_that_is_too_small_is_said_by_name(any_site: Site) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "word " * 3000}]}
    response = any_site.post("/v1/chat/completions", body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    ollama = any_site.post("/api/chat", body)
    assert ollama.status_code == 400
    assert isinstance(ollama.json()["error"], str)


def test_stop_text_ends_with_reason_stop(any_site: Site) -> None:
    text = chat(any_site).json()["choices"][0]["message"]["content"]
    stopped = chat(any_site, stop=[text[2:4]]).json()["choices"][0]
    assert stopped["finish_reason"] == "stop"


def test_records_have_the_engines_counts(any_site: Site) -> None:
    usage = chat(any_site, stream=True, stream_options={"include_usage": True})
    counts = sse(usage.text)[-1]["usage"]
    record = any_site.wait_for_record("response")
    assert (record["tokens_in"], record["tokens_out"], record["finish_reason"]) == (
        counts["prompt_tokens"],
        counts["completion_tokens"],
        "length",
    )
    assert record["status"] == 200
    assert 0 <= record["ttft_ms"] <= record["latency_ms"]


def test_many_at_once_all_arrive(any_site: Site) -> None:
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        texts = list(pool.map(lambda _: sse(chat(any_site, stream=True).text), range(24)))
    assert len({json.dumps([c["choices"] for c in chunks]) for chunks in texts}) == 1
