"""Pictures at the gateway: what reaches an engine, and what does not, on every surface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Site, running_site
from tests.support.fake_engine import FakeEngine
from tests.support.pictures import GREEN, RED, data_url, gif, jpeg, plain, png

Body = dict[str, Any]


@pytest.fixture
def seeing(tmp_path: Path) -> Iterator[Site]:
    """The fake engine with a model that sees."""
    engine = FakeEngine(str(tmp_path / "seeing.sock"))
    able = ("completion", "vision")
    with running_site(tmp_path, engine, engine.socket_path, capabilities=able) as ready:
        yield ready


def chat(*urls: str) -> tuple[str, Body]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": "what is"}, *parts]
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}


def responses(*urls: str) -> tuple[str, Body]:
    parts = [{"type": "input_image", "image_url": url} for url in urls]
    content = [{"type": "input_text", "text": "what is"}, *parts]
    return "/v1/responses", {"input": [{"role": "user", "content": content}]}


def messages(*urls: str) -> tuple[str, Body]:
    sources = [
        {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
        if url.startswith("data:") else {"type": "url", "url": url} for url in urls]
    content = [{"type": "text", "text": "what is"}]
    content += [{"type": "image", "source": source} for source in sources]  # type: ignore[dict-item]
    return "/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": content}]}


def ollama_chat(*urls: str) -> tuple[str, Body]:
    pictures = [url.partition(",")[2] or url for url in urls]
    message = {"role": "user", "content": "what is", "images": pictures}
    return "/api/chat", {"messages": [message], "stream": False}


def ollama_generate(*urls: str) -> tuple[str, Body]:
    pictures = [url.partition(",")[2] or url for url in urls]
    return "/api/generate", {"prompt": "what is", "images": pictures, "stream": False}


SURFACES = [chat, responses, messages, ollama_chat, ollama_generate]
surfaces = pytest.mark.parametrize("ask", SURFACES)
Asking = Callable[..., tuple[str, Body]]


def post(site: Site, asked: tuple[str, Body]) -> Any:
    path, body = asked
    return site.post(path, {"model": "demo", **body})


@surfaces
def test_pictures_reach_the_engine_as_they_came(seeing: Site, ask: Asking) -> None:
    pictures = [png(RED), png(GREEN)]
    answer = post(seeing, ask(*map(data_url, pictures)))
    assert answer.status_code == 200, answer.text
    content = seeing.engine.requests[-1]["messages"][-1]["content"]
    found = [part["image_url"]["url"].partition(",")[2] for part in content
             if part["type"] == "image_url"]
    assert found == list(map(plain, pictures))
    assert [part["text"] for part in content if part["type"] == "text"] == ["what is"]


@surfaces
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x.png", "https://host/x.png", "file:///etc/passwd", "ftp://h/x"])
def test_nothing_is_fetched(seeing: Site, ask: Asking, url: str) -> None:
    answer = post(seeing, ask(url))
    assert answer.status_code == 400
    assert not seeing.engine.requests


@surfaces
@pytest.mark.parametrize(
    "picture",
    [b"", b"RIFF\0\0\0\0WEBPVP8 ", b"BM" + bytes(60), png()[:20], jpeg(65_535, 65_535),
     gif(65_535, 65), png(data=b"", width=3000, height=3000), png(data=bytes(1 << 26))],
    ids=["nothing", "webp", "bmp", "cut", "huge jpeg", "huge gif", "huge png", "bomb"],
)
def test_what_is_no_picture_or_too_large_reaches_no_engine(
    seeing: Site, ask: Asking, picture: bytes
) -> None:
    answer = post(seeing, ask(data_url(picture)))
    assert answer.status_code == 400
    assert "images: number 1" in answer.text
    assert not seeing.engine.requests


@surfaces
def test_there_are_limits_to_their_number_and_to_all_pixels(seeing: Site, ask: Asking) -> None:
    assert post(seeing, ask(*[data_url(png())] * 9)).status_code == 400
    large = data_url(png(width=2048, height=2048))
    assert "together" in post(seeing, ask(large, large, large)).text
    assert not seeing.engine.requests
    assert post(seeing, ask(large, large)).status_code == 200


@surfaces
def test_a_model_that_cannot_see_says_so(site: Site, ask: Asking) -> None:
    answer = post(site, ask(data_url(png())))
    assert answer.status_code == 400
    assert "does not support images" in answer.text
    assert not site.engine.requests


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_a_user_sends_them(seeing: Site, role: str) -> None:
    part = {"type": "image_url", "image_url": {"url": data_url(png())}}
    body: Body = {"messages": [{"role": role, "content": [part]}, {"role": "user", "content": "x"}]}
    assert post(seeing, ("/v1/chat/completions", body)).status_code == 400
    message = {"role": role, "content": "x", "images": [plain(png())]}
    assert post(seeing, ("/api/chat", {"messages": [message]})).status_code == 400
    assert not seeing.engine.requests


def test_they_go_with_neither_raw_nor_a_suffix(seeing: Site) -> None:
    for more in ({"raw": True}, {"suffix": "y"}):
        body = {"prompt": "x", "images": [plain(png())], **more}
        assert post(seeing, ("/api/generate", body)).status_code == 400


def test_a_conversation_goes_on_without_them(seeing: Site) -> None:
    first = post(seeing, ollama_generate(data_url(png()))).json()
    again = {"prompt": "and now?", "context": first["context"], "stream": False}
    assert post(seeing, ("/api/generate", again)).status_code == 200
    assert seeing.engine.requests[-1]["messages"][0]["content"] == "what is"
