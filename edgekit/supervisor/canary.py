"""Ask an engine what it must know: readiness is a right answer, not an open socket."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgekit.core.appliance import CanaryCheck
from edgekit.errors import EngineError, EngineNotReadyError, WrongAnswerError
from edgekit.system import unix_http

POLL_S = 0.1
HEALTH_TIMEOUT_S = 10.0
ANSWER_TOKENS_PER_CHAR = 1
MIN_ANSWER_TOKENS = 32


def wait_healthy(socket_path: str, *, deadline: float, still_running: Callable[[], None]) -> None:
    """Wait until `/health` answers 200.

    `deadline` is on the monotonic clock; `still_running` raises when waiting has become pointless.
    Raises EngineNotReadyError.
    """
    while not is_healthy(socket_path):
        still_running()
        if time.monotonic() >= deadline:
            raise EngineNotReadyError("the engine did not become ready in time", where=socket_path)
        time.sleep(POLL_S)


def is_healthy(socket_path: str) -> bool:
    """True when the engine says so itself."""
    try:
        return unix_http.get(socket_path, "/health", timeout_s=HEALTH_TIMEOUT_S).status == 200
    except EngineError:
        return False


def check_answer(socket_path: str, canary: CanaryCheck, *, timeout_s: float) -> None:
    """Ask greedily and look for the expected text in the answer.

    Raises WrongAnswerError when it is not there, EngineError when there is no answer.
    """
    request = {
        "model": canary.model,
        "messages": [{"role": "user", "content": canary.prompt}],
        "temperature": 0,
        "seed": 0,
        "stream": False,
        "max_tokens": max(MIN_ANSWER_TOKENS, len(canary.answer) * ANSWER_TOKENS_PER_CHAR),
    }
    answer = unix_http.post_json(socket_path, "/v1/chat/completions", request, timeout_s=timeout_s)
    if answer.status != 200:
        raise EngineError(
            "the engine refuses the canary prompt",
            where=canary.model,
            found=f"HTTP status {answer.status}",
        )
    text = _text_of(answer.json())
    if canary.answer not in text:
        raise WrongAnswerError(
            "the engine gives a wrong answer to its canary prompt",
            where=canary.model,
            found=repr(text[:200]),
            needed=repr(canary.answer),
        )


def _text_of(answer: object) -> str:
    try:
        content = answer["choices"][0]["message"]["content"]  # type: ignore[index]
    except (KeyError, IndexError, TypeError) as error:
        raise EngineError("the engine's answer has an unknown shape") from error
    return str(content)
