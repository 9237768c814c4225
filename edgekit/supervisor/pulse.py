"""Whether an engine still infers: the watchdog is fed by answers, not by an open socket.

One token is asked for at a time, in a thread of its own. While users keep every slot busy that
question waits, so an engine that uses the processor is given the time of the longest generation;
one that neither answers nor computes is not. (An engine that was stopped, or waits for a lock that
never comes, uses no processor. One that spins is found when the question's time is over.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edgekit.core.appliance import EngineSettings
from edgekit.errors import EngineError
from edgekit.supervisor.canary import is_healthy
from edgekit.system import unix_http

QUESTION_TIMEOUT_S = 3600.0
"""As long as the gateway lets one generation take."""
BUSY_SHARE = 0.05
"""Seconds of processor per second from which an engine counts as computing."""
PROMPT = "ping"


class Pulse:
    """The signs of life of one engine. `used_s` gives the processor seconds of its processes."""

    def __init__(self, settings: EngineSettings, used_s: Callable[[], float]) -> None:
        self._socket = settings.socket
        model = settings.canaries[0].model if settings.canaries else settings.name
        self._target, self._question = _question(model, settings.task)
        self._used_s = used_s
        self._asking: threading.Thread | None = None
        self._answers = 0
        self._seen = 0
        self._last = (time.monotonic(), used_s())

    def beats(self) -> bool:
        """Whether the engine answered or computed since the last call; asks again if it may."""
        answered = self._answers != self._seen
        self._seen = self._answers
        computed = self._computed()
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask, daemon=True)
            self._asking.start()
            self._asking.join(1.0)  # an idle engine has answered by then
            answered = answered or self._answers != self._seen
            self._seen = self._answers
        return answered or (computed and is_healthy(self._socket))

    def _computed(self) -> bool:
        """Whether the engine used the processor since the last call."""
        (then, before), now = self._last, (time.monotonic(), self._used_s())
        self._last = now
        return now[1] - before >= BUSY_SHARE * (now[0] - then)

    def _ask(self) -> None:
        try:
            answer = unix_http.post_json(
                self._socket, self._target, self._question, timeout_s=QUESTION_TIMEOUT_S
            )
        except EngineError:
            return
        if answer.status == 200:
            self._answers += 1


def _question(model: str, task: str) -> tuple[str, dict[str, object]]:
    """The least that a model of this kind can be asked: (path, body)."""
    if task == "embedding":
        return "/v1/embeddings", {"model": model, "input": [PROMPT]}
    if task == "rerank":
        return "/v1/rerank", {"model": model, "query": PROMPT, "documents": [PROMPT]}
    return "/v1/chat/completions", {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 1,
        "temperature": 0,
        "stream": False,
    }
