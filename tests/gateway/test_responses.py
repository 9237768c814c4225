"""`/v1/responses` with OpenAI's own client, and the order of its events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.conftest import Site
from tests.gateway.test_clients import openai_client

QUESTION = "what is edgekit"
TOOL: Any = {"type": "function", "name": "look_up", "parameters": {"type": "object"}}


def events(text: str) -> list[dict[str, Any]]:
    """The payloads of a stream whose event names and numbers are right."""
    blocks = text.removesuffix("\n\n").split("\n\n")
    payloads = []
    for number, block in enumerate(blocks):
        name, data = block.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        assert payload["sequence_number"] == number
        payloads.append(payload)
    return payloads


def test_the_stream_has_openais_order_and_is_incomplete_when_cut(any_site: Site) -> None:
    body = {"model": "demo", "input": QUESTION, "max_output_tokens": 5, "temperature": 0}
    streamed = any_site.post("/v1/responses", {**body, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    payloads = events(streamed.text)
    kinds = [payload["type"] for payload in payloads]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    last = payloads[-1]["response"]
    text = "".join(p["delta"] for p in payloads if p["type"] == "response.output_text.delta")
    assert last["output"][0]["content"][0]["text"] == text != ""
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (last["status"], last["usage"]["output_tokens"]) == ("incomplete", 5)
    whole = any_site.post("/v1/responses", body).json()
    assert whole["output"][0]["content"] == last["output"][0]["content"]
    assert whole["status"] == whole["output"][0]["status"] == "incomplete"


def test_the_official_client_reads_both_forms(any_site: Site) -> None:
    client = openai_client(any_site)
    fields: dict[str, Any] = {"model": "demo", "input": QUESTION, "temperature": 0}
    answer = client.responses.create(**fields, instructions="be short")
    assert answer.status == "completed"
    assert answer.output_text
    assert answer.instructions == "be short"
    with client.responses.stream(**fields, instructions="be short") as stream:
        assert stream.get_final_response().output_text == answer.output_text


def test_a_tool_call_streams_as_an_item_of_its_own(site: Site) -> None:
    client = openai_client(site)
    with client.responses.stream(model="demo", input="call-a-tool", tools=[TOOL]) as stream:
        final = stream.get_final_response()
    call = final.output[0]
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("look_up", '{"place": "bridge"}')
    whole = client.responses.create(model="demo", input="call-a-tool", tools=[TOOL])
    assert whole.output[0].type == "function_call"
    assert whole.output[0].arguments == call.arguments


def test_calls_and_their_results_go_to_the_engine_as_chat(site: Site) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "where"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "look_up", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "here"},
    ]
    site.post("/v1/responses", {"model": "demo", "input": items}).raise_for_status()
    messages = site.engine.requests[-1]["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "tool"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c1", "c2"]
    assert messages[2] == {"role": "tool", "tool_call_id": "c1", "content": "here"}


def test_reasoning_is_an_item_before_the_message(site: Site) -> None:
    body = {"model": "demo", "input": "think-first", "max_output_tokens": 4}
    output = site.post("/v1/responses", body).json()["output"]
    assert [item["type"] for item in output] == ["reasoning", "message"]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "let me think"}]
    payloads = events(site.post("/v1/responses", {**body, "stream": True}).text)
    assert [p["delta"] for p in payloads if p["type"] == "response.reasoning_text.delta"] == [
        "let me",
        " think",
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", {"id": "c"}),
        ("background", True),
        ("tools", [{"type": "web_search"}]),
        ("input", []),
        ("input", [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
        ("temperature", 3),
        ("tool_choice", "sometimes"),
        ("surprise", 1),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(site: Site, field: str, value: Any) -> None:
    response = site.post("/v1/responses", {"model": "demo", "input": "x", field: value})
    assert response.status_code == 400
    assert field in response.json()["error"]["param"]
    assert site.engine.requests == []


def test_a_stream_that_breaks_says_so(site: Site) -> None:
    body = {"model": "demo", "input": "die-midstream", "stream": True}
    kinds = [p["type"] for p in events(site.post("/v1/responses", body).text)]
    assert kinds[-2:] == ["error", "response.failed"]
    seen = list(openai_client(site).responses.create(**body))
    assert seen[-1].response.status == "failed"
