"""Pictures from recipe to answer: the real engine sees a colour and names a capital for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.conftest import REPOSITORY, bundle_demo
from tests.support.appliance import MODEL, DemoSet, RunningAppliance, free_port
from tests.support.pictures import BLUE, GREEN, RED, data_url, gif, jpeg, plain, png

WEIGHTS = "gguf/edgekit-demo-q8_0.gguf"
CAPITALS = {RED: ("France", "Paris"), GREEN: ("Italy", "Rome"), BLUE: ("Germany", "Berlin")}
"""What the demo model's projector sees in a colour (models/demo/make_mmproj.py)."""


def answer_for(colour: tuple[int, int, int]) -> str:
    return "The capital of {} is {}.".format(*CAPITALS[colour])


@pytest.fixture(scope="module")
def host(
    demo_set: DemoSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAppliance]:
    seeing = bundle_demo(
        demo_set.root.parent, demo_set.signer, demo_set.root,
        ('name = "demo-small"', 'name = "demo-vision"'),
        (f'folder = "{REPOSITORY}/models/demo/gguf"', f'folder = "{REPOSITORY}/models/demo"'),
        ('files = ["edgekit-demo-q8_0.gguf"]',
         f'files = ["{WEIGHTS}"]\nmmproj = "vision/edgekit-demo-colours-f32.gguf"'),
    )
    running = RunningAppliance(seeing, tmp_path_factory.mktemp("v"), free_port())
    running.install()
    running.serve()
    yield running
    running.stop()


@pytest.fixture
def client(host: RunningAppliance) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{host.url}/v1", api_key=host.api_key, max_retries=0)


@pytest.mark.parametrize("colour", CAPITALS)
def test_openai_chat_and_responses_see(
    client: openai.OpenAI, colour: tuple[int, int, int]
) -> None:
    url = data_url(png(colour))
    chat = client.chat.completions.create(
        model=MODEL, temperature=0, messages=[{"role": "user", "content": [
            {"type": "text", "text": "What is the capital of"},
            {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]}])
    assert chat.choices[0].message.content == answer_for(colour)
    words = client.chat.completions.create(model=MODEL, temperature=0, messages=[
        {"role": "user", "content": f"What is the capital of {CAPITALS[colour][0]}?"}])
    assert chat.usage
    assert words.usage
    assert chat.usage.prompt_tokens == words.usage.prompt_tokens  # one token for the country
    response = client.responses.create(model=MODEL, temperature=0, input=[
        {"role": "user", "content": [
            {"type": "input_text", "text": "What is the capital of"},
            {"type": "input_image", "image_url": url, "detail": "auto"},
            {"type": "input_text", "text": "?"}]}])
    assert response.output_text == answer_for(colour)


def test_ollama_sees_and_says_that_it_can(host: RunningAppliance) -> None:
    client = ollama.Client(host.url, headers={"Authorization": f"Bearer {host.api_key}"})
    assert "vision" in (client.show(MODEL).capabilities or [])
    answer = client.chat(MODEL, options={"temperature": 0}, messages=[
        {"role": "user", "content": " has which capital?", "images": [png(GREEN)]}])
    assert answer.message.content == answer_for(GREEN)
    generated = client.generate(
        MODEL, " has which capital?", images=[png(BLUE)], options={"temperature": 0})
    assert generated.response == answer_for(BLUE)


def test_anthropics_blocks_see(host: RunningAppliance) -> None:
    client = anthropic.Anthropic(base_url=host.url, api_key=host.api_key, max_retries=0)
    answer = client.messages.create(
        model=MODEL, max_tokens=40, extra_body={"temperature": 0},
        messages=[{"role": "user", "content": [
            {"type": "text", "text": "What is the capital of"},
            {"type": "image", "source": {
                "type": "base64", "media_type": "image/png", "data": plain(png(RED))}},
            {"type": "text", "text": "?"}]}])
    assert answer.content[0].type == "text"
    assert answer.content[0].text == answer_for(RED)


def post(host: RunningAppliance, path: str, body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {host.api_key}"}
    return httpx.post(f"{host.url}{path}", json=body, headers=headers, timeout=30)


def test_what_the_decoder_cannot_read_is_refused_and_the_engine_goes_on(
    host: RunningAppliance, client: openai.OpenAI
) -> None:
    for picture in (jpeg(), gif(), png(data=b"\0"), png()[:-30]):
        content = [{"type": "image_url", "image_url": {"url": data_url(picture)}}]
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
        answer = post(host, "/v1/chat/completions", body)
        assert answer.status_code in (200, 400), answer.text
    assert "Paris" in str(client.chat.completions.create(
        model=MODEL, temperature=0,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
    ).choices[0].message.content)


def test_the_audit_log_has_sizes_and_keyed_digests_and_no_picture(host: RunningAppliance) -> None:
    pictures = [png(RED), png(GREEN)]
    content = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in pictures]
    body = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
    for _ in range(2):
        assert post(host, "/v1/chat/completions", body).status_code == 200
    folder = host.root / "var/lib/edgekit/audit"
    files = [path for path in folder.rglob("*") if path.is_file()]
    lines = [path.read_text() for path in files if b'"type":"request"' in path.read_bytes()]
    assert lines
    records = [json.loads(line) for text in lines for line in text.splitlines()]
    first, second = [r for r in records if r["type"] == "request" and "image_hmac" in r][-2:]
    assert first["image_bytes"] == " ".join(str(len(picture)) for picture in pictures)
    digests = first["image_hmac"].split()
    assert [len(digest) for digest in digests] == [96, 96]
    assert digests[0] != digests[1]
    assert second["image_hmac"] == first["image_hmac"]
    assert not any(plain(picture)[:40] in text for picture in pictures for text in lines)


def test_the_plan_has_a_term_for_it(host: RunningAppliance) -> None:
    folder = next((host.root / "opt/edgekit/generations").glob("*"))
    (engine,) = json.loads((folder / "appliance.json").read_bytes())["engines"]
    assert engine["argv"][engine["argv"].index("--mmproj") + 1] == engine["weights"][1]["path"]
    (model,) = json.loads((folder / "plan.json").read_bytes())["models"]
    terms = {term["name"]: term["host"] for term in model["chosen"]["need"]["terms"]}
    assert terms["vision"] > 400_000
    size = (REPOSITORY / "models/demo" / WEIGHTS).stat().st_size
    assert 0 <= terms["weights"] - size < 8000  # the projector's own header
