"""The health check through the front door: known questions over the API, as any client would."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.core.appliance import Appliance, CanaryCheck
from edgekit.errors import EngineError, EngineNotReadyError, WrongAnswerError

REQUEST_TIMEOUT_S = 120.0
CONNECT_TRIES = 50
CONNECT_PAUSE_S = 0.1
MAX_ANSWER_TOKENS = 64
MAX_ANSWER_BYTES = 1 << 20
_DATA = b"data: "
_DONE = b"data: [DONE]"


def ask_known_questions(appliance: Appliance, api_key: str) -> None:
    """Ask every canary through the gateway and check the answers.

    Raises WrongAnswerError with question, answer and what was expected, EngineError when the API
    answers with an error, EngineNotReadyError when it cannot be reached.
    """
    for engine in appliance.engines:
        for canary in engine.canaries:
            answer = ask(appliance.listen, api_key, canary.model, canary.prompt)
            check_answer(canary, answer)


def check_answer(canary: CanaryCheck, answer: str) -> None:
    """Raises WrongAnswerError unless the answer contains what it must."""
    if canary.answer not in answer:
        raise WrongAnswerError(
            f"{canary.model} answers, but not what the set says it must",
            where=canary.prompt[:100],
            needed=canary.answer[:200],
            found=answer[:200],
            hint="edgekit verify SET, then install again",
        )


def ask(listen: str, api_key: str, model: str, prompt: str) -> str:
    """One greedy chat completion over the API; the answer's text. Raises as `_answering`."""
    with _answering(listen, api_key, model, prompt, stream=False) as response:
        data = response.read(MAX_ANSWER_BYTES)
    return str(json.loads(data)["choices"][0]["message"]["content"])


def stream_answer(listen: str, api_key: str, model: str, prompt: str) -> Iterator[str]:
    """The same answer piece by piece, as the engine makes it. Raises as `_answering`."""
    with _answering(listen, api_key, model, prompt, stream=True) as response:
        for line in response:
            if not line.startswith(_DATA) or line.strip() == _DONE:
                continue
            chunk = json.loads(line[len(_DATA) :])
            if "error" in chunk:
                raise EngineError("the answer broke off", found=str(chunk["error"])[:300])
            for choice in chunk["choices"]:
                text = choice["delta"].get("content")
                if text:
                    yield str(text)


@contextmanager
def _answering(
    listen: str, api_key: str, model: str, prompt: str, *, stream: bool
) -> Iterator[http.client.HTTPResponse]:
    """A chat completion's response, status 200.

    Raises EngineNotReadyError when the API does not answer, EngineError when it answers with an
    error.
    """
    address, _, port = listen.rpartition(":")
    connection = _connect(address, int(port))
    question = {
        "model": model,
        "temperature": 0,
        "max_tokens": MAX_ANSWER_TOKENS,
        "stream": stream,
        "messages": [{"role": "user", "content": prompt}],
    }
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(question), headers)
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


def _connect(address: str, port: int) -> http.client.HTTPConnection:
    for attempt in range(CONNECT_TRIES):
        connection = http.client.HTTPConnection(address, port, timeout=REQUEST_TIMEOUT_S)
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
