"""What Prometheus reads at `/metrics`: one stable set of edgekit's names, and the engine's own.

The names are listed in docs/reference/api.md and do not change within a major version. Labels never
carry a client's text: endpoints, models and reasons come from fixed sets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from edgekit.gateway.outcome import Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BETWEEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
WINDOW_S = 60
MAX_ENGINE_BYTES = 1 << 20


class Metrics:
    """Counters of one gateway. `live` gives what is measured at the moment of asking."""

    def __init__(self, live: Callable[[], Iterable[Metric]]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "edgekit_requests",
            "Generations by endpoint, model and HTTP status (499: the client left).",
            ["endpoint", "model", "status"],
            registry=self.registry,
        )
        self._denied = Counter(
            "edgekit_denied", "Refused requests by reason.", ["reason"], registry=self.registry
        )
        self._first = Histogram(
            "edgekit_ttft_seconds",
            "Time from the request's acceptance to the engine's first token.",
            ["model"],
            buckets=FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self._between = Histogram(
            "edgekit_inter_token_seconds",
            "Mean time between the tokens of one answer.",
            ["model"],
            buckets=BETWEEN_BUCKETS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "edgekit_tokens",
            "Tokens of prompts (in) and answers (out).",
            ["model", "direction"],
            registry=self.registry,
        )
        self.registry.register(_Live(live))

    def observe(self, endpoint: str, model: str, outcome: Outcome) -> None:
        """Count one generation that has ended."""
        self._requests.labels(endpoint, model, str(outcome.status)).inc()
        self._tokens.labels(model, "in").inc(outcome.tokens_in or 0)
        self._tokens.labels(model, "out").inc(outcome.used_tokens - (outcome.tokens_in or 0))
        if outcome.first_token_ns is not None:
            waited = outcome.first_token_ns - outcome.started_ns
            self._first.labels(model).observe(waited / 1e9)
            if outcome.pieces > 1:
                spent = outcome.last_token_ns - outcome.first_token_ns
                self._between.labels(model).observe(spent / 1e9 / (outcome.pieces - 1))

    def deny(self, reason: str) -> None:
        """Count one refusal."""
        self._denied.labels(reason).inc()

    def render(self, engines: Iterable[tuple[str, bytes]]) -> bytes:
        """All of it as text; `engines` are the engines' own texts by name."""
        parts = [generate_latest(self.registry)]
        for name, text in engines:
            parts.append(generate_latest(_foreign(name, text)))
        return b"".join(parts)


class Meter:
    """Tokens per second over the last minute, for people to look at."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque(maxlen=WINDOW_S + 1)

    def add(self, count: int) -> None:
        """Count what came just now."""
        second = int(self._clock())
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    def series(self) -> list[int]:
        """Tokens in each of the last 60 whole seconds, the oldest first."""
        now = int(self._clock())
        by_second = dict(self._seconds)
        return [by_second.get(now - ago, 0) for ago in range(WINDOW_S, 0, -1)]


class _Live(Collector):
    def __init__(self, live: Callable[[], Iterable[Metric]]) -> None:
        self._live = live

    def collect(self) -> Iterable[Metric]:
        return self._live()


def _foreign(engine: str, text: bytes) -> CollectorRegistry:
    """An engine's own metrics under their own names, with the engine's name as a label.

    Text that is not in the format, and names that are edgekit's, are left out.
    """
    registry = CollectorRegistry()

    def collect() -> Iterable[Metric]:
        try:
            families = list(text_string_to_metric_families(text.decode("utf-8", "replace")))
        except ValueError:
            return
        for family in families:
            if family.name.startswith("edgekit"):
                continue
            family.samples = [
                sample._replace(labels={**sample.labels, "engine": engine})
                for sample in family.samples
            ]
            yield family

    registry.register(_Live(collect))
    return registry
