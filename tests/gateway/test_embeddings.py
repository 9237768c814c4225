"""The three embedding endpoints, with the official clients, against both engines."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from edgekit.core.vectors import cosine
from edgekit.gateway.body import Body
from edgekit.gateway.problems import ApiError
from edgekit.gateway.surfaces.endpoints import ENDPOINTS
from tests.gateway.conftest import Site, make_appliance
from tests.gateway.test_clients import ollama_client, openai_client

TEXTS = ["which command builds a bundle", "which command builds a set", "Paris is in France"]


def test_near_texts_have_near_vectors(embedding_site: Site) -> None:
    rows = openai_client(embedding_site).embeddings.create(model="demo", input=TEXTS).data
    assert [row.index for row in rows] == [0, 1, 2]
    near, far = (cosine(rows[0].embedding, row.embedding) for row in rows[1:])
    assert 1 > near > far


def test_every_form_carries_the_same_vectors(embedding_site: Site) -> None:
    body = {"model": "demo:latest", "input": TEXTS}
    plain = embedding_site.post("/v1/embeddings", body).json()
    packed = embedding_site.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json()
    native = ollama_client(embedding_site).embed("demo:latest", TEXTS)
    legacy = ollama_client(embedding_site).embeddings("demo", TEXTS[0])
    first = plain["data"][0]["embedding"]
    unpacked = struct.unpack(f"<{len(first)}f", base64.b64decode(packed["data"][0]["embedding"]))
    assert list(unpacked) == pytest.approx(first, abs=1e-6)
    assert list(native.embeddings[0]) == pytest.approx(first, abs=1e-5)
    assert list(legacy.embedding) == pytest.approx(first, abs=1e-5)
    assert plain["usage"]["prompt_tokens"] == native.prompt_eval_count > 0
    assert plain["model"] == "demo:latest"


def test_fewer_dimensions_are_the_first_ones_scaled(embedding_site: Site) -> None:
    client = openai_client(embedding_site)
    whole = client.embeddings.create(model="demo", input="x").data[0].embedding
    cut = client.embeddings.create(model="demo", input="x", dimensions=4).data[0].embedding
    assert len(cut) == 4
    assert cosine(cut, whole[:4]) == pytest.approx(1)
    assert sum(value * value for value in cut) == pytest.approx(1)


def test_an_embedding_is_recorded_like_any_other_request(embedding_site: Site) -> None:
    embedding_site.post("/api/embed", {"model": "demo", "input": TEXTS})
    response = embedding_site.wait_for_record("response")
    request = embedding_site.wait_for_record("request")
    assert (request["endpoint"], request["params"]) == ("/api/embed", {"inputs": 3})
    assert response["tokens_in"] > 0
    assert response["status"] == 200


def test_a_text_that_is_too_long_is_cut_where_that_is_wanted(
    real_embedding_site: Site
) -> None:
    site, words = real_embedding_site, "which command builds a bundle "
    long = words * 400
    for path, fields in (("/api/embed", {"truncate": False}), ("/v1/embeddings", {})):
        refused = site.post(path, {"model": "demo", "input": [long], **fields})
        assert (refused.status_code, "too long" in refused.text) == (400, True)
    texts = [long, words, "Paris is in France"]
    whole = site.post("/api/embed", {"model": "demo", "input": texts}).json()["embeddings"]
    plain = site.post("/api/embed", {"model": "demo", "input": texts[1:]}).json()["embeddings"]
    assert cosine(whole[1], plain[0]) == pytest.approx(1, abs=1e-4)
    assert cosine(whole[0], whole[1]) > cosine(whole[0], whole[2])
    longer = site.post("/api/embed", {"model": "demo", "input": long + "and more"}).json()
    assert cosine(longer["embeddings"][0], whole[0]) == pytest.approx(1, abs=1e-4)


def test_an_embedding_model_does_not_chat(embedding_site: Site) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support chat"):
        openai_client(embedding_site).chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "x"}]
        )
    with pytest.raises(ollama.ResponseError, match="does not support chat"):
        ollama_client(embedding_site).generate("demo", "x")
    assert ollama_client(embedding_site).show("demo").capabilities == ["embedding"]


def test_a_chat_model_does_not_embed(site: Site) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support embedding"):
        openai_client(site).embeddings.create(model="demo", input="x")


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v1/embeddings", "input", []),
        ("/v1/embeddings", "input", ""),
        ("/v1/embeddings", "input", [1, 2]),
        ("/v1/embeddings", "input", [[1, 2]]),
        ("/v1/embeddings", "input", ["a", 1]),
        ("/v1/embeddings", "input", ["x"] * 2049),
        ("/v1/embeddings", "dimensions", 0),
        ("/v1/embeddings", "encoding_format", "int8"),
        ("/v1/embeddings", "surprise", 1),
        ("/api/embed", "input", None),
        ("/api/embeddings", "prompt", 7),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    tmp_path: Path, path: str, field: str, value: Any
) -> None:
    appliance = make_appliance(tmp_path, 1, engine_socket="x", capabilities=("embedding",))
    body = {"model": "demo", **({} if path == "/api/embeddings" else {"input": "x"}), field: value}
    with pytest.raises(ApiError) as refused:
        ENDPOINTS[path].parse(Body(body), appliance)
    assert refused.value.status == 400
