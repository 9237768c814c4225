"""What one key may use: requests, tokens and concurrency, as its limits in the keys file say.

Rates are buckets that refill steadily: a limit of 60 a minute allows a burst of 60, then one a
second. Tokens are charged when they are known, after the answer, so a bucket can go below zero: the
next request then waits until it is filled again. What was used of a day outlives the gateway
(`DayUse`); the buckets of minutes are full again by the time that it is back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from edgekit.core.api_keys import ApiKey, KeyLimits
from edgekit.gateway.problems import ApiError

MINUTE_S = 60.0
DAY_S = 86_400.0
Clock = Callable[[], float]


class Bucket:
    """`amount` per `period_s`, refilled steadily; full at first."""

    def __init__(self, amount: int, period_s: float, clock: Clock) -> None:
        self._amount = float(amount)
        self._rate = amount / period_s
        self._clock = clock
        self._level = self._amount
        self._filled = clock()

    def wait_s(self, wanted: float) -> float:
        """Seconds until `wanted` is there; 0 when it is now."""
        now = self._clock()
        self._level = min(self._amount, self._level + (now - self._filled) * self._rate)
        self._filled = now
        return max(0.0, (wanted - self._level) / self._rate)

    def take(self, used: float) -> None:
        """Take it out, whether or not it is there."""
        self._level -= used

    def used(self) -> float:
        """How much of it is missing now."""
        self.wait_s(0)
        return self._amount - self._level

    def refilled(self, used: float, seconds: float) -> float:
        """What is left of such a use after so long."""
        return max(0.0, used - max(0.0, seconds) * self._rate)


@dataclass(frozen=True, slots=True)
class DayUse:
    """Tokens that a key's day was missing at a time (Unix s)."""

    tokens: int
    at_s: int


class _Use:
    """The buckets of one key."""

    def __init__(self, limits: KeyLimits, clock: Clock) -> None:
        self.limits = limits
        self.running = 0
        self.requests = _bucket(limits.requests_per_minute, MINUTE_S, clock)
        self.day = _bucket(limits.tokens_per_day, DAY_S, clock)
        minute = _bucket(limits.tokens_per_minute, MINUTE_S, clock)
        self.tokens = [bucket for bucket in (minute, self.day) if bucket]


class Limits:
    """The use of every key that has limits; `earlier` is what `day_uses` gave before a restart."""

    def __init__(
        self,
        clock: Clock = time.monotonic,
        earlier: Mapping[str, DayUse] = MappingProxyType({}),
        wall: Clock = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._earlier = dict(earlier)
        self._uses: dict[str, _Use] = {}

    def day_uses(self) -> dict[str, DayUse]:
        """What is missing of every key's day; keys that miss nothing are left out."""
        now = int(self._wall())
        kept = {key: use for key, use in self._earlier.items() if now - use.at_s < DAY_S}
        for key, use in self._uses.items():
            kept.pop(key, None)
            if use.day and (tokens := math.ceil(use.day.used())) > 0:
                kept[key] = DayUse(tokens, now)
        return kept

    @contextmanager
    def request(self, key: ApiKey) -> Iterator[None]:
        """One request of this key, from its admission to its end. Raises ApiError 429."""
        if key.limits == KeyLimits():
            yield
            return
        use = self._use(key)
        self._check(use)
        if use.requests:
            use.requests.take(1)
        use.running += 1
        try:
            yield
        finally:
            use.running -= 1

    def charge(self, key: ApiKey, tokens: int) -> None:
        """Count tokens that a request used."""
        if key.limits != KeyLimits():
            for bucket in self._use(key).tokens:
                bucket.take(tokens)

    def _use(self, key: ApiKey) -> _Use:
        use = self._uses.get(key.id)
        if use is None or use.limits != key.limits:
            fresh = _Use(key.limits, self._clock)
            fresh.running = use.running if use else 0
            if fresh.day and (earlier := self._earlier.pop(key.id, None)):
                passed = self._wall() - earlier.at_s
                fresh.day.take(fresh.day.refilled(earlier.tokens, passed))
            use = self._uses[key.id] = fresh
        return use

    def _check(self, use: _Use) -> None:
        if use.limits.concurrent and use.running >= use.limits.concurrent:
            raise _too_many("concurrent requests", 1)
        if use.requests and (wait := use.requests.wait_s(1)):
            raise _too_many("requests", wait)
        for bucket in use.tokens:
            if wait := bucket.wait_s(1):
                raise _too_many("tokens", wait)


def _bucket(amount: int, period_s: float, clock: Clock) -> Bucket | None:
    return Bucket(amount, period_s, clock) if amount else None


def _too_many(what: str, wait_s: float) -> ApiError:
    return ApiError(
        429,
        "rate_limit_exceeded",
        f"this API key has used up its {what} for now",
        retry_after=max(1, math.ceil(wait_s)),
    )
