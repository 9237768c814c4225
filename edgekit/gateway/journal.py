"""The gateway's records in the audit log: what they hold and how often denials are written.

Prompts and answers appear only as HMAC-SHA-384 under a key of this host: a bare hash of a short
prompt could be guessed offline. `prompt_hmac` is over the prompt's UTF-8 text, or over the
canonical JSON of the messages as they went to the engine; `output_hmac` is over the text that came
back, reasoning included; `hmac_key` names the key (12 digits of its SHA-384).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.api_keys import ApiKey
from edgekit.errors import AuditUnavailableError
from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError
from edgekit.system.audit_client import AsyncAuditClient

DENIAL_BURST = 20
DENIALS_PER_S = 2.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: API key (None before authentication), address, and this request's id."""

    request_id: str
    key: ApiKey | None
    source: str


class Journal:
    """Writes the gateway's records; knows the digest key."""

    def __init__(self, client: AsyncAuditClient, key: bytes, generation: str) -> None:
        self._client = client
        self._key = key
        self._key_id = hashlib.sha384(key).hexdigest()[:12]
        self._generation = generation
        self._budget = float(DENIAL_BURST)
        self._refilled = time.monotonic()
        self._suppressed = 0

    def digest(self, data: bytes = b"") -> hmac.HMAC:
        """A fresh keyed digest."""
        return hmac.new(self._key, data, hashlib.sha384)

    async def begin(self, caller: Caller, job: Job, bytes_in: int) -> None:
        """Record the request. Raises AuditUnavailableError: then the engine is not called."""
        await self._client.append(
            {
                **self._who(caller, "request"),
                "endpoint": job.endpoint,
                "model": job.model.name,
                "engine": job.model.engine,
                "weights_digest": job.model.digest,
                "params": dict(job.params),
                "prompt_hmac": self.digest(job.prompt).hexdigest(),
                "hmac_key": self._key_id,
                "bytes_in": bytes_in,
                "stream": job.stream,
            }
        )

    async def end(
        self,
        caller: Caller,
        outcome: Outcome,
        status: int,
        *,
        error: str | None = None,
        aborted: bool = False,
    ) -> None:
        """Record what became of a request. Raises AuditUnavailableError."""
        first = outcome.first_token_ns
        await self._client.append(
            {
                **self._who(caller, "response"),
                "status": status,
                "finish_reason": outcome.finish_reason,
                "tokens_in": outcome.tokens_in,
                "tokens_out": outcome.tokens_out,
                "aborted": aborted,
                "error": error,
                "ttft_ms": None if first is None else (first - outcome.started_ns) // 1_000_000,
                "latency_ms": (time.monotonic_ns() - outcome.started_ns) // 1_000_000,
                "output_hmac": outcome.digest.hexdigest(),
                "hmac_key": self._key_id,
            }
        )

    async def denied(self, caller: Caller, error: ApiError, method: str, path: str) -> None:
        """Record a denial, at a bounded rate; never raises.

        A flood must not fill the disk: what the budget leaves out is counted, and the next record
        says how many. A denial stands whether or not it could be written.
        """
        if not self._affordable():
            self._suppressed += 1
            return
        record = {
            **self._who(caller, "auth_fail" if error.status == 401 else "denied"),
            "status": error.status,
            "reason": error.code,
            "param": error.param,
            "method": method,
            "path": path,
            "suppressed_before": self._suppressed,
        }
        try:
            await self._client.append(record)
            self._suppressed = 0
        except AuditUnavailableError:
            self._suppressed += 1

    def _affordable(self) -> bool:
        now = time.monotonic()
        self._budget = min(DENIAL_BURST, self._budget + (now - self._refilled) * DENIALS_PER_S)
        self._refilled = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def _who(self, caller: Caller, kind: str) -> Mapping[str, Any]:
        return {
            "type": kind,
            "unit": "gateway",
            "request_id": caller.request_id,
            "actor": caller.key.id if caller.key else "",
            "src": caller.source,
            "generation": self._generation,
        }
