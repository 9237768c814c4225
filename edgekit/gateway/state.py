"""What the gateway knows about its appliance: for `/readyz`, `/metrics` and the console."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edgekit import __version__
from edgekit.core.appliance import Appliance, EngineSettings
from edgekit.core.planning.engine_report import device_problem
from edgekit.errors import EdgekitError, EngineError
from edgekit.gateway.job import EMBED_TARGET, TEXT_TARGET
from edgekit.gateway.metrics import MAX_ENGINE_BYTES, Meter
from edgekit.gateway.serve import Engine
from edgekit.system.audit_client import AsyncAuditClient
from edgekit.system.engine_report import read_report

CHECK_TIMEOUT_S = 2.0
PROOF_TIMEOUT_S = 10.0
DOUBT_S = 10.0
"""How long a failed proof counts: strangers may ask, and must not keep an engine busy."""
FRESH_S = 60.0
"""A token that old still proves that an engine generates."""
MIN_FREE_BYTES = 256 << 20


@dataclass(slots=True)
class Seen:
    """What was seen of one engine: when it last gave a token, and its socket's birth."""

    token_s: float = -FRESH_S
    failed_s: float = -DOUBT_S
    socket_born_ns: int = 0
    restarts: int = 0
    meter: Meter = field(default_factory=Meter)
    proving: asyncio.Lock = field(default_factory=asyncio.Lock)


