"""A set's engines are started before it is signed, in a place without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.events import Event, Warned
from edgekit.core.names import RelPath
from edgekit.core.release import Entry, Manifest
from edgekit.errors import EngineError, RefusedContentError
from edgekit.operations.rehearse import Stage, rehearse
from edgekit.system.netless import CANNOT
from tests.support.appliance import DemoSet
from tests.unit.test_planner import manifest, model, variant

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "tests/support/engine_program.py"
REACH = {
    "connects": "s = socket.socket()\ns.settimeout(5)\ns.connect_ex(('203.0.113.7', 443))",
    "resolves": "socket.gethostbyname('telemetry.example')",
    "sends": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.7', 53))",
    "six": "socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 443))",
}


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    argv = [sys.executable, "-m", "edgekit.system.netless", "true"]
    if subprocess.run(argv, cwd=REPOSITORY, check=False).returncode == CANNOT:
        pytest.skip("cannot run here: no network namespace can be made")


def engine_set(
    folder: Path, *, mode: str = "good", first: str = "", flags: tuple[str, ...] = ()
) -> tuple[Manifest, Stage]:
    """A set whose engine is a script: `first` runs at its start, as a wheel's import would."""
    program = folder / "engine"
    program.write_text(
        f"#!{sys.executable}\nimport contextlib, os, socket, sys\n"
        f"with contextlib.suppress(OSError):\n    "
        + (first or "pass").replace("\n", "\n    ")
        + "\nplace = sys.argv[sys.argv.index('--socket') + 1]\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, {str(PROGRAM)!r}, 'fake', place, "
        f"{mode!r}])\n",
        "utf-8",
    )
    weights = folder / "weights"
    weights.write_bytes(os.urandom(7))
    blobs = {Digest.of(path.read_bytes()): path for path in (program, weights)}
    engine, content = blobs
    prefix = "engines/llama.cpp-wheel"
    carried = manifest(
        replace(model(variant(7)), canaries=(("everything", "42"),)),
        engines=(
            EnginePack("llama.cpp", "wheel", "1", RelPath(prefix), RelPath(f"{prefix}/run"), flags),
        ),
        entries=(
            Entry(RelPath(f"{prefix}/run"), "engine", program.stat().st_size, engine, True),
            Entry(RelPath("models/m/q8_0.gguf"), "weights", 7, content),
        ),
    )
    runtime = Path(sys.executable).parent / "edgekit"
    return carried, Stage(blobs, runtime, folder / "cache")


def tried(folder: Path, **options: object) -> tuple[str, list[Event]]:
    folder.mkdir(exist_ok=True)
    carried, stage = engine_set(folder, **options)  # type: ignore[arg-type]
    events: list[Event] = []
    return rehearse(carried, stage, events.append), events


def test_a_good_engine_is_rehearsed_once_and_says_where(tmp_path: Path) -> None:
    carried, stage = engine_set(tmp_path)
    events: list[Event] = []
    first = rehearse(carried, stage, events.append)
    assert first.startswith("llama.cpp wheel on ")
    assert f"Linux {os.uname().release}" in first
    count = len(events)
    assert count == 2
    assert rehearse(carried, stage, events.append) == first
    assert len(events) == count, "the second time it is remembered"
    assert sorted(path.name for path in stage.cache.iterdir()) == ["rehearsed"]


def test_a_long_name_of_the_folder_for_temporary_files_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's socket lies below it, and such a path may have 107 bytes."""
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert tried(tmp_path / "set")[0].startswith("llama.cpp wheel on ")


@pytest.mark.parametrize("how", sorted(REACH))
def test_an_engine_that_reaches_out_is_refused_although_it_works(how: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedContentError, match="reaches for a network"):
        tried(tmp_path, first=REACH[how])
    assert not (tmp_path / "cache/rehearsed").exists()


@pytest.mark.parametrize(("mode", "clue"), [("wrong", "no idea"), ("dies", "status 7")])
def test_what_does_not_answer_stops_the_bundle_with_its_last_words(
    mode: str, clue: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="rehearsal") as caught:
        tried(tmp_path, mode=mode)
    assert clue in str(caught.value.found)


def test_an_engine_for_other_machines_is_not_rehearsed_and_said(tmp_path: Path) -> None:
    text, events = tried(tmp_path, flags=("flag_of_the_future",))
    assert text == ""
    assert [type(event) for event in events] == [Warned]


def test_a_set_says_what_it_was_rehearsed_on(demo_set: DemoSet) -> None:
    table = json.loads((demo_set.folder / "manifest.json").read_text("utf-8"))
    assert table["rehearsed_on"].startswith("llama.cpp wheel on ")
