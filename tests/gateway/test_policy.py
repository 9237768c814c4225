"""What the gateway refuses, with which status and in whose shape."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edgekit.gateway.guard import split_host
from tests.gateway.conftest import Site, running_site
from tests.support.fake_engine import FakeEngine

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("policy")
    engine = FakeEngine(str(work / "engine.sock"))
    with running_site(work, engine, engine.socket_path) as ready:
        yield ready


@pytest.fixture
def site(shared_site: Site) -> Site:
    """One gateway for all of these tests: a refusal leaves nothing behind."""
    shared_site.engine.requests.clear()
    return shared_site


TOOL = {"type": "function", "function": {"name": "f"}}
OLLAMA = {"model": "demo", "prompt": "x", "stream": False}


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x", **fields}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 513}, "max_tokens"),
        ({"max_completion_tokens": 513}, "max_completion_tokens"),
        ({"n": 9}, "n"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"stop": "x" * 201}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**60}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 1001}, "messages"),
        (message(role="root"), "messages[0].role"),
        (message(content=5), "messages[0].content"),
        (message(content=None), "messages[0].content"),
        (message(evil=1), "messages[0].evil"),
        (
            message(content=[{"type": "image_url", "image_url": {"url": "http://x"}}]),
            "messages[0].content",
        ),
        (
            message(content=[{"type": "text", "text": "x", "more": 1}]),
            "messages[0].content[0].more",
        ),
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"tool_choice": "evil"}, "tool_choice"),
        ({"tools": [TOOL], "logprobs": True, "stream": True}, "logprobs"),
        ({"response_format": {"type": "x"}}, "response_format"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"x": "y" * 70_000}},
                }
            },
            "response_format",
        ),
        ({"n_discard": -1}, "n_discard"),
        ({"prompt_embeds": "x"}, "prompt_embeds"),
        ({"chat_template": "{{x}}"}, "chat_template"),
        ({"cache_prompt": True}, "cache_prompt"),
        ({"id_slot": 1}, "id_slot"),
        ({"grammar": "x"}, "grammar"),
    ],
)
def test_refused_chat_fields_are_named(site: Site, fields: dict[str, Any], param: str) -> None:
    response = site.post("/v1/chat/completions", {**CHAT, **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert not site.engine.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 2},
        {"top_p": 0.5},
        {"n": 1},
        {"stop": "x"},
        {"stop": None},
        {"max_tokens": 512},
        {"seed": -1},
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"store": False},
        {"logit_bias": {"1": -100}},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"presence_penalty": -2},
        {"top_k": 40},
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}]},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {
            "messages": [
                {"role": "user", "content": "x"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "5"},
            ]
        },
    ],
)
def test_accepted_chat_fields(site: Site, fields: dict[str, Any]) -> None:
    response = site.post("/v1/chat/completions", {**CHAT, **fields})
    assert response.status_code == 200, response.text


def test_engine_gets_only_what_policy_let_through(site: Site) -> None:
    site.post("/v1/chat/completions", {**CHAT, "user": "u", "temperature": 0.5, "metadata": {}})
    site.post(
        "/api/generate",
        {
            **OLLAMA,
            "keep_alive": "5m",
            "options": {
                "num_ctx": 99999,
                "num_predict": -1,
                "temperature": 1,
                "top_k": 3,
                "min_p": 0.1,
            },
        },
    )
    first, second = site.engine.requests
    assert first == {
        "messages": CHAT["messages"],
        "max_tokens": 512,
        "temperature": 0.5,
    }
    assert second == {
        "messages": CHAT["messages"],
        "max_tokens": 512,
        "temperature": 1,
        "top_k": 3,
        "min_p": 0.1,
    }


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"options": {"temperature": 3}}, "options.temperature"),
        ({"options": {"evil": 1}}, "evil"),
        ({"images": ["aGk="]}, "images"),
        ({"template": "{{x}}"}, "template"),
        ({"think": "loud"}, "think"),
        ({"think": 1}, "think"),
        ({"context": [1, 2]}, "context"),
        ({"keep_alive": [5]}, "keep_alive"),
        ({"keep_alive": "5" * 41}, "keep_alive"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"format": 5}, "format"),
        ({"evil": 1}, "evil"),
        ({"prompt": 5}, "prompt"),
        ({"stream": 1}, "stream"),
    ],
)
def test_refused_ollama_fields_are_named(site: Site, fields: dict[str, Any], word: str) -> None:
    response = site.post("/api/generate", {**OLLAMA, **fields})
    assert response.status_code == 400
    assert word in response.json()["error"]
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"model":"demo","model":"demo","messages":[]}',
        b"\xff",
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"temperature":NaN}',
        b'{"temperature":1e999}',
        b"5",
        b'{"seed":' + b"9" * 5000 + b"}",
    ],
)
def test_bodies_that_are_not_strict_json(site: Site, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/api/chat", "/api/show"):
        response = site.http.post(path, content=body)
        assert response.status_code == 400, path
        assert "error" in response.json()


def test_body_over_the_limit_is_413(site: Site) -> None:
    def endless() -> Any:
        for _ in range(6):
            yield b" " * (1 << 20)

    for content in (b" " * ((4 << 20) + 1), endless()):
        response = site.http.post("/v1/chat/completions", content=content)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "request_too_large"
    assert site.post("/v1/chat/completions", CHAT).status_code == 200


def test_body_far_over_the_limit_is_cut_off(site: Site) -> None:
    port = int(site.url.rpartition(":")[2])
    head = (
        f"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99999999\r\n"
        f"Authorization: Bearer {site.token}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(10)
        sock.sendall(head.encode())
        answer = sock.makefile("rb").read()  # to its end: the gateway closes the connection
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_compressed_bodies_are_refused(site: Site) -> None:
    response = site.http.post(
        "/api/chat", content=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}
    )
    assert response.status_code == 415


def test_huge_headers_are_refused(site: Site) -> None:
    assert site.http.get("/v1/models", headers={"X-A": "a" * 40_000}).status_code in (400, 431)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/chat/completions",
        "/api/tags",
        "/api/pull",
        "/api/chat",
        "/nope",
        "/metrics",
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic eDp5"},
        {"x-api-key": "ek_00000000_" + "A" * 43},
        {"Authorization": "Bearer"},
    ],
)
def test_key_is_needed_everywhere(site: Site, path: str, headers: dict[str, str]) -> None:
    response = httpx.post(site.url + path, json={}, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert isinstance(error, dict) == path.startswith("/v1")


def test_key_of_another_secret_is_refused_and_x_api_key_serves(site: Site) -> None:
    wrong = site.token[:-1] + ("A" if site.token[-1] != "A" else "B")
    assert httpx.get(f"{site.url}/v1/models", headers={"x-api-key": wrong}).status_code == 401
    assert httpx.get(f"{site.url}/v1/models", headers={"x-api-key": site.token}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/api/version", "/console"])
def test_public_routes_answer_get_and_head_without_key(site: Site, path: str) -> None:
    assert httpx.get(site.url + path).status_code == 200
    head = httpx.head(site.url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert httpx.post(site.url + path).status_code == 401


def test_root_says_what_clients_look_for(site: Site) -> None:
    assert httpx.get(site.url).text == "Ollama is running"


@pytest.mark.parametrize(
    "path",
    [
        "/api/pull",
        "/api/push",
        "/api/create",
        "/api/copy",
        "/api/delete",
        "/api/me",
        "/api/blobs/sha256:00",
        "/api/experimental/x",
    ],
)
def test_management_is_403_with_a_clear_text(site: Site, path: str) -> None:
    for method in ("POST", "DELETE", "GET"):
        response = site.http.request(method, path)
        assert response.status_code == 403
        assert "signed bundles" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nope", 404),
        ("GET", "/api/nope", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/redoc", 404),
        ("POST", "/openapi.json", 405),
        ("POST", "/v1/files", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "//v1/models", 404),
        ("POST", "/completion", 404),
        ("GET", "/slots", 404),
        ("GET", "/props", 404),
    ],
)
def test_unknown_routes_have_their_surfaces_shape(
    site: Site, method: str, path: str, status: int
) -> None:
    response = site.http.request(method, site.url + path)
    assert response.status_code == status
    assert isinstance(response.json()["error"], dict) == path.startswith("/v1")


def test_unknown_model_is_model_not_found(site: Site) -> None:
    for path in ("/v1/chat/completions", "/api/chat", "/api/show"):
        response = site.post(
            path, {**CHAT, "model": "other"} if "show" not in path else {"model": "other"}
        )
        assert response.status_code == 404
        assert "other" in str(response.json()["error"])
    assert site.http.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:{port}", True),
        ("localhost:{port}", True),
        ("LOCALHOST:{port}", True),
        ("[::1]:{port}", True),
        ("evil.example:{port}", False),
        ("127.0.0.1", False),
        ("127.0.0.1:1", False),
        ("localhost.evil.example:{port}", False),
        ("", False),
        ("127.0.0.1:{port}.evil", False),
        ("[::1:{port}", False),
        ("127.0.0.1:{port}:1", False),
    ],
)
def test_host_header_must_be_ours(site: Site, host: str, good: bool) -> None:
    port = site.url.rpartition(":")[2]
    request = (
        f"GET /v1/models HTTP/1.1\r\nHost: {host.format(port=port)}\r\n"
        f"Authorization: Bearer {site.token}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(port))) as sock:
        sock.sendall(request.encode())
        status = sock.makefile("rb").readline().split()[1]
    assert status == (b"200" if good else b"403")


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        ("http://localhost:{port}", True),
        ("http://127.0.0.1:{port}", True),
        ("https://evil.example", False),
        ("null", False),
        ("http://localhost", False),
        ("http://localhost:{port}@evil.example", False),
        ("file://localhost:{port}", False),
        ("http://localhost:{port}.evil.example", False),
    ],
)
def test_origin_must_be_ours_when_there_is_one(site: Site, origin: str, good: bool) -> None:
    value = origin.format(port=site.url.rpartition(":")[2])
    response = site.http.get("/v1/models", headers={"Origin": value})
    assert response.status_code == (200 if good else 403)
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:1", ("a", 1)),
        ("A", ("a", None)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", None)),
        ("a:x", ("", 0)),
        ("a:99999999", ("", 0)),
        ("[::1", ("", 0)),
        ("[::1]x", ("", 0)),
        ("a:\u0661", ("", 0)),
    ],
)
def test_split_host(text: str, expected: tuple[str, int | None]) -> None:
    assert split_host(text) == expected


def test_tags_ps_and_show_describe_the_model(site: Site) -> None:
    tags = site.http.get("/api/tags").json()["models"]
    assert [(m["name"], m["details"]["family"]) for m in tags] == [("demo:latest", "llama")]
    assert [m["context_length"] for m in site.http.get("/api/ps").json()["models"]] == [512]
    for body in ({"model": "demo"}, {"name": "demo:latest", "verbose": True}):
        shown = site.post("/api/show", body).json()
        assert shown["model_info"]["llama.context_length"] == 512


@pytest.mark.parametrize(
    ("body", "reason"),
    [({"model": "demo"}, "load"), ({"model": "demo", "prompt": "", "keep_alive": 0}, "unload")],
)
def test_empty_prompt_is_a_load_request(site: Site, body: dict[str, Any], reason: str) -> None:
    for path in ("/api/generate", "/api/chat"):
        fields = {k: v for k, v in body.items() if path == "/api/generate" or k != "prompt"}
        answer = site.post(path, fields).json()
        assert (answer["done"], answer["done_reason"]) == (True, reason)
    assert not site.engine.requests


def test_answers_never_name_the_engines_paths(site: Site) -> None:
    for body in (CHAT, {**CHAT, "stream": True}):
        assert "secret" not in site.post("/v1/chat/completions", body).text
    assert json.dumps(site.records()).count("secret") == 0
