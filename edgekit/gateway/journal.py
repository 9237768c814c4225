"""The gateway's records in the audit log: what they hold and how often denials are written.

Prompts and answers appear only as HMAC-SHA-384 under a key of this host: a bare hash of a short
prompt could be guessed offline. `prompt_hmac` is over the prompt's UTF-8 text, or over the
canonical JSON of the messages as they went to the engine; `output_hmac` is over the text that came
back, reasoning included; `text_hmac` is over the last user message alone, so that a known text can
be looked for; `hmac_key` names the key (12 digits of its SHA-384). By the site's policy
(`text_mode`) there are no digests at all, or texts are kept in side files, of which `prompt_file`
and `output_file` are the SHA-384 (`core.audit_texts`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edgekit.core.api_keys import ApiKey
from edgekit.core.text_policy import TextMode
from edgekit.errors import AuditUnavailableError
from edgekit.gateway.job import Job
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import ApiError
from edgekit.gateway.texts import TextKeeper
from edgekit.system.audit_client import AsyncAuditClient

REFUSE_WITHIN_S = 0.8
"""How long a request waits for its record: less than the second in which a 503 must come. An answer
that the engine has already given waits longer (`ANSWER_TIMEOUT_S`): it would be lost."""
CLIENT_GONE = 499
DENIAL_BURST = 20
DENIALS_PER_S = 2.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: API key (None before authentication), address, and this request's id."""

    request_id: str
    key: ApiKey | None
    source: str


class Journal:
    """Writes the gateway's records; knows the digest key and what is kept of texts."""

    def __init__(
        self, client: AsyncAuditClient, key: bytes, generation: str, keeper: TextKeeper
    ) -> None:
        self._client = client
        self._keeper = keeper
        self._key = key
        self._key_id = hashlib.sha384(key).hexdigest()[:12]
        self._generation = generation
        self._budget = float(DENIAL_BURST)
        self._refilled = time.monotonic()
        self._suppressed = 0
        self._policy_recorded = False
        self._closing: set[asyncio.Task[None]] = set()

    def digest(self, data: bytes = b"") -> hmac.HMAC:
        """A fresh keyed digest."""
        return hmac.new(self._key, data, hashlib.sha384)

    def mode(self, caller: Caller, job: Job) -> TextMode:
        """What is kept of this request's texts."""
        return self._keeper.policy.mode(caller.key.id if caller.key else "", job.model.name)

    async def begin(self, caller: Caller, job: Job, bytes_in: int) -> None:
        """Record the request. Raises AuditUnavailableError: then the engine is not called.

        A record that becomes durable later than anybody waits for it is closed by its response.
        """
        mode = self.mode(caller, job)
        if not self._policy_recorded:
            await self._client.append(self._keeper.event(), within_s=REFUSE_WITHIN_S)
            self._policy_recorded = True
        record = {
            **self._who(caller, "request"),
            **await self._texts(mode, caller.request_id, "prompt", job.prompt),
            "endpoint": job.endpoint,
            "model": job.model.name,
            "engine": job.model.engine,
            "weights_digest": job.model.digest,
            "params": dict(job.params),
            **self._digests(mode, prompt_hmac=job.prompt, text_hmac=job.last_user_text),
            **self._pictures(mode, job),
            "text_mode": mode.label,
            "bytes_in": bytes_in,
            "stream": job.stream,
        }
        status, error = 503, "audit_unavailable"

        def close() -> None:
            task = asyncio.create_task(self._never_served(caller, job, status, error))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        try:
            await self._client.append(record, within_s=REFUSE_WITHIN_S, late=close)
        except asyncio.CancelledError:
            status, error = CLIENT_GONE, "client_gone"
            raise

    async def _never_served(self, caller: Caller, job: Job, status: int, error: str) -> None:
        """The response record of a request that the engine never saw; never raises."""
        outcome = Outcome(self.digest())
        with suppress(AuditUnavailableError):  # then it stays open until this connection ends
            await self.end(caller, job, outcome, status, error=error, aborted=True)

    async def end(
        self,
        caller: Caller,
        job: Job,
        outcome: Outcome,
        status: int,
        *,
        error: str | None = None,
        aborted: bool = False,
    ) -> None:
        """Record what became of a request. Raises AuditUnavailableError."""
        first, mode = outcome.first_token_ns, self.mode(caller, job)
        digests = {"output_hmac": outcome.digest.hexdigest(), "hmac_key": self._key_id}
        await self._client.append(
            {
                **self._who(caller, "response"),
                **await self._texts(mode, caller.request_id, "output", outcome.text()),
                **(digests if mode >= TextMode.HASH else {}),
                "model": job.model.name,
                "text_mode": mode.label,
                "status": status,
                "finish_reason": outcome.finish_reason,
                "tokens_in": outcome.tokens_in,
                "tokens_out": outcome.tokens_out,
                "aborted": aborted,
                "error": error,
                "ttft_ms": None if first is None else (first - outcome.started_ns) // 1_000_000,
                "latency_ms": (time.monotonic_ns() - outcome.started_ns) // 1_000_000,
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
            await self._client.append(record, within_s=REFUSE_WITHIN_S)
            self._suppressed = 0
        except AuditUnavailableError:
            self._suppressed += 1

    def _digests(self, mode: TextMode, **texts: bytes | None) -> Mapping[str, str]:
        """Keyed digests of these texts, where the policy allows them."""
        if mode < TextMode.HASH:
            return {}
        digests = {
            name: self.digest(text).hexdigest() for name, text in texts.items() if text is not None
        }
        return {**digests, "hmac_key": self._key_id}

    def _pictures(self, mode: TextMode, job: Job) -> Mapping[str, str]:
        """Each picture's size, and where the policy allows it its keyed digest; never the picture.
        """
        if not job.pictures:
            return {}
        found = {"image_bytes": " ".join(str(len(data)) for data in job.pictures)}
        if mode >= TextMode.HASH:
            found["image_hmac"] = " ".join(self.digest(data).hexdigest() for data in job.pictures)
        return found

    async def _texts(
        self, mode: TextMode, request_id: str, part: str, text: bytes
    ) -> Mapping[str, str]:
        """Keep a text where the policy says so; the field that names its file."""
        digest = await self._keeper.keep(mode, request_id, part, text)
        return {} if digest is None else {f"{part}_file": digest}

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
