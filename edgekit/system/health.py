"""The health check through the front door: known questions over the API, as any client would."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgekit.core.appliance import Appliance, EngineSettings
from edgekit.core.known_answers import (
    check_neighbours,
    check_ranks,
    check_text,
    ranking_questions,
)
from edgekit.core.vectors import read_scores
from edgekit.errors import EngineError, EngineNotReadyError

REQUEST_TIMEOUT_S = 120.0
PATIENCE_S = 1800.0
"""How long a person waits for a piece of an answer: the model may have to be loaded first."""
LOAD_FACTOR = 2
"""Loading is hashing the weights, and then what an engine's start is given."""
CONNECT_TRIES = 50
CONNECT_PAUSE_S = 0.1
MAX_ANSWER_TOKENS = 64
MAX_ANSWER_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's text, its length in tokens, and the seconds from question to last token."""

    text: str
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """The rate a client sees, the reading of the prompt included."""
        return self.tokens / max(self.seconds, 1e-6)


def ask_known_questions(appliance: Appliance, api_key: str) -> dict[str, float]:
    """Ask every canary through the gateway and check the answers; the rate of each model.

    A model's rate is that of its fastest answer, in tokens per second: other work on the host only
    ever makes it smaller. Raises WrongAnswerError with question, answer and what was expected,
    EngineError when the API answers with an error, EngineNotReadyError when it cannot be reached.
    """
    rates: dict[str, float] = {}
    for engine in appliance.engines:
        # one that is loaded on demand is loaded by the first question
        patience = REQUEST_TIMEOUT_S + (LOAD_FACTOR * engine.start_timeout_s if engine.lease else 0)
        if engine.task == "rerank" and engine.canaries:
            scores = [
                rank(
                    appliance.listen, api_key, engine.canaries[0].model, query, documents, patience
                )
                for query, documents in ranking_questions(engine.canaries)
            ]
            check_ranks(engine.canaries, scores)
            continue
        if engine.task == "embedding" and engine.canaries:
            texts = [c.prompt for c in engine.canaries] + [c.answer for c in engine.canaries]
            vectors = embed(appliance.listen, api_key, engine.canaries[0].model, texts, patience)
            check_neighbours(engine.canaries, vectors)
            continue
        for canary in (c for c in engine.canaries if c.adapter is None):
            reply = ask(appliance.listen, api_key, canary.model, canary.prompt, patience)
            check_text(canary, reply.text)
            rates[canary.model] = max(rates.get(canary.model, 0.0), reply.tokens_per_second)
    return rates


def check_rates(rates: dict[str, float], appliance: Appliance, the_sites: int) -> None:
    """Refuse a model that is slower than the site allows or, where that is 0, than the set does.

    All are tokens per second. Raises EngineError.
    """
    the_sets = {
        model.name: _engine_of(appliance, model.engine).min_tokens_per_second
        for model in appliance.models
    }
    for model, rate in rates.items():
        least = the_sites or the_sets[model]
        if rate < least:
            whose = "this site" if the_sites else "the set"
            raise EngineError(
                f"{model} is slower than {whose} allows",
                found=f"{rate:.1f} tokens per second",
                needed=f"{least} tokens per second",
                hint="edgekit plan SET, to see what else the set carries; "
                "health.min_tokens_per_second in edgekit.toml lowers it here",
            )


def _engine_of(appliance: Appliance, name: str) -> EngineSettings:
    return next(engine for engine in appliance.engines if engine.name == name)


def get_table(listen: str, api_key: str, path: str) -> dict[str, Any]:
    """The JSON object at a path of the API. Raises as `_answering`."""
    with _answering(listen, api_key, path) as response:
        table = json.loads(response.read(MAX_ANSWER_BYTES))
    assert isinstance(table, dict)
    return table


def embed(
    listen: str, api_key: str, model: str, texts: list[str], timeout_s: float = REQUEST_TIMEOUT_S
) -> list[list[float]]:
    """The texts' vectors, over the API. Raises as `_answering`."""
    request: dict[str, object] = {"model": model, "input": texts}
    with _answering(listen, api_key, "/v1/embeddings", request, timeout_s) as response:
        rows = json.loads(response.read(MAX_ANSWER_BYTES))["data"]
    return [row["embedding"] for row in rows]


def rank(
    listen: str,
    api_key: str,
    model: str,
    query: str,
    documents: list[str],
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> list[float]:
    """The documents' scores for a query, over the API. Raises as `_answering`, or EngineError."""
    request: dict[str, object] = {"model": model, "query": query, "documents": documents}
    with _answering(listen, api_key, "/v1/rerank", request, timeout_s) as response:
        return read_scores(json.loads(response.read(MAX_ANSWER_BYTES)), len(documents))


def ask(
    listen: str, api_key: str, model: str, prompt: str, timeout_s: float = REQUEST_TIMEOUT_S
) -> Reply:
    """One greedy chat completion over the API. Raises as `_answering`."""
    started = time.monotonic()
    question = _question(model, prompt)
    with _answering(listen, api_key, "/v1/chat/completions", question, timeout_s) as response:
        data = response.read(MAX_ANSWER_BYTES)
    seconds = time.monotonic() - started
    table = json.loads(data)
    tokens = int(table["usage"]["completion_tokens"])
    return Reply(str(table["choices"][0]["message"]["content"]), tokens, seconds)


def stream_chat(
    listen: str, api_key: str, request: dict[str, Any]
) -> Generator[str, None, None]:
    """The pieces of the answer to a body of `/api/chat`. Raises as `_answering`."""
    with _answering(listen, api_key, "/api/chat", request, PATIENCE_S) as response:
        for line in response:
            event = json.loads(line)
            if "error" in event:
                raise EngineError("the answer broke off", found=str(event["error"])[:300])
            text = event.get("message", {}).get("content")
            if text:
                yield str(text)


def _question(model: str, prompt: str) -> dict[str, object]:
    return {
        "model": model,
        "temperature": 0,
        "max_tokens": MAX_ANSWER_TOKENS,
        "stream": False,
        "messages": [{"role": "user", "content": prompt}],
    }


@contextmanager
def _answering(
    listen: str,
    api_key: str,
    path: str,
    question: dict[str, object] | None = None,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> Iterator[http.client.HTTPResponse]:
    """The API's response to a POST, or without a question to a GET; status 200.

    Raises EngineNotReadyError when the API does not answer, EngineError when it answers with an
    error.
    """
    address, _, port = listen.rpartition(":")
    connection = _connect(address, int(port), timeout_s)
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    try:
        if question is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(question), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise EngineError(
                f"the API answers with status {response.status}",
                where=listen,
                found=response.read(1000).decode(errors="replace")[:300],
            )
        yield response
    except (OSError, http.client.HTTPException) as error:
        raise EngineNotReadyError(
            "the API does not answer", where=listen, found=str(error)
        ) from error
    finally:
        connection.close()


def _connect(address: str, port: int, timeout_s: float) -> http.client.HTTPConnection:
    for attempt in range(CONNECT_TRIES):
        connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
        try:
            connection.connect()
        except OSError as error:
            if attempt == CONNECT_TRIES - 1:
                raise EngineNotReadyError(
                    "the API cannot be reached", where=f"{address}:{port}", found=str(error)
                ) from error
            time.sleep(CONNECT_PAUSE_S)
        else:
            return connection
    raise AssertionError("unreachable")
