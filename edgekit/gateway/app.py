"""The gateway as an ASGI application: guard, then the hot path or the cold routes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgekit.core.api_keys import KeyRing
from edgekit.core.appliance import Appliance
from edgekit.gateway.admission import Admission
from edgekit.gateway.body import parse_body
from edgekit.gateway.cold import make_cold_app
from edgekit.gateway.defaults import with_defaults
from edgekit.gateway.engine_client import EngineClient
from edgekit.gateway.guard import PUBLIC, Guard, check_scope
from edgekit.gateway.http import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    answer,
    answer_problem,
    header_table,
    read_body,
)
from edgekit.gateway.journal import Caller, Journal
from edgekit.gateway.limits import Limits
from edgekit.gateway.logs import note, note_failure, note_request
from edgekit.gateway.metrics import Metrics
from edgekit.gateway.pictures import with_pictures
from edgekit.gateway.problems import ApiError, surface_of
from edgekit.gateway.quotas import load_quotas
from edgekit.gateway.residence import Residence
from edgekit.gateway.serve import Engine, Generation
from edgekit.gateway.state import State
from edgekit.gateway.surfaces.endpoints import ENDPOINTS
from edgekit.gateway.surfaces.ollama_requests import LoadRequest
from edgekit.gateway.surfaces.translator import encode, timestamp
from edgekit.gateway.templates import with_template
from edgekit.gateway.texts import TextKeeper
from edgekit.system.audit_client import AsyncAuditClient

MANAGEMENT = frozenset(
    f"/api/{verb}" for verb in ("pull", "push", "create", "copy", "delete", "me", "signout")
)
MANAGEMENT_PREFIXES = ("/api/blobs/", "/api/experimental/")
SERVER_ERROR = ApiError(500, "internal_error", "the gateway failed; its log has the details")


class Gateway:
    """The ASGI application. One per process; `close` releases its connections."""

    def __init__(
        self,
        appliance: Appliance,
        ring: KeyRing,
        hmac_key: bytes,
        extra_hosts: Iterable[str] = (),
        keeper: TextKeeper | None = None,
        plan: Mapping[str, Any] | None = None,
        disk: Path | None = None,
        log_requests: bool = False,
    ) -> None:
        """`disk` is the state folder, where quotas are kept; without it they are not."""
        self._log_requests = log_requests
        self._appliance = appliance
        self._guard = Guard(appliance.listen, ring, extra_hosts)
        self.limits = Limits(earlier=load_quotas(disk))
        self._audit = AsyncAuditClient(appliance.audit_socket)
        self._journal = Journal(self._audit, hmac_key, appliance.generation, keeper or TextKeeper())
        self._residence = Residence(appliance.engines, appliance.shared_room)
        self._engines = {
            settings.name: Engine(
                settings.name,
                EngineClient(settings.socket, max_idle=settings.slots),
                Admission(settings.slots),
                self._residence,
            )
            for settings in appliance.engines
        }
        clients = {name: engine.client for name, engine in self._engines.items()}
        self._state = State(appliance, self._engines, self._audit, plan, disk)
        self._metrics = Metrics(self._state.live)
        self._cold = make_cold_app(
            appliance, clients, self._residence, self._state, self._metrics
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        caller = _stranger(scope)
        try:
            await self._serve(scope, receive, watched, caller)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001  the last resort: no request ends the gateway
            note_failure(caller, error)
            if not started:
                surface = surface_of(scope["path"])
                await answer_problem(send, SERVER_ERROR, caller.request_id, surface)

    def replace_keys(self, ring: KeyRing) -> None:
        """Accept these keys from now on, and no others."""
        self._guard.replace_keys(ring)
        note("keys replaced", keys=len(ring.keys))

    def close(self) -> None:
        """Close the connections to engines and audit writer."""
        self._audit.close()
        for engine in self._engines.values():
            engine.client.close()
        self._residence.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        try:
            headers = header_table(scope)
            caller = self._identify(scope, headers, caller)
            self._permit(scope, caller)
            if scope["path"] in ENDPOINTS and scope["method"] == "POST":
                await self._generate(scope, headers, receive, send, caller)
            else:
                await self._cold(scope, receive, send)
        except ApiError as error:
            self._metrics.deny(error.code)
            await self._journal.denied(caller, error, scope["method"], scope["path"])
            await answer_problem(send, error, caller.request_id, surface_of(scope["path"]))

    def _identify(self, scope: Scope, headers: dict[str, str], caller: Caller) -> Caller:
        """The caller with its key's name; without one on public routes. Raises ApiError."""
        self._guard.check_origin(headers, scope.get("server"))
        if _is_public(scope):
            return caller
        return Caller(caller.request_id, self._guard.authenticate(headers), caller.source)

    def _permit(self, scope: Scope, caller: Caller) -> None:
        """Refuse what this caller, or any caller, may not do. Raises ApiError 403."""
        path = scope["path"]
        if _is_public(scope):
            return
        check_scope(caller.key, path)
        if path in MANAGEMENT or path.startswith(MANAGEMENT_PREFIXES):
            raise ApiError(
                403,
                "not_on_an_appliance",
                "models of this appliance come with signed bundles: this call is switched off",
            )

    async def _generate(
        self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send, caller: Caller
    ) -> None:
        data = await read_body(headers, receive)
        endpoint = ENDPOINTS[scope["path"]]
        job = endpoint.parse(parse_body(data), self._appliance)
        if isinstance(job, LoadRequest):
            if job.unload:
                await self._residence.release(job.model.engine)
            else:
                async with self._residence.using(job.model.engine, job.keep_s):
                    pass
            await answer(send, 200, _loaded(job), caller.request_id)
            return
        assert caller.key is not None
        with self.limits.request(caller.key):
            job = await with_template(with_defaults(await with_pictures(job)))
            generation = Generation(
                job,
                caller,
                endpoint.translator,
                engine=self._engines[job.model.engine],
                journal=self._journal,
                send=send,
                on_tokens=self._state.token,
            )
            try:
                await generation.serve(receive, len(data))
            finally:
                self.limits.charge(caller.key, generation.outcome.used_tokens)
                self._metrics.observe(scope["path"], job.model.name, generation.outcome)
                if self._log_requests:
                    note_request(caller, scope["path"], job.model.name, generation.outcome)


def _is_public(scope: Scope) -> bool:
    return scope["path"] in PUBLIC and scope["method"] in ("GET", "HEAD")


def _stranger(scope: Scope) -> Caller:
    client = scope.get("client")
    source = f"{client[0]}:{client[1]}" if client else ""
    return Caller(f"req-{time.time_ns() // 1_000_000:011x}{secrets.token_hex(6)}", None, source)


def _loaded(request: LoadRequest) -> bytes:
    """Ollama's answer to an empty prompt."""
    body: dict[str, Any] = {"model": request.asked_name, "created_at": timestamp()}
    if request.chat:
        body["message"] = {"role": "assistant", "content": ""}
    else:
        body["response"] = ""
    reason = "unload" if request.unload else "load"
    return encode({**body, "done": True, "done_reason": reason}) + b"\n"
