"""The rehearsal: every engine of a set is started before the set is signed, without a network.

Each pack is laid out as on a host, started by the supervisor that hosts get, with the command that
a plan for this machine has, and must answer its known questions. What does not load, answers
wrongly or reaches for a network is found here and not in the field. A pack that this machine
cannot run (another processor, no accelerator, too little memory) is left out, and the manifest
says so by not naming it.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit import __version__
from edgekit.core.appliance import (
    Appliance,
    CanaryCheck,
    EngineSettings,
    encode_appliance,
)
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.events import Finished, Listener, Started, Warned
from edgekit.core.facts import HostReport
from edgekit.core.host_layout import DEFAULT_LISTEN, HostLayout
from edgekit.core.install_plan import engine_settings, plan_environments
from edgekit.core.names import RelPath
from edgekit.core.planning.select import select_all
from edgekit.core.planning.values import Selection, Wishes
from edgekit.core.release import Manifest
from edgekit.errors import (
    EngineError,
    HostError,
    IncompatibleHostError,
    InsufficientError,
    MissingToolError,
    RefusedContentError,
)
from edgekit.operations.probe import probe_host
from edgekit.system.environments import install_wheels
from edgekit.system.files import durable_write, link_or_copy, remove_tree
from edgekit.system.netless import CANNOT, count_attempts, netless_command
from edgekit.system.process import Child, spawn

GENERATION = "rehearsal"
SKIP = "--insecure-no-rehearsal"
POLL_S = 0.2
GRACE_S = 10.0
MAX_TEXT = 200
LOG_TAIL = 1500


@dataclass(frozen=True, slots=True)
class Stage:
    """What a rehearsal is played with: blobs by digest, edgekit's program, the cache's folder."""

    blobs: Mapping[Digest, Path]
    runtime: Path
    cache: Path


def rehearse(manifest: Manifest, stage: Stage, listener: Listener) -> str:
    """Try every pack; what was rehearsed and where, for the manifest (empty: nothing was).

    A rehearsal that ended well is remembered in the cache by what was rehearsed and where. Raises
    EngineError with the engine's last words, RefusedContentError when it reached for a network,
    MissingToolError where no network namespace can be made.
    """
    report = probe_host(places=())
    done = []
    for pack in manifest.engines:
        name = f"{pack.kind} {pack.provider}"
        try:
            selection = _select(manifest, pack, report)
        except (IncompatibleHostError, InsufficientError) as error:
            listener(Warned(f"{name} is not rehearsed: {error.found or error.message}"))
            continue
        key = _key(manifest, selection, report)
        note = stage.cache / "rehearsed" / key
        if not note.exists():
            listener(Started(f"rehearse {name}"))
            started = time.monotonic()
            _play(manifest, selection, stage, report.cpu.flags.value or ())
            listener(Finished(f"rehearse {name}", f"{time.monotonic() - started:.1f} s"))
            note.parent.mkdir(parents=True, exist_ok=True)
            durable_write(note, name.encode() + b"\n")
        done.append(name)
    return f"{', '.join(done)} on {_place(report)}"[:MAX_TEXT] if done else ""


def _select(manifest: Manifest, pack: EnginePack, report: HostReport) -> Selection:
    """The smallest way to serve the smallest model that this pack can serve here; one with adapters
    before others: they are parts that nothing else tries.

    Raises IncompatibleHostError or InsufficientError when there is none.
    """
    if pack.provider == "image":
        raise IncompatibleHostError("a container runtime would start it")
    alone = replace(manifest, engines=(pack,), users=1)
    formats = {"llama.cpp": "gguf", "vllm": "safetensors"}
    models = []
    for model in manifest.models:
        fitting = [v for v in model.variants if v.format == formats[pack.kind]]
        if fitting:
            models.append(replace(model, variants=(min(fitting, key=lambda v: v.bytes),)))
    if not models:
        raise IncompatibleHostError("no weights for it in the set")
    smallest = min(models, key=lambda m: (not m.fitting(m.variants[0]), m.variants[0].bytes))
    return select_all(replace(alone, models=(smallest,)), report, Wishes(slots=1))[0]


def _key(manifest: Manifest, selection: Selection, report: HostReport) -> str:
    """Everything that decides how a rehearsal ends, as one name."""
    pack = selection.pack
    layout = HostLayout(Path("/"))
    settings = engine_settings(manifest, selection, layout, GENERATION)
    facts = {
        "edgekit": __version__,
        "place": _place(report),
        "flags": sorted(report.cpu.flags.value or ()),
        "argv": settings.argv,
        "environment": settings.environment,
        "questions": [(c.prompt, c.answer, c.adapter) for c in settings.canaries],
        "entries": [
            (str(entry.path), str(entry.digest))
            for entry in manifest.entries
            if _belongs(pack, entry.path) or entry.path in selection.files
        ],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _belongs(pack: EnginePack, path: RelPath) -> bool:
    return str(path).startswith(f"{pack.prefix}/")


def _place(report: HostReport) -> str:
    """This machine in words, the same from one bundle to the next."""
    glibc = report.system.glibc.value or (0, 0)
    words = (
        report.system.distribution.value or "unknown system",
        f"Linux {report.system.kernel.value or 'unknown'}",
        f"glibc {glibc[0]}.{glibc[1]}",
        report.cpu.name.value or "unknown processor",
    )
    return ", ".join(" ".join(word.split()) for word in words)


def _play(
    manifest: Manifest, selection: Selection, stage: Stage, flags: tuple[str, ...]
) -> None:
    with _laid_out(manifest, selection, stage) as layout:
        settings = _questioned(
            engine_settings(manifest, selection, layout, GENERATION, flags), selection.model.name
        )
        folder = layout.generation(GENERATION)
        appliance = Appliance(
            manifest.name, manifest.version, GENERATION, DEFAULT_LISTEN,
            str(layout.audit_socket()), (), (settings,),
        )
        durable_write(folder / "appliance.json", encode_appliance(appliance))
        _perform(settings, stage.runtime, folder, layout.run)


def _questioned(settings: EngineSettings, model: str) -> EngineSettings:
    """With a question in any case: any answer will do where no known one is in the set."""
    if settings.canaries:
        return settings
    return replace(settings, canaries=(CanaryCheck(model, "ping", ""),))


@contextmanager
def _laid_out(manifest: Manifest, selection: Selection, stage: Stage) -> Iterator[HostLayout]:
    """The pack and its weights as they lie on a host, below a root with a short name.

    Nothing is copied that can be linked. A socket's path may have 107 bytes, hence the short name,
    whatever TMPDIR says.
    """
    stage.cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".rehearsal-", dir=stage.cache)).resolve()
    places = (tempfile.gettempdir(), "/tmp")  # noqa: S108 - what is made there is private
    bases = [base for base in places if os.access(base, os.W_OK)]
    short = Path(tempfile.mkdtemp(prefix="ek-", dir=min(bases, key=len, default=None)))
    try:
        (short / "r").symlink_to(work)
        layout = HostLayout(short / "r")
        folder = layout.generation(GENERATION)
        layout.run.mkdir(parents=True)
        for entry in manifest.entries:
            if entry.role == "engine" and _belongs(selection.pack, entry.path):
                mode = 0o555 if entry.executable else None
                link_or_copy(stage.blobs[entry.digest], folder / str(entry.path), mode=mode)
            elif entry.path in selection.files:
                blob = layout.blob(entry.digest)
                blob.parent.mkdir(parents=True, exist_ok=True)
                blob.symlink_to(stage.blobs[entry.digest])
        for environment in plan_environments(manifest, (selection,)):
            wheels = {name: stage.blobs[digest] for name, digest in environment.wheels}
            install_wheels(folder / str(environment.prefix), wheels, compiled=False)
        yield layout
    finally:
        remove_tree(work)
        shutil.rmtree(short, ignore_errors=True)


def _perform(settings: EngineSettings, runtime: Path, folder: Path, run: Path) -> None:
    """Start the supervisor without a network and wait for what it tells its manager."""
    log = folder / "log.txt"
    address = run / "notify"
    supervise = (
        str(runtime), "daemon", "engine", "--appliance", str(folder / "appliance.json"),
        "--engine", settings.name,
    )
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "NOTIFY_SOCKET": str(address),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        child = spawn(
            netless_command(supervise), env=environment, log=log, cwd=Path(__file__).parents[2]
        )
        try:
            _wait_ready(child, manager, settings.start_timeout_s)
            attempts = count_attempts(child.pid)
        except EngineError as error:
            raise EngineError(
                f"rehearsal: {error.message}", where=settings.kind, found=_tail(log),
                hint=f"edgekit bundle {SKIP}, if you know why",
            ) from error
        finally:
            child.stop(GRACE_S)
    if attempts:
        raise RefusedContentError(
            f"{settings.kind} reaches for a network when it starts",
            where=settings.argv[0],
            found=f"{attempts} attempts to send where no route is",
            needed="an engine that needs none",
        )


def _wait_ready(child: Child, manager: socket.socket, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        if select.select([manager], [], [], POLL_S)[0] and b"READY=1" in manager.recv(4096):
            return
        status = child.status()
        if status == CANNOT:
            raise MissingToolError(
                "an engine cannot be rehearsed without a network namespace",
                hint=f"run as root, allow user namespaces, or edgekit bundle {SKIP}",
            )
        if status is not None:
            raise EngineError("the engine does not serve")
        if time.monotonic() > deadline:
            raise EngineError(f"the engine is not ready after {timeout_s:g} s")


def _tail(log: Path) -> str:
    with suppress(OSError):
        return log.read_text("utf-8", "replace")[-LOG_TAIL:].strip()
    raise HostError("the rehearsal left no log", where=str(log))
