"""`/v1/rerank`, with both engines."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.core.appliance import CanaryCheck
from edgekit.core.known_answers import check_ranks
from edgekit.core.vectors import read_scores
from edgekit.errors import EngineError, WrongAnswerError
from edgekit.supervisor.canary import check_ranking
from tests.gateway.conftest import Site
from tests.support.ranking_model import BEST

QUERY, *_ = BEST
DOCUMENTS = list(BEST.values())


def rank(site: Site, **fields: Any) -> Any:
    body = {"model": "demo", "query": QUERY, "documents": DOCUMENTS, **fields}
    return site.post("/v1/rerank", body)


def test_each_query_finds_its_document(ranking_site: Site) -> None:
    real = not ranking_site.engine.socket_path
    for query, document in BEST.items() if real else [("noon mess", DOCUMENTS[1])]:
        answer = rank(ranking_site, query=query).json()
        assert answer["model"] == "demo"
        assert answer["usage"]["total_tokens"] > 0
        first, second = answer["results"]
        assert first["document"]["text"] == document
        assert first["relevance_score"] > second["relevance_score"]
        assert {first["index"], second["index"]} == {0, 1}


def test_the_log_has_the_request_and_its_tokens(ranking_site: Site) -> None:
    used = rank(ranking_site).json()["usage"]["total_tokens"]
    request = ranking_site.wait_for_record("request")
    assert request["endpoint"] == "/v1/rerank"
    assert request["params"]["documents"] == 2
    response = ranking_site.wait_for_record("response")
    assert (response["status"], response["tokens_in"]) == (200, used)


def test_only_the_best_are_answered_and_their_texts_only_when_wanted(ranking_site: Site) -> None:
    whole = rank(ranking_site).json()["results"]
    answer = rank(ranking_site, top_n=1, return_documents=False).json()
    (row,) = answer["results"]
    assert row == {key: whole[0][key] for key in ("index", "relevance_score")}
    tables = [{"text": text} for text in DOCUMENTS]
    assert rank(ranking_site, documents=tables).json()["results"] == whole


def test_a_document_that_is_too_long_is_said_by_name(ranking_site: Site) -> None:
    response = rank(ranking_site, documents=["word " * 3000])
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "context_length_exceeded"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"documents": []}, "documents"),
    ({"documents": None}, "documents"),
    ({"documents": "x"}, "documents"),
    ({"documents": [""]}, "documents"),
    ({"documents": [5]}, "documents"),
    ({"documents": [{"text": "x", "more": 1}]}, "documents"),
    ({"documents": [{"text": 1}]}, "documents"),
    ({"documents": ["x"] * 1001}, "documents"),
    ({"query": ""}, "query"),
    ({"query": None}, "query"),
    ({"query": {"text": "x"}}, "query"),
    ({"top_n": 0}, "top_n"),
    ({"return_documents": 1}, "return_documents"),
    ({"surprise": 1}, "surprise"),
]


def test_refused_fields_are_named(ranking_site: Site) -> None:
    for fields, word in REFUSED:
        response = rank(ranking_site, **fields)
        assert response.status_code == 400, fields
        assert word in response.json()["error"]["message"]
    assert not ranking_site.engine.requests


def test_a_ranking_without_scores_is_the_engines_failure(ranking_site: Site) -> None:
    if ranking_site.engine.socket_path:
        assert rank(ranking_site, query="not-json").status_code == 502
        assert ranking_site.wait_for_record("response")["status"] == 502


def test_a_model_that_ranks_can_do_nothing_else(ranking_site: Site) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}
    response = ranking_site.post("/v1/chat/completions", body)
    assert response.status_code == 400
    assert "it supports: rerank" in response.json()["error"]["message"]


def test_known_answers_are_asked_of_the_engine(ranking_site: Site) -> None:
    if ranking_site.engine.socket_path:
        pairs = {"noon mess": DOCUMENTS[1], "the cook": DOCUMENTS[0]}
        path = ranking_site.engine.socket_path
    else:
        pairs, path = BEST, str(ranking_site.work / "ranking.sock")
    checks = [CanaryCheck("demo", query, document) for query, document in pairs.items()]
    check_ranking(path, checks, timeout_s=20)
    swapped = [CanaryCheck("demo", a.prompt, b.answer) for a, b in zip(
        checks, reversed(checks), strict=True)]
    with pytest.raises(WrongAnswerError, match="ranks, but not"):
        check_ranking(path, swapped, timeout_s=20)


def test_the_first_query_with_another_document_first_is_named() -> None:
    checks = [CanaryCheck("m", "a", "A"), CanaryCheck("m", "b", "B")]
    check_ranks(checks, [[2, 1], [1, 2]])
    with pytest.raises(WrongAnswerError) as caught:
        check_ranks(checks, [[2, 1], [3, 2]])
    assert caught.value.details()["where"] == "b"


@pytest.mark.parametrize("answer", [
    {}, [], {"results": [{"index": 0, "relevance_score": 1}]},
    {"results": [{"index": 0}, {"index": 1}]},
    {"results": [{"index": i, "relevance_score": "x"} for i in range(2)]},
    {"results": [{"index": i, "relevance_score": float("nan")} for i in range(2)]},
])
def test_scores_of_unknown_shape_are_refused(answer: Any) -> None:
    with pytest.raises(EngineError):
        read_scores(answer, 2)