class State:
    """Looks at engines, audit writer and disk when it is asked; at most once a second."""

    def __init__(
        self,
        appliance: Appliance,
        engines: Mapping[str, Engine],
        audit: AsyncAuditClient,
        plan: Mapping[str, Any] | None = None,
        disk: Path | None = None,
    ) -> None:
        self._appliance = appliance
        self._engines = engines
        self._audit = audit
        self._plan = plan or {}
        self._disk = disk
        self._seen = {name: Seen() for name in engines}
        self._up: dict[str, bool] = {}
        self._asked = -1.0
        self._began = time.monotonic()

    def token(self, engine: str, count: int) -> None:
        """An engine has just given tokens."""
        seen = self._seen[engine]
        seen.token_s = time.monotonic()
        seen.meter.add(count)

    async def parts(self) -> dict[str, bool]:
        """Each part of readiness by name, true when it is good. Asks engines for a real token."""
        await self._look()
        names = list(self._engines)
        proofs = await asyncio.gather(*(self._proven(name) for name in names))
        return {
            "audit": await self._audit_writable(),
            "audit_space": self._audit.space in ("ok", "warn"),
            "disk": self._free_bytes() >= MIN_FREE_BYTES,
            **{f"engine:{name}": good for name, good in zip(names, proofs, strict=True)},
            **self._devices(),
        }

    def _devices(self) -> dict[str, bool]:
        """Whether weights lie where the plan put them, of engines that say where they lie."""
        found = {}
        for settings in self._appliance.engines:
            if not self._engines[settings.name].loaded:
                continue
            try:
                buffers = read_report(Path(settings.socket))
            except EdgekitError:
                found[f"device:{settings.name}"] = False
                continue
            if buffers:
                problem = device_problem(settings.placement, buffers)
                found[f"device:{settings.name}"] = problem is None
        return found

    async def table(self) -> dict[str, Any]:
        """Everything the console shows (`edgekit.state/1`)."""
        await self._look()
        appliance = self._appliance
        last, signed = self._audit.last, self._audit.signed
        return {
            "schema": "edgekit.state/1",
            "edgekit": __version__,
            "name": appliance.name,
            "version": appliance.version,
            "generation": appliance.generation,
            "signers": self._plan.get("signers", []),
            "uptime_s": int(time.monotonic() - self._began),
            "parts": await self.parts(),
            "disk_free_bytes": self._free_bytes(),
            "audit": {
                "sequence": last.sequence,
                "age_s": None if last.at_s is None else round(time.monotonic() - last.at_s, 1),
                "lag_ms": round(last.lag_s * 1000, 2),
                "space": self._audit.space,
                "signed": None if signed is None else signed.seq,
                "signed_age_s": None if signed is None else round(time.time() - signed.t_utc / 1e6),
            },
            "engines": [self._engine_table(settings) for settings in appliance.engines],
            "models": [
                {
                    "name": model.name,
                    "engine": model.engine,
                    "quantization": model.quantization,
                    "parameters": model.parameter_size,
                    "context": model.context,
                    "size": model.size,
                    "digest": model.digest,
                    "license": model.license,
                }
                for model in appliance.models
            ],
        }

    def live(self) -> Iterable[Metric]:
        """Gauges of this moment. Engines are asked by `engine_texts`, which comes before."""
        yield from self._engine_gauges()
        yield from self._plan_gauges()
        last = self._audit.last
        yield _gauge("edgekit_audit_lag_seconds", "How long the newest record waited.", last.lag_s)
        yield _gauge("edgekit_audit_sequence", "Number of the newest record.", last.sequence)
        yield _gauge(
            "edgekit_disk_free_bytes", "Free on the gateway's file system.", self._free_bytes()
        )
        info = GaugeMetricFamily(
            "edgekit_generation_info",
            "The release that serves.",
            labels=["generation", "name", "version", "edgekit"],
        )
        appliance = self._appliance
        info.add_metric([appliance.generation, appliance.name, appliance.version, __version__], 1)
        yield info

    async def engine_texts(self) -> list[tuple[str, bytes]]:
        """The engines' own metrics; of an engine that does not answer, nothing."""
        await self._look()
        texts = await asyncio.gather(*(self._fetch(name, "/metrics") for name in self._engines))
        return [
            (name, text)
            for name, text in zip(self._engines, texts, strict=True)
            if text is not None and len(text) <= MAX_ENGINE_BYTES
        ]

    def _engine_gauges(self) -> Iterable[Metric]:
        depth = GaugeMetricFamily("edgekit_queue_depth", "Waiting requests.", labels=["engine"])
        running = GaugeMetricFamily("edgekit_running", "Running requests.", labels=["engine"])
        slots = GaugeMetricFamily("edgekit_slots", "Requests that can run.", labels=["engine"])
        up = GaugeMetricFamily(
            "edgekit_engine_up", "1 when it answers, or can be asked for.", labels=["engine"]
        )
        loaded = GaugeMetricFamily(
            "edgekit_engine_loaded", "1 when it is in memory.", labels=["engine"]
        )
        restarts = CounterMetricFamily(
            "edgekit_engine_restarts",
            "Starts of the engine that this gateway saw after the first.",
            labels=["engine"],
        )
        for name, engine in self._engines.items():
            depth.add_metric([name], engine.admission.waiting)
            running.add_metric([name], engine.admission.running)
            slots.add_metric([name], engine.admission.slots)
            up.add_metric([name], int(self._up.get(name, False)))
            loaded.add_metric([name], int(engine.loaded))
            restarts.add_metric([name], self._seen[name].restarts)
        return (depth, running, slots, up, loaded, restarts)

    def _plan_gauges(self) -> Iterable[Metric]:
        plan = GaugeMetricFamily(
            "edgekit_memory_plan_bytes", "Planned memory.", labels=["engine", "part"]
        )
        for name in self._engines:
            for part, count in self._need(name).items():
                plan.add_metric([name, part], count)
        return (plan,)

    def _engine_table(self, settings: EngineSettings) -> dict[str, Any]:
        name = settings.name
        engine, seen = self._engines[name], self._seen[name]
        age = time.monotonic() - seen.token_s
        series = seen.meter.series()
        return {
            "name": name,
            "kind": settings.kind,
            "up": self._up.get(name, False),
            "loaded": engine.loaded,
            "slots": settings.slots,
            "running": engine.admission.running,
            "waiting": engine.admission.waiting,
            "restarts": seen.restarts,
            "last_token_s": round(age, 1) if age < 86_400 else None,
            "tokens_per_second": series[-1],
            "series": series,
            "memory_plan": self._need(name),
        }

    def _need(self, engine: str) -> dict[str, int]:
        """Planned bytes by part; nothing when the generation carries no plan."""
        for model in self._plan.get("models", []):
            if model.get("model") == engine:
                need = model.get("chosen", {}).get("need", {})
                return {part: size for part, size in need.items() if isinstance(size, int) and size}
        return {}

    async def _look(self) -> None:
        """Ask the engines whether they are there, and count new births of their sockets."""
        if time.monotonic() - self._asked < 1:
            return
        self._asked = time.monotonic()
        answers = await asyncio.gather(*(self._fetch(name, "/health") for name in self._engines))
        for settings, answer in zip(self._appliance.engines, answers, strict=True):
            engine = self._engines[settings.name]
            self._up[settings.name] = answer is not None or await engine.rests()
            if engine.on_demand:
                continue  # its socket is born whenever it is loaded
            seen = self._seen[settings.name]
            with contextlib.suppress(OSError):
                born = Path(settings.socket).stat().st_ctime_ns
                seen.restarts += bool(seen.socket_born_ns) and born != seen.socket_born_ns
                seen.socket_born_ns = born

    async def _fetch(self, name: str, target: str) -> bytes | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                response = await self._engines[name].client.request("GET", target)
                try:
                    body = await response.read()
                finally:
                    response.close()
        except (EngineError, TimeoutError):
            return None
        return body if response.status == 200 else None

    async def _proven(self, name: str) -> bool:
        """Whether the engine gave a token within the last minute, or gives one now."""
        seen, admission = self._seen[name], self._engines[name].admission
        if not self._up.get(name):
            return False
        if self._engines[name].on_demand:
            return True  # it can be asked for, or answered its known questions when it was loaded
        async with seen.proving:
            if time.monotonic() - seen.token_s < FRESH_S or admission.running:
                return True  # one that runs will end, or be ended, and is the proof
            if time.monotonic() - seen.failed_s < DOUBT_S:
                return False
            good = await self._ask_for_a_token(name)
            if not good:
                seen.failed_s = time.monotonic()
            return good

    async def _ask_for_a_token(self, name: str) -> bool:
        """One token, or from another engine one answer."""
        model = next((m.name for m in self._appliance.models if m.engine == name), name)
        target, question, wanted = TEXT_TARGET, {"prompt": "1", "max_tokens": 1}, "choices"
        if self._appliance.engine(name).task != "chat":
            target, question, wanted = EMBED_TARGET, {"input": "1"}, "data"
        body = json.dumps({"model": model, **question}).encode()
        try:
            async with asyncio.timeout(PROOF_TIMEOUT_S), self._engines[name].admission.slot():
                client = self._engines[name].client
                response = await client.request("POST", target, body)
                try:
                    answer = json.loads(await response.read())
                finally:
                    response.close()
            good = response.status == 200 and bool(answer.get(wanted))
        except (EngineError, TimeoutError, ValueError, AttributeError):
            return False
        if good:
            self._seen[name].token_s = time.monotonic()
        return good

    async def _audit_writable(self) -> bool:
        """Whether the writer takes connections and took the last record it was given."""
        if self._audit.last.failed:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
            try:
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    loop = asyncio.get_running_loop()
                    await loop.sock_connect(sock, self._appliance.audit_socket)
            except (OSError, TimeoutError):
                return False
        return True

    def _free_bytes(self) -> int:
        if self._disk is None:
            return MIN_FREE_BYTES
        numbers = os.statvfs(self._disk)
        return numbers.f_bavail * numbers.f_frsize


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family
