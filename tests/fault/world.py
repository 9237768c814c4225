"""The subject of all fault suites: tiny sets, hosts in each state, commands run in forks.

Everything lies in one folder, and hosts always at the same place in it, because installed settings
name absolute paths. Services are silenced: that a daemon starts is not what these suites are about.
The release `junk` is one whose daemons do not start.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import typer

from edgekit.cli import main as main_module
from edgekit.cli.app import build_app
from edgekit.cli.main import main
from edgekit.core import trust
from edgekit.core.appliance import Appliance
from edgekit.core.audit_record import check_event
from edgekit.core.audit_texts import TextLabel
from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.digest import Digest
from edgekit.core.host_layout import HostLayout
from edgekit.core.names import RelPath
from edgekit.core.release import EnginePack
from edgekit.errors import EngineError
from edgekit.operations import install as install_module
from edgekit.operations import surroundings
from edgekit.operations.probe import probe_host
from edgekit.system import health
from edgekit.system.audit_log import LogSettings, open_audit_log
from edgekit.system.audit_texts import TextStore
from edgekit.system.services import ForegroundServices
from edgekit.system.signing import create_signer
from edgekit.system.weights import check_weights
from tests.fault.oracle import AUDIT, STICK, Expected, Oracle, Release
from tests.fault.snapshot import copy_tree, read_snapshot
from tests.fault.tracer import CHANGES, Decide, Ended, Seen, run_forked
from tests.support.gguf import TEXT, value
from tests.support.hostile_models import gguf
from tests.support.sets import RootBuilder, SetBuilder

PACK = EnginePack("llama.cpp", "wheel", "1.0", RelPath("engines/e"), RelPath("engines/e/run"))
JUNK_VERSION = "3.0.0"
LISTEN = "127.0.0.1:11434"
PEOPLE = ("ann", "ben", "cleo")


_junk_starts = False


def silence_services() -> None:
    """From now on this process starts no daemons and asks no questions; `junk` does not start.

    The host is probed once, and the command tree built once: both are the same every time.
    """

    def start(_self: object, appliance: Appliance) -> None:
        if appliance.version == JUNK_VERSION and not _junk_starts:
            raise EngineError("the engine does not start")

    ForegroundServices.start = start  # type: ignore[method-assign]
    ForegroundServices.stop = lambda _self: None  # type: ignore[method-assign]
    health.ask_known_questions = lambda _appliance, _key: {}  # type: ignore[assignment]
    surroundings.check_port_free = lambda _listen: None  # type: ignore[assignment]
    install_module.probe_host = functools.cache(probe_host)  # type: ignore[assignment]
    main_module.build_app = functools.cache(build_app)
    typer.main.get_command = functools.cache(typer.main.get_command)


def set_clock(when: tuple[int, int]) -> None:
    """From now on it is a second after `when` (wall clock, time since boot; nanoseconds).

    Else a command would do more, an hour after its host was made, than it did when it was planned:
    the audit log ends an epoch now and then.
    """
    began = time.monotonic_ns() - 1_000_000_000
    wall, boot = when
    time.time_ns = lambda: wall + time.monotonic_ns() - began  # type: ignore[assignment]
    time.time = lambda: time.time_ns() / 1e9  # type: ignore[assignment]
    time.clock_gettime_ns = lambda _clock: (  # type: ignore[assignment]
        boot + time.monotonic_ns() - began)


@dataclass(frozen=True)
class Scenario:
    """A command, the host it starts from (commands before it), and the two states it may leave.

    `status` is the command's exit status without faults. `settled` is what a finished run must
    leave; the new state unless said. `again` is what it may also end with when it is run again and
    there is nothing left to do. A command that `toggles` leads back when it is run again after
    it has ended; one that was cut off has not.
    """

    name: str
    before: tuple[str, ...]
    command: str
    old: Expected
    new: Expected
    status: int = 0
    again: int = 0
    toggles: bool = False
    settled: Expected | None = None

    @property
    def end(self) -> Expected:
        """What a run without faults leaves."""
        return self.settled or self.new


def _expected(current: str | None, whole: str, *floors: int, **other: object) -> Expected:
    return Expected(current, frozenset(whole.split()), frozenset(floors), **other)  # type: ignore[arg-type]


def _evidence_scenarios() -> Iterator[Scenario]:
    """What is done with the audit log; no release changes."""
    hosts = ("trust1", "install v1", "stick")
    for name, more, command, new, again in (
        ("export the log", (), "audit export --out STICK --format cef",
         {"has": _holds(rf"{STICK}/[^/.]+/export\.json")}, 30),
        ("anchor the log", (), "audit anchor --to STICK",
         {"has": _holds(rf"{STICK}/edgekit-anchors/[^/]+\.checkpoint")}, 0),
        ("hand over the key", (), "audit key --out STICK/mac.key",
         {"has": _holds(rf"{STICK}/mac\.key")}, 30),
        ("change the key", (), "audit rekey --reason because",
         {"has": _holds(rf"{AUDIT}/audit-[0-9]+\.jsonl", b'"rekeyed":true')}, 0),
        ("erase texts", ("texts",), "audit erase --request r1 --reason because",
         {"lacks": _holds(r".+\.text")}, 30),
        ("prune the log", ("segments",), "audit prune --insecure-unexported because",
         {"lacks": _holds(rf"{AUDIT}/audit-0+1\.jsonl")}, 0),
    ):
        old = {"lacks": new["has"]} if "has" in new else {}
        yield Scenario(name, hosts + more, command, _expected("v1", "v1", 1, **old),
                       _expected("v1", "v1", 1, **new), again=again)


def _holds(path: str, content: bytes = b"") -> frozenset[tuple[str, bytes]]:
    return frozenset({(path, content)})


@dataclass
class World:
    """Sets and hosts below `base`; `host` is the root that commands act on."""

    base: Path
    blobs: dict[str, frozenset[str]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> Path:
        """The host under test."""
        return self.base / "h"

    def modelfile(self) -> Path:
        """A Modelfile for the model of every release."""
        path = self.base / "Modelfile"
        path.write_text("FROM m\nSYSTEM Be brief.\n", "utf-8")
        return path

    def stick(self, label: str) -> Path:
        """The folder of a set."""
        return self.base / f"set-{label}"

    @cached_property
    def oracle(self) -> Oracle:
        """A judge that knows the releases of this world."""
        return Oracle({label: self._captured(label) for label in ("v1", "v2", "junk")})

    @cached_property
    def scenarios(self) -> dict[str, Scenario]:
        """All operations that change a host."""
        rotten = frozenset({self.weights["v1"]})
        old = _expected("v1", "v1", 1)
        return {s.name: s for s in (
            Scenario("first trust", (), "trust1", _expected(None, "", 0, roots=frozenset({0})),
                     _expected(None, "", 0)),
            Scenario("install", ("trust1",), "install v1", _expected(None, "", 0),
                     _expected("v1", "v1", 0, 1), settled=_expected("v1", "v1", 1)),
            Scenario("upgrade", ("trust1", "install v1"), "install v2", old,
                     _expected("v2", "v1 v2", 1, 2), settled=_expected("v2", "v1 v2", 2)),
            Scenario("fall back", ("trust1", "install v1"), "install junk", old,
                     _expected("junk", "v1 junk", 1), status=50, settled=old),
            Scenario("first install of junk", ("trust1",), "install junk",
                     _expected(None, "", 0), _expected("junk", "junk", 0), status=50,
                     settled=_expected(None, "", 0)),
            Scenario("repair", ("trust1", "install v1", "rot"), "install v1",
                     _expected("v1", "v1", 1, rotten=rotten), _expected("v1", "v1", 1)),
            Scenario("roll back", ("trust1", "install v1", "install v2"), "rollback",
                     _expected("v2", "v1 v2", 2), _expected("v1", "v1 v2", 2),
                     toggles=True),
            Scenario("upgrade again", ("trust1", "install v1", "install v2", "rollback"),
                     "install v2", _expected("v1", "v1", 2), _expected("v2", "v1 v2", 2)),
            Scenario("break the glass", ("trust1", "install v1", "install v2"), "glass v1",
                     _expected("v2", "v1 v2", 2), _expected("v1", "v1 v2", 2)),
            Scenario("collect", ("trust1", "install v1", "install v2", "litter"), "gc",
                     _expected("v2", "v1 v2", 2), _expected("v2", "v1 v2", 2)),
            Scenario("make a model", ("trust1", "install v1"), "model", old, old),
            Scenario("trust update", ("trust1", "install v1"), "trust2", old,
                     _expected("v1", "v1", 1, roots=frozenset({2}))),
            Scenario("remove", ("trust1", "install v1", "install v2"), "remove",
                     _expected("v2", "v1 v2", 2),
                     _expected(None, "", 0, 2, roots=frozenset({0, 1})),
                     settled=_expected(None, "", 0, roots=frozenset({0}))),
            Scenario("remove with the log", ("trust1", "install v1"),
                     "remove --with-audit-log", old,
                     _expected(None, "", 0, 1, roots=frozenset({0, 1})),
                     settled=_expected(None, "", 0, roots=frozenset({0}))),
            *_evidence_scenarios(),
        )}

    def build(self) -> None:
        """Make the sets, run every command once, so that this process is warm."""
        silence_services()
        roots = (RootBuilder(signers=PEOPLE),
                 RootBuilder(2, signers=PEOPLE))
        (self.base / "roots").mkdir(parents=True)
        for number, root in enumerate(roots, 1):
            (self.base / f"roots/{number}.root.json").write_bytes(root.data())
        self._fingerprint = trust.fingerprint(roots[0].data())
        for sequence, label in enumerate(("v1", "v2", "junk"), 1):
            self._write_set(label, sequence, roots[0])
        for scenario in self.scenarios.values():
            self.start_of(scenario)
        self.oracle  # noqa: B018 - captured now
        self._built = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the command line had taken it
        gc.collect()
        gc.freeze()

    def start_of(self, scenario: Scenario) -> Path:
        """The folder that a host of this scenario is copied from, made on first use."""
        name = "-".join(("start", *scenario.before)).replace(" ", "_")
        folder = self.base / name
        if not folder.exists():
            shutil.rmtree(self.host, ignore_errors=True)
            self.host.mkdir()
            for command in scenario.before:
                self._run_here(command)
            copy_tree(self.host, folder)
        return folder

    def make_people(self) -> None:
        """An empty folder for what a command makes, and a signer of somebody's."""
        for name in ("out", "people"):
            shutil.rmtree(self.base / name, ignore_errors=True)
            (self.base / name).mkdir()
        create_signer(self.base / "people/gil")

    def put_back(self, scenario: Scenario) -> None:
        """The host as it is before the scenario's command."""
        copy_tree(self.start_of(scenario), self.host)

    def run(
        self,
        command: str,
        *,
        decide: Decide | None = None,
        seen: Seen | None = None,
        calls: dict[str, int] = CHANGES,
        below: tuple[str, ...] = (),
    ) -> Ended:
        """The command in a fork of this process, traced when asked, on `host`."""
        arguments = self.arguments(command)

        def work() -> int:
            set_clock(self._built)
            return int(main(arguments))

        return run_forked(work, decide=decide, seen=seen, calls=calls,
                          below=below or (str(self.host),))

    def arguments(self, command: str) -> list[str]:
        """The command line of a short word."""
        root = ["--root", str(self.host)]
        verb, _, label = command.partition(" ")
        match verb:
            case "audit":
                stick = str(self.host / STICK)
                return [*(word.replace("STICK", stick) for word in command.split()), *root]
            case "install":
                return ["install", str(self.stick(label)), "--listen", LISTEN, *root]
            case "model":
                return ["model", "create", "mine", "--file", str(self.modelfile()), *root]
            case "glass":
                return [*self.arguments(f"install {label}"), "--insecure-downgrade", "a test"]
            case "trust1":
                return ["trust", "import", str(self.base / "roots/1.root.json"), "--fingerprint",
                        self._fingerprint, *root]
            case "trust2":
                files = [str(self.base / f"roots/{number}.root.json") for number in (1, 2)]
                return ["trust", "import", *files, *root]
        return [*command.split(), *root]

    # ------------------------------------------------------------------------------------ making

    def _run_here(self, command: str) -> None:
        if command == "rot":
            self._rot()
        elif command == "litter":
            self._litter()
        elif command == "stick":
            (self.host / STICK).mkdir(parents=True)
        elif command == "texts":
            self._keep_texts()
        elif command == "segments":
            self._fill_segments()
        else:
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = main(self.arguments(command))
            assert status == 0, (command, status, said.getvalue())

    def _captured(self, label: str) -> Release:
        """A release as an installation on an empty host leaves it."""
        global _junk_starts  # noqa: PLW0603 - the one moment at which junk may start
        scenario = self.scenarios["install"]
        self.put_back(scenario)
        _junk_starts = True
        self._run_here(f"install {label}")
        _junk_starts = False
        tree = read_snapshot(self.host)
        generation = (tree["opt/edgekit/current"].target or "").rpartition("/")[2]
        return Release.captured(generation, tree, self.blobs[label])

    def _rot(self) -> None:
        path = self.host / "var/lib/edgekit/blobs/sha384" / self.weights["v1"]
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        path.chmod(0o444)

    def _litter(self) -> None:
        """What gc is there for: blobs nobody names, and a copy that was given up."""
        store = self.host / "var/lib/edgekit"
        for number in range(5):
            (store / f"blobs/sha384/{number:096x}").write_bytes(b"x" * 100)
        (store / "staging/demo-9.9.9-0").mkdir(parents=True)
        (store / "staging/demo-9.9.9-0/a.part").write_bytes(b"y" * 50)

    def _keep_texts(self) -> None:
        store = TextStore(HostLayout(self.host).texts)
        for part in ("prompt", "output"):
            store.write(TextLabel("r1", part, 1_764_000_000_000_000), b"a text\n")

    def _fill_segments(self) -> None:
        """A log of many small segments."""
        log = open_audit_log(HostLayout(self.host).audit, settings=LogSettings(3000))
        for number in range(20):
            log.append_batch([check_event({"type": "scrub", "n": number})])
        log.close()

    def _write_set(self, label: str, sequence: int, root: RootBuilder) -> None:
        weights = gguf({"general.name": value(TEXT, label)})
        path = f"models/m/{label}.gguf"
        entries: dict[str, bytes] = {
            path: weights,
            "runtime/edgekit": b"#!/bin/sh\n# shared\nexit 0\n",
            "engines/e/run": f"#!/bin/sh\n# {label}\nexit 0\n".encode(),
            "licenses/common.txt": b"a license\n" * 20,
            "documents/empty.txt": b"",
        }
        entries |= {f"engines/e/lib{n}.so": f"library {n} of {label}\n".encode() * (50 * n + 1)
                    for n in range(10)}
        entries |= {f"runtime/lib/shared{n}.so": f"shared {n}\n".encode() * 40 for n in range(7)}
        roles = {name: {"models": "weights", "runtime": "runtime", "engines": "engine",
                        "licenses": "license", "documents": "document"}[name.split("/")[0]]
                 for name in entries}
        self.blobs[label] = frozenset(Digest.of(data).value for data in entries.values())
        self.weights[label] = Digest.of(weights).value
        scratch = self.base / "weights.gguf"
        scratch.write_bytes(weights)
        shape = check_weights("gguf", {RelPath(path): scratch}).shape
        variant = CarriedVariant("gguf", "F32", (RelPath(path),), len(weights),
                                 tuple(sorted(shape.items())))
        SetBuilder(
            version={"v1": "1.0.0", "v2": "2.0.0", "junk": JUNK_VERSION}[label],
            sequence=sequence, entries=entries, roles=roles, roots=(root,),
            executables=frozenset({"runtime/edgekit", "engines/e/run"}), engines=(PACK,),
            models=(CarriedModel("m", 64, "x", "llama", 1, (variant,), (("Hello", "x"),)),),
        ).write(self.stick(label))
