"""The served description is true: every path is there, every range is the gateway's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import httpx
import pytest

from edgekit.gateway.describe import ABLE, Effect, describe, fields_of
from edgekit.gateway.examples import EXAMPLES
from edgekit.gateway.openapi import PUBLIC_PATHS, READING_PATHS, SHOW, openapi_document
from edgekit.gateway.surfaces.endpoints import ENDPOINTS
from tests.gateway.conftest import Site, make_appliance, running_site
from tests.gateway.test_keys import client
from tests.support.fake_engine import FakeEngine

CONTEXT = 512


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("openapi")
    engine = FakeEngine(str(work / "engine.sock"))
    with running_site(work, engine, engine.socket_path, capabilities=ABLE) as ready:
        yield ready


def test_every_endpoint_that_a_model_can_serve_is_described() -> None:
    document = the_document()
    assert set(EXAMPLES) == set(ENDPOINTS)
    assert set(document["paths"]) == {*ENDPOINTS, SHOW, *READING_PATHS, *PUBLIC_PATHS}


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


@pytest.mark.parametrize("path", ENDPOINTS)
def test_asking_paths_answer_to_their_scope(shared: Site, path: str) -> None:
    body = {"model": "demo", **EXAMPLES[path][0]}
    for scope in ("chat", "embed", "metrics", "admin"):
        with client(shared, scope) as other:
            answer = other.post(path, json=body)
        assert answer.status_code == (200 if scope == ENDPOINTS[path].scope else 403), scope


def test_document_is_served(shared: Site) -> None:
    with client(shared, "chat") as other:
        document = other.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    schema = body_schema(document, "/v1/chat/completions")
    assert schema["properties"]["model"]["enum"] == ["demo", "demo:latest"]


def body_schema(document: dict[str, Any], path: str) -> dict[str, Any]:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    schema: dict[str, Any] = content["application/json"]["schema"]
    return schema


def the_document() -> dict[str, Any]:
    return openapi_document(
        make_appliance(Path("/x"), 1, engine_socket="x", capabilities=ABLE)
    )


def test_a_model_is_named_where_it_can_be_asked() -> None:
    appliance = make_appliance(Path("/x"), 1, engine_socket="x", embedding_socket="y")
    document = openapi_document(appliance)
    for path, wanted in (("/api/chat", "demo"), ("/api/embed", "demo-embed")):
        model = body_schema(document, path)["properties"]["model"]
        assert model["enum"] == [wanted, f"{wanted}:latest"]
    alone = openapi_document(make_appliance(Path("/x"), 1, engine_socket="x"))
    assert "/api/embed" not in alone["paths"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/api/embed"])
def test_other_methods_are_told_which_are_allowed(shared: Site, path: str) -> None:
    with client(shared, "chat", "embed") as other:
        answer = other.request("DELETE", path)
    assert answer.status_code == 405
    assert answer.headers["allow"] in ("POST", "GET, HEAD", "HEAD, GET")


@pytest.mark.parametrize("path", ENDPOINTS)
def test_examples_are_what_the_schema_describes(path: str) -> None:
    check = fastjsonschema.compile(body_schema(the_document(), path))
    for example in EXAMPLES[path]:
        check({"model": "demo", **example})
        with pytest.raises(fastjsonschema.JsonSchemaException):
            check({"model": "demo", **example, "surprise": 1})


@pytest.mark.parametrize("path", ENDPOINTS)
def test_examples_use_every_field(path: str) -> None:
    found, _ = describe(path, make_appliance(Path("/x"), 1, engine_socket="x"))
    read = {name for name, field in fields_of(found) if field.effect is Effect.READ}
    used = {name for example in EXAMPLES[path] for name in names(example)}
    closed = {"images", "previous_response_id", "conversation", "prompt"}
    missing = {name for name in read - used if name.rpartition(".")[2] not in closed}
    assert missing <= {"model", "messages[].images"}


def names(value: Any, before: str = "") -> Iterator[str]:
    """Dotted names of everything in a body, as `fields_of` writes them."""
    if isinstance(value, list):
        for item in value:
            yield from names(item, f"{before.removesuffix('.')}[].")
    elif isinstance(value, dict):
        for key, below in value.items():
            yield before + key
            yield from names(below, f"{before}{key}.")


def with_example(path: str, name: str) -> dict[str, Any]:
    """The first example that has this field."""
    examples = EXAMPLES[path]
    return next((e for e in examples if name in set(names(e))), examples[0])


def ranges() -> Iterator[tuple[str, str, float, float]]:
    appliance = make_appliance(Path("/x"), 1, engine_socket="x")
    for path in ENDPOINTS:
        found, _ = describe(path, appliance)
        for name, field in fields_of(found):
            if "minimum" in field.schema and "[]" not in name:
                yield path, name, field.schema["minimum"], field.schema["maximum"]


def with_value(body: dict[str, Any], name: str, value: float) -> dict[str, Any]:
    changed = copy.deepcopy(body)
    *parents, last = name.split(".")
    table = changed
    for parent in parents:
        table = table[parent]
    table[last] = value
    return changed


def test_there_are_ranges_to_look_at() -> None:
    assert len(list(ranges())) > 50


@pytest.mark.parametrize(("path", "name", "low", "high"), list(ranges()))
def test_ranges_are_the_gateways_own(
    shared: Site, path: str, name: str, low: float, high: float
) -> None:
    base = {"model": "demo", **with_example(path, name)}
    if "stream" in base:
        base["stream"] = False
    with client(shared, ENDPOINTS[path].scope) as other:
        for value in (low, high):
            answer = other.post(path, json=with_value(base, name, value))
            assert answer.status_code == 200, (value, answer.text)
        for value in (low - 1, high + 1):
            answer = other.post(path, json=with_value(base, name, value))
            assert answer.status_code == 400, value
            assert name in answer.text
