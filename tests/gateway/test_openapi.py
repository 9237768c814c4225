"""The served description is true: every path is there, every range is the gateway's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edgekit.gateway.openapi import ASKING_PATHS, PUBLIC_PATHS, READING_PATHS, openapi_document
from edgekit.gateway.surfaces.endpoints import ENDPOINTS
from tests.gateway.conftest import Site, make_appliance, running_site
from tests.gateway.test_keys import client
from tests.support.fake_engine import FakeEngine

CONTEXT = 512


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("openapi")
    engine = FakeEngine(str(work / "engine.sock"))
    with running_site(work, engine, engine.socket_path) as ready:
        yield ready


def test_every_generating_endpoint_is_described(tmp_path: Any) -> None:
    document = openapi_document(make_appliance(tmp_path, 1, engine_socket="x"))
    assert set(ENDPOINTS) == {path for path in ASKING_PATHS if path != "/api/show"}
    assert set(document["paths"]) == {*ASKING_PATHS, *READING_PATHS, *PUBLIC_PATHS}


@pytest.mark.parametrize("path", PUBLIC_PATHS)
def test_public_paths_need_no_key(shared: Site, path: str) -> None:
    assert httpx.get(shared.url + path).status_code in (200, 307)


@pytest.mark.parametrize("path", READING_PATHS)
def test_reading_paths_answer_to_their_scopes(shared: Site, path: str) -> None:
    scopes = READING_PATHS[path][0].replace(",", " or").split(" or ")
    for scope in ("chat", "embed", "metrics", "admin"):
        with client(shared, scope) as other:
            answer = other.get(path.replace("{model}", "demo"))
        assert answer.status_code == (200 if scope in scopes else 403), scope


def test_document_is_served(shared: Site) -> None:
    with client(shared, "chat") as other:
        document = other.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    schema = body_schema(document, "/v1/chat/completions")
    assert schema["properties"]["model"]["examples"] == ["demo"]


def body_schema(document: dict[str, Any], path: str) -> dict[str, Any]:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    schema: dict[str, Any] = content["application/json"]["schema"]
    return schema


def ranges() -> Iterator[tuple[str, str, float, float]]:
    document = openapi_document(
        make_appliance(__import__("pathlib").Path("/x"), 1, engine_socket="x")
    )
    for path in ("/v1/chat/completions", "/v1/completions"):
        for name, field in body_schema(document, path)["properties"].items():
            if "minimum" in field:
                yield path, name, field["minimum"], field.get("maximum", CONTEXT)


@pytest.mark.parametrize(("path", "name", "low", "high"), list(ranges()))
def test_ranges_are_the_gateways_own(
    shared: Site, path: str, name: str, low: float, high: float
) -> None:
    base: dict[str, Any] = {"model": "demo", "max_tokens": 1}
    if path.endswith("/chat/completions"):
        base["messages"] = [{"role": "user", "content": "x"}]
    else:
        base["prompt"] = "x"
    with client(shared, "chat") as other:
        for value in (low, high):
            assert other.post(path, json={**base, name: value}).status_code == 200, value
        for value in (low - 1, high + 1):
            answer = other.post(path, json={**base, name: value})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
