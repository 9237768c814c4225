"""`/v1/messages` with Anthropic's own client."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.gateway.conftest import Site

QUESTION: Any = [{"role": "user", "content": "what is edgekit"}]
TOOL: Any = {"name": "look_up", "description": "look up", "input_schema": {"type": "object"}}


def anthropic_client(site: Site) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=site.url, api_key=site.token, max_retries=0)


def test_whole_and_stream_say_the_same(any_site: Site) -> None:
    client = anthropic_client(any_site)
    fields: Any = {
        "model": "demo",
        "messages": QUESTION,
        "max_tokens": 5,
        "extra_body": {"temperature": 0},
    }
    whole = client.messages.create(**fields, system="be short")
    assert whole.content[0].type == "text"
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 5)
    with client.messages.stream(**fields, system="be short") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text != ""
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 5)
    assert final.usage.input_tokens == whole.usage.input_tokens > 0
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


def test_an_answer_that_ends_by_itself_ends_its_turn(any_site: Site) -> None:
    client = anthropic_client(any_site)
    answer = client.messages.create(model="demo", messages=QUESTION, max_tokens=400)
    assert answer.stop_reason == "end_turn"


def test_a_tool_call_has_its_input_as_an_object(site: Site) -> None:
    client = anthropic_client(site)
    ask: Any = [{"role": "user", "content": "call-a-tool"}]
    fields: Any = {"model": "demo", "messages": ask, "max_tokens": 50, "tools": [TOOL]}
    whole = client.messages.create(**fields, tool_choice={"type": "any"})
    with client.messages.stream(**fields) as stream:
        final = stream.get_final_message()
    for message in (whole, final):
        assert message.stop_reason == "tool_use"
        call = message.content[0]
        assert call.type == "tool_use"
        assert (call.name, call.input) == ("look_up", {"place": "bridge"})
    assert site.engine.requests[0]["tool_choice"] == "required"
    assert site.engine.requests[0]["tools"][0]["function"]["name"] == "look_up"


def test_blocks_go_to_the_engine_as_chat(site: Site) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "where"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "tool_use", "id": "t1", "name": "look_up", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "here"},
                {"type": "text", "text": "so?"},
            ],
        },
    ]
    body = {"model": "demo", "messages": messages, "max_tokens": 3, "system": "s"}
    site.post("/v1/messages", body).raise_for_status()
    asked = site.engine.requests[-1]["messages"]
    assert [m["role"] for m in asked] == ["system", "user", "assistant", "tool", "user"]
    assert asked[2]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"a": 1}'}
    assert asked[3] == {"role": "tool", "tool_call_id": "t1", "content": "here"}


def test_a_schema_for_the_answer_goes_to_the_engine(site: Site) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    config: Any = {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    anthropic_client(site).messages.create(
        model="demo", messages=QUESTION, max_tokens=5, output_config=config
    )
    asked = site.engine.requests[-1]["response_format"]
    assert asked == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def test_thinking_is_shown_only_to_who_asked(site: Site) -> None:
    client = anthropic_client(site)
    ask: Any = [{"role": "user", "content": "think-first"}]
    fields: Any = {"model": "demo", "messages": ask, "max_tokens": 4}
    assert [b.type for b in client.messages.create(**fields).content] == ["text"]
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    with client.messages.stream(**fields, thinking=thinking) as stream:
        shown = stream.get_final_message().content
    assert [block.type for block in shown] == ["thinking", "text"]
    assert shown[0].thinking == "let me think"


def test_errors_have_their_classes(site: Site) -> None:
    client = anthropic_client(site)
    fields: Any = {"messages": QUESTION, "max_tokens": 5}
    with pytest.raises(anthropic.NotFoundError, match="not found"):
        client.messages.create(model="other", **fields)
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(model="demo", extra_body={"temperature": 3}, **fields)
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=site.url, api_key="x").messages.create(model="demo", **fields)
    broken: Any = [{"role": "user", "content": "die-midstream"}]
    with (
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(model="demo", messages=broken, max_tokens=9) as stream,
    ):
        stream.get_final_message()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", [{"role": "system", "content": "x"}]),
        ("messages", [{"role": "user", "content": [{"type": "image", "source": {}}]}]),
        ("messages", [{"role": "user", "content": [{"type": "tool_use", "id": "x"}]}]),
        ("max_tokens", 0),
        ("tools", [{"type": "bash_20250124", "name": "bash"}]),
        ("thinking", {"type": "always"}),
        ("mcp_servers", []),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(site: Site, field: str, value: Any) -> None:
    body = {"model": "demo", "messages": QUESTION, "max_tokens": 5, field: value}
    response = site.post("/v1/messages", body)
    assert response.status_code == 400
    assert response.json()["type"] == "error"
    assert site.engine.requests == []
