"""Shared by all tests: the demo set, a private install of it, the list of what could not run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.appliance import DemoSet, RunningAppliance, free_port
from tests.support.named_job import NOT_AGAIN

CANNOT_RUN = "cannot run here:"
REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name, last of all, every part that this machine could not run."""
    reasons = sorted(
        {
            str(report.longrepr[2]).removeprefix("Skipped: ")
            for report in terminalreporter.stats.get("skipped", [])
            if isinstance(report.longrepr, tuple)
        }
    )
    for reason in reasons:
        again = reason.startswith(NOT_AGAIN)
        terminalreporter.write_line(reason if again else f"NOT RUN: {reason}")
    if not reasons:
        terminalreporter.write_line("every test ran; nothing was skipped on this machine")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A skip must say why this machine cannot run the test, or that nothing of it changed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    reason = str(report.longrepr)
    if report.skipped and CANNOT_RUN not in reason and NOT_AGAIN not in reason:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped without saying '{CANNOT_RUN} ...'"


@pytest.fixture(scope="session")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    """The small demo recipe, bundled for real with the command line; frozen parts are cached."""
    folder = tmp_path_factory.mktemp("demo")
    root = folder / "root.json"
    _edgekit("keys", "init", str(folder / "developer"), "--root-out", str(root),
             "--insecure-developer")
    return bundle_demo(folder, folder / "developer", root)


@pytest.fixture(scope="session")
def newer_set(demo_set: DemoSet) -> DemoSet:
    """The same, one release on: version 1.1.0, sequence 2."""
    return bundle_demo(demo_set.root.parent, demo_set.signer, demo_set.root,
                       ('version = "1.0.0"', 'version = "1.1.0"'), ("sequence = 1", "sequence = 2"))


@pytest.fixture(scope="session")
def junk_set(demo_set: DemoSet) -> DemoSet:
    """A release whose model does not answer what its recipe promises: version 1.2.0, sequence 3."""
    return bundle_demo(demo_set.root.parent, demo_set.signer, demo_set.root,
                       ('version = "1.0.0"', 'version = "1.2.0"'), ("sequence = 1", "sequence = 3"),
                       ('answer = "Paris"', 'answer = "Atlantis"'), rehearse=False)


def bundle_demo(
    folder: Path, signer: Path, root: Path, *changes: tuple[str, str], rehearse: bool = True
) -> DemoSet:
    """Bundle a copy of the small demo recipe with some texts replaced."""
    text = (REPOSITORY / "bundles/demo-small.toml").read_text("utf-8")
    for old, new in (("../models/demo", str(REPOSITORY / "models/demo")), *changes):
        assert old in text
        text = text.replace(old, new)
    recipe = folder / "demo-small.toml"
    recipe.write_text(text, "utf-8")
    result = json.loads(_edgekit(
        "bundle", str(recipe), "--key", f"file:{signer}", "--trust-root", str(root), "--out",
        str(folder / "sets"), "--json", *(() if rehearse else ("--insecure-no-rehearsal",)),
    ))
    return DemoSet(Path(result["directory"]), result["fingerprint"], signer, root)


@pytest.fixture(scope="session")
def appliance(
    demo_set: DemoSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAppliance]:
    """The demo set, installed by its own installer into a private root and served from there."""
    # Sockets live below the root and their paths are short on purpose: the limit is 107 bytes.
    root = Path(tmp_path_factory.mktemp("h", numbered=True))
    running = RunningAppliance(demo_set, root, free_port())
    running.install()
    running.serve()
    yield running
    running.stop()
    shutil.rmtree(root, ignore_errors=True)


def _edgekit(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", *arguments], cwd=REPOSITORY, capture_output=True,
        text=True, check=False, env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
