"""A model with a TEMPLATE of its own, on every surface, in front of both engines.

The templates say what the demo model's own says, so on the real engine its answers, and the number
of tokens that it reads, have to be those of the model itself: nothing is missing, nothing is there
twice.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Site, running_real_engine, running_site
from tests.gateway.test_anthropic import anthropic_client
from tests.gateway.test_clients import ollama_client, openai_client
from tests.gateway.test_conformance import sse
from tests.support.fake_engine import FakeEngine

QUESTION = "Which command builds a bundle?"
ANSWER = "edgekit bundle builds a signed bundle set from a recipe."
SAID: Any = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "2 plus 2 is 4."},
    {"role": "user", "content": QUESTION},
]
PROMPT = (
    "<|system|>be short<|end|><|user|>What is 2+2?<|end|><|assistant|>2 plus 2 is 4.<|end|>"
    f"<|user|>{QUESTION}<|end|><|assistant|>"
)
LISTED = (
    "<|begin|>{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"
)
TURNS = (
    "{{ if .System }}<|system|>{{ .System }}<|end|>{{ end }}"
    "{{ if .Prompt }}<|user|>{{ .Prompt }}<|end|>{{ end }}<|assistant|>{{ .Response }}<|end|>"
)
BETWEEN = "{{ if .Suffix }}<|user|>{{ .Prompt }}<|end|>{{ .Suffix }}<|assistant|>{{ end }}"
MADE = {
    "listed": f"FROM demo\nTEMPLATE {LISTED}\n",
    "turns": f"FROM demo\nTEMPLATE {TURNS}\n",
    "inserting": f'FROM demo\nTEMPLATE """{BETWEEN}{LISTED}"""\n',
    "answering": f'FROM demo\nSYSTEM be short\nTEMPLATE """{LISTED}"""\nPARAMETER stop set\n'
    "MESSAGE user What is 2+2?\nMESSAGE assistant 2 plus 2 is 4.\n",
    "growing": "FROM demo\nTEMPLATE {{ range .Messages }}{{ range $.Messages }}{{ .Role }}{{ end }}"
    "{{ end }}{{ range .Messages }}{{ .Content }}{{ end }}",
}
ABLE = ("completion", "tools", "thinking", "vision")
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 300}


@pytest.fixture(params=["fake", "real"])
def made_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    path = str(tmp_path / "templates.sock")
    engine = FakeEngine(path) if request.param == "fake" else None
    with contextlib.ExitStack() as stack:
        if engine is None:
            stack.enter_context(running_real_engine(path, tmp_path))
        site = running_site(tmp_path, engine, path, derived=MADE, capabilities=ABLE)
        yield stack.enter_context(site)


@pytest.fixture
def fake_site(tmp_path: Path) -> Iterator[Site]:
    engine = FakeEngine(str(tmp_path / "engine.sock"))
    with running_site(
        tmp_path, engine, engine.socket_path, derived=MADE, capabilities=ABLE
    ) as ready:
        yield ready


def is_real(site: Site) -> bool:
    return not site.engine.socket_path


def check_prompt(site: Site, prompt: str = PROMPT) -> None:
    """What the fake engine was asked last; its vocabulary has `<|begin|>` before every prompt."""
    if not is_real(site):
        assert site.engine.requests[-2] == {
            "content": "", "add_special": True, "with_pieces": True,
        }
        assert site.engine.requests[-1]["prompt"] == prompt


@pytest.mark.parametrize("model", ["listed", "turns"])
@pytest.mark.parametrize("stream", [False, True])
def test_openais_chat(made_site: Site, model: str, stream: bool) -> None:
    def ask(name: str) -> tuple[str, str, Any]:
        answer: Any = openai_client(made_site).chat.completions.create(
            model=name, messages=SAID, **GREEDY, stream=stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
        )
        if not stream:
            choice = answer.choices[0]
            return choice.message.content, choice.finish_reason, answer.usage
        *chunks, last = answer
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        return text, chunks[-1].choices[0].finish_reason, last.usage

    text, reason, usage = ask(model)
    check_prompt(made_site)
    assert reason == "stop"
    if is_real(made_site):
        own_text, own_reason, own_usage = ask("demo")
        assert (text, reason) == (own_text, own_reason) == (ANSWER, "stop")
        assert usage.prompt_tokens == own_usage.prompt_tokens
        assert usage.completion_tokens == own_usage.completion_tokens
    assert usage.prompt_tokens > 5
    assert usage.completion_tokens > 5


def test_the_stream_has_the_shape_and_the_order_of_a_chat(made_site: Site) -> None:
    def ask(name: str) -> Any:
        body = {"model": name, "messages": SAID, **GREEDY, "stream": True}
        chunks = sse(made_site.post("/v1/chat/completions", body).text)
        for chunk in chunks:
            for mark in ("id", "created", "model"):
                del chunk[mark]
        return chunks

    chunks = ask("listed")
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": None}
    assert choices[-1]["delta"] == {}
    assert choices[-1]["finish_reason"] == "stop"
    if is_real(made_site):
        assert chunks == ask("demo")
    else:
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert all(set(choice["delta"]) == {"content"} for choice in choices[1:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_ollamas_chat_and_generate(made_site: Site, stream: bool) -> None:
    client = ollama_client(made_site)
    options = {"temperature": 0, "num_predict": 300}

    def last(answer: Any) -> Any:
        return [*answer] if stream else [answer]

    told = last(client.chat("turns", SAID, options=options, stream=stream))
    check_prompt(made_site)
    generated = last(client.generate(
        "listed", QUESTION, system="be short", options=options, stream=stream
    ))
    check_prompt(made_site, f"<|system|>be short<|end|><|user|>{QUESTION}<|end|><|assistant|>")
    text = "".join(part.message.content for part in told)
    assert (told[-1].done_reason, generated[-1].done_reason) == ("stop", "stop")
    assert told[-1].eval_count > 5
    if is_real(made_site):
        assert text == "".join(part.response for part in generated) == ANSWER
        own = last(client.chat("demo", SAID, options=options, stream=stream))
        assert told[-1].prompt_eval_count == own[-1].prompt_eval_count


def test_anthropics_messages_and_openais_responses(made_site: Site) -> None:
    fields: Any = {"model": "listed", "system": "be short", "messages": SAID[1:]}
    whole = anthropic_client(made_site).messages.create(
        **fields, max_tokens=300, extra_body={"temperature": 0}
    )
    check_prompt(made_site)
    with anthropic_client(made_site).messages.stream(
        **fields, max_tokens=300, extra_body={"temperature": 0}
    ) as stream:
        streamed = stream.get_final_message()
    responses = openai_client(made_site).responses
    asked: Any = {"model": "listed", "instructions": "be short", "input": SAID[1:]}
    answer = responses.create(**asked, temperature=0)
    check_prompt(made_site)
    with responses.stream(**asked, temperature=0) as events:
        final = events.get_final_response()
    assert whole.stop_reason == streamed.stop_reason == "end_turn"
    texts = {whole.content[0].text, streamed.content[0].text, answer.output_text, final.output_text}
    assert len(texts) == 1
    if is_real(made_site):
        assert texts == {ANSWER}


def test_the_modelfiles_words_are_in_the_prompt_and_its_stops_stop(made_site: Site) -> None:
    answer = openai_client(made_site).chat.completions.create(
        model="answering", messages=[{"role": "user", "content": QUESTION}], **GREEDY
    )
    check_prompt(made_site)
    assert answer.choices[0].finish_reason == "stop"
    if is_real(made_site):
        assert answer.choices[0].message.content == ANSWER.partition("set")[0]
    else:
        assert made_site.engine.requests[-1]["stop"] == ["set"]


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/messages/count_tokens", {"system": "be short", "messages": SAID[1:]}),
    ("/v1/responses/input_tokens", {"instructions": "be short", "input": SAID[1:]}),
])
def test_tokens_are_counted_by_its_template(made_site: Site, path: str, body: Any) -> None:
    counted = made_site.post(path, {"model": "listed", **body}).json()["input_tokens"]
    if is_real(made_site):
        assert counted == made_site.post(path, {"model": "demo", **body}).json()["input_tokens"]
    else:
        assert counted == 1 + len(PROMPT.encode())
        asked = made_site.engine.requests[-1]
        assert asked == {"content": PROMPT, "add_special": True, "parse_special": True}


@pytest.mark.parametrize("path", ["/v1/completions", "/api/generate"])
def test_a_text_between_two_others(made_site: Site, path: str) -> None:
    body = {"model": "inserting", "prompt": QUESTION, "suffix": " ", "stream": False}
    options = {"options": {"temperature": 0}} if path == "/api/generate" else GREEDY
    answer = made_site.post(path, {**body, **options})
    assert answer.status_code == 200, answer.text
    # the rest of the template follows: Ollama gives it no messages there
    check_prompt(made_site, f"<|user|>{QUESTION}<|end|> <|assistant|><|begin|><|assistant|>")
    refused = made_site.post(path, {**body, "model": "listed"})
    assert refused.status_code == 400
    assert "insert" in refused.text


def test_an_answer_follows_a_schema_and_has_probabilities(made_site: Site) -> None:
    schema = {"enum": ["bridge"]}  # no space is allowed in it, where a small model would stay
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    client = openai_client(made_site)
    for stream in (False, True):
        answer: Any = client.chat.completions.create(
            model="listed", messages=SAID, **GREEDY, response_format=wanted, logprobs=True,
            top_logprobs=2, n=2, stream=stream,
        )
        if stream:
            chunks = [chunk.choices[0] for chunk in answer]
            assert {choice.index for choice in chunks} == {0, 1}
            roles = [choice.index for choice in chunks if choice.delta.role]
            assert roles == [0, 1]
            tokens = [t for choice in chunks if choice.logprobs for t in choice.logprobs.content]
            text = "".join(c.delta.content or "" for c in chunks if c.index == 1)
        else:
            assert [choice.index for choice in answer.choices] == [0, 1]
            tokens = answer.choices[1].logprobs.content
            text = answer.choices[1].message.content
        assert tokens
        assert all(len(token.top_logprobs) == 2 for token in tokens)
        if is_real(made_site):
            assert json.loads(text) == "bridge"
        else:
            assert made_site.engine.requests[-1]["json_schema"] == schema


TOOL = {"type": "function", "function": {"name": "look_up"}}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ"
    "/pLvAAAAAElFTkSuQmCC"
)


@pytest.mark.parametrize(("path", "body", "word"), [
    ("/v1/chat/completions", {"messages": SAID, "tools": [TOOL]}, "tools"),
    ("/v1/chat/completions", {"messages": SAID, "tool_choice": "required"}, "tools"),
    ("/v1/chat/completions", {"messages": [*SAID, {"role": "tool", "content": "x"}]}, "tools"),
    ("/v1/chat/completions", {"messages": [*SAID, {"role": "assistant", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "x", "arguments": "{}"}}
    ]}]}, "tools"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": PIXEL}}
    ]}]}, "images"),
    ("/api/chat", {"messages": SAID, "tools": [TOOL]}, "tools"),
    ("/api/chat", {"messages": SAID, "think": True}, "thinking"),
    ("/v1/messages", {"messages": SAID[1:], "max_tokens": 5, "tools": [
        {"name": "look_up", "input_schema": {"type": "object"}}
    ]}, "tools"),
    ("/v1/messages/count_tokens", {"messages": SAID[1:], "tools": [
        {"name": "look_up", "input_schema": {"type": "object"}}
    ]}, "tools"),
    ("/v1/responses", {"input": "x", "tools": [{"type": "function", "name": "x"}]}, "tools"),
])
def test_what_goes_with_the_weights_template_alone_is_refused(
    fake_site: Site, path: str, body: Any, word: str
) -> None:
    response = fake_site.post(path, {"model": "listed", **body})
    assert response.status_code == 400, response.text
    assert f"does not support {word}" in response.text
    assert not fake_site.engine.requests
    denied = fake_site.wait_for_record("denied")
    assert denied["reason"] == "unsupported"
    assert fake_site.post(path, {"model": "demo", **body}).status_code in (200, 400)


def test_a_conversation_that_costs_too_much_is_refused(fake_site: Site) -> None:
    body = {"model": "growing", "messages": [{"role": "user", "content": "x"},
                                             {"role": "assistant", "content": "y"}] * 400}
    response = fake_site.post("/v1/chat/completions", body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "template_failed"
    assert "too many steps" in response.text
    assert not fake_site.engine.requests


def test_what_is_too_long_and_what_breaks_off_is_said_as_ever(fake_site: Site) -> None:
    def ask(text: str, **fields: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return fake_site.post(
            "/v1/chat/completions", {"model": "turns", "messages": messages, **fields}
        )

    long = ask("word " * 600)
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert ask("die-early").status_code == 502
    assert ask("not-json").status_code == 502
    assert '"engine_failed"' in ask("error-midstream", stream=True).text
    assert "secret path" not in ask("error-midstream", stream=True).text
    record = fake_site.wait_for_record("response")
    assert record["error"] == "engine_failed"


class _Mute(FakeEngine):
    """An engine that gives this instead of tokens."""

    told: tuple[int, object] = (503, {"error": {"message": "Loading model", "code": 503}})

    async def _generate(self, target: str, request: dict[str, Any], sender: Any) -> None:
        await sender.whole(*self.told)


@pytest.mark.parametrize(("told", "status"), [
    ((503, {"error": {"message": "Loading model", "code": 503}}), 503),
    ((200, {"tokens": [5]}), 502),
    ((200, {"tokens": [{"id": 5}]}), 502),
    ((200, b"<html>"), 502),
])
def test_an_engine_that_gives_no_tokens_is_not_asked_for_more(
    tmp_path: Path, told: tuple[int, object], status: int
) -> None:
    engine = _Mute(str(tmp_path / "engine.sock"))
    engine.told = told
    body = {"model": "listed", "messages": SAID}
    with running_site(tmp_path, engine, engine.socket_path, derived=MADE) as site:
        assert site.post("/v1/chat/completions", body).status_code == status
        assert len(engine.requests) == 1
        assert site.wait_for_record("response")["status"] == status


def test_the_audit_log_has_the_digests_of_what_the_client_sent(fake_site: Site) -> None:
    digests = []
    for model in ("demo", "listed"):
        fake_site.post("/v1/chat/completions", {"model": model, "messages": SAID, "max_tokens": 1})
        record = fake_site.wait_for_record("request")
        digests.append((record["prompt_hmac"], record["text_hmac"]))
    assert digests[0] == digests[1]


def test_show_has_the_template_and_what_the_model_can_do_with_it(fake_site: Site) -> None:
    shown = ollama_client(fake_site).show("listed")
    assert shown.template == LISTED
    assert shown.capabilities == ["completion"]
    assert f"TEMPLATE {LISTED}" in (shown.modelfile or "")
    assert ollama_client(fake_site).show("inserting").capabilities == ["completion", "insert"]
    assert ollama_client(fake_site).show("demo").template == ""


def test_models_without_one_are_asked_as_before(fake_site: Site) -> None:
    fake_site.post("/v1/chat/completions", {"model": "demo", "messages": SAID, "max_tokens": 1})
    (asked,) = fake_site.engine.requests
    assert asked["messages"] == SAID
