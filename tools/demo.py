"""`make demo`: the whole main job on real parts, from a recipe to an answer on a sealed host.

Where this machine cannot boot a sealed host, the same set is installed into a private folder and
served in the foreground, and the demo says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tools import demo_guest, demo_image, sealed_host
from tools.debian_packages import (
    BUNDLING,
    DEMO,
    can_install,
    ensure_packages,
    install_command,
    missing_packages,
)
from tools.demo_guest import ANSWER, MODEL, QUESTION, UNITS, GuestStory
from tools.demo_processes import ROOT, RootfsBuild, edgekit, service
from tools.demo_registry import demo_registry
from tools.demo_story import DemoError, Story, size_text
from tools.sealed_resources import SealedHostError, locked

BOOT_TIMEOUT_S = 300.0
MAX_ROOT_PATH = 65
"""A private root's sockets have longer paths, and those end at 107 bytes."""


@dataclass(frozen=True)
class DemoSet:
    """A set made for the demo and the fingerprint that the packager would read aloud.

    `desk` is a private root that believes the set's signers.
    """

    folder: Path
    fingerprint: str
    total_bytes: int
    desk: Path


def main() -> int:
    """Run the demo; 0 when the right answer was given and the audit log is intact."""
    story = Story()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    cache = ROOT / ".cache"
    try:
        (cache / "demo").mkdir(parents=True, exist_ok=True)
        with locked(cache / "demo/lock", wait=False):
            return _demo(cache, story)
    except KeyboardInterrupt:
        story.plain("\ndemo interrupted; nothing of it is running any more")
        return 128 + signal.SIGINT
    except (DemoError, SealedHostError) as error:
        story.plain(f"\ndemo FAILED: {error}")
    except PermissionError as error:
        story.plain(f"\ndemo FAILED: {error.filename} is another user's, maybe root's; "
                    "`sudo make clean` removes what earlier runs left")
    return 1


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _demo(cache: Path, story: Story) -> int:
    story.plain("edgekit demo: from a recipe to an answer on a machine without a network\n")
    missing = _install_packages(story)
    reasons = sealed_host.missing_requirements()
    if os.geteuid() != 0:
        reasons = ["only root can boot one"]
    with RootfsBuild() if not reasons else contextlib.nullcontext() as rootfs:
        demo_set = build_set(cache, with_image=not missing and os.geteuid() == 0, story=story)
        if rootfs is not None:
            try:
                return sealed_demo(demo_set, rootfs.wait(story), cache, story)
            except sealed_host.BootError as error:
                reasons = [_boot_failure(error, cache)]
    story.line("host", f"a private folder; no sealed host here: {'; '.join(reasons)}")
    return private_demo(demo_set, story)


def _install_packages(story: Story) -> list[str]:
    """Packages still missing, for which a part of the demo is left out."""
    if wanted := missing_packages(DEMO):
        if can_install():
            with story.step("packages", "Debian packages, once", slow=True) as step:
                ensure_packages(DEMO, story.say)
                step.result = "installed"
        elif needed := missing_packages(BUNDLING):
            raise DemoError(f"please install first:\n\n    {install_command(needed)}")
        return missing_packages(DEMO) if can_install() else wanted
    return []


def _boot_failure(error: sealed_host.BootError, cache: Path) -> str:
    """Why there was no boot. Raises DemoError when there was one and the job failed."""
    report = cache / "demo/failure.txt"
    report.write_text(error.result.describe() + "\n", "utf-8")
    if error.result.boot_s is None:
        return f"it did not come up, see {_shown(report)}"
    lines = "\n".join(f"  | {line}" for line in error.result.job_output.splitlines()[-25:])
    raise DemoError(f"on the sealed host; its last lines are\n{lines}\nmore in {_shown(report)}")


def build_set(cache: Path, *, with_image: bool, story: Story) -> DemoSet:
    """Make keys once, then bundle the demo recipe with the real command line, and verify it."""
    work = cache / "demo"
    work.mkdir(parents=True, exist_ok=True)
    root, out = work / "root.json", work / "sets"
    if not root.exists():
        shutil.rmtree(work / "developer", ignore_errors=True)
        with story.step("keys", "a developer's signing keys, for this demo only"):
            edgekit("keys", "init", str(work / "developer"), "--root-out", str(root),
                    "--insecure-developer")
    shutil.rmtree(out, ignore_errors=True)
    recipe = "bundles/demo.toml" if with_image else "bundles/demo-small.toml"
    text = f"{recipe} into a signed set (the first time takes a minute)"
    with story.step("bundle", text, slow=True) as step, _registry(work, with_image) as environment:
        table = json.loads(edgekit(
            "bundle", recipe, "--key", f"file:{work / 'developer'}", "--trust-root", str(root),
            "--out", str(out), "--json", environment=environment, on_line=story.part,
        ))
        folder = Path(table["directory"])
        step.result = (f"{recipe} is now a signed set: {folder.name}, "
                       f"{size_text(table['total_bytes'])}, "
                       f"{'with a' if with_image else 'without its'} container image")
    desk = _private_root(work)
    with story.step("verify", "its signers and every byte of it"):
        edgekit("trust", "import", str(folder / "trust/1.root.json"), "--fingerprint",
                table["fingerprint"], "--insecure-developer-root", "--root", str(desk))
        edgekit("verify", str(folder), "--root", str(desk))
    return DemoSet(folder, table["fingerprint"], table["total_bytes"], desk)


def _private_root(work: Path) -> Path:
    desk = work / "desk"
    shutil.rmtree(desk, ignore_errors=True)
    if len(str(desk)) > MAX_ROOT_PATH:
        return Path(tempfile.mkdtemp(prefix="edgekit-desk-"))
    desk.mkdir()
    return desk


@contextlib.contextmanager
def _registry(work: Path, wanted: bool) -> Iterator[dict[str, str]]:
    """A real registry on loopback with the demo image in it; yields variables for its clients."""
    if not wanted:
        yield {}
        return
    layout = work / "image"
    shutil.rmtree(layout, ignore_errors=True)
    shutil.rmtree(work / "registry", ignore_errors=True)
    with demo_registry(work / "registry") as registry:
        demo_image.write_layout(layout)
        demo_image.push(layout, registry.port)
        yield {"CONTAINERS_REGISTRIES_CONF": str(registry.config)}


def guest_job(demo_set: DemoSet) -> str:
    """What the operator types on the sealed host."""
    return demo_guest.guest_job(demo_set.fingerprint)


def sealed_demo(demo_set: DemoSet, rootfs: Path, cache: Path, story: Story) -> int:
    """Boot the sealed host with the set as a read-only stick and do the operator's part.

    Raises BootError, and DemoError when a unit's sandbox allowed something.
    """
    state, out = cache / "demo/hosts", cache / "demo/out"
    for folder in (state, out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    story.under_way("boot", "")
    guest = GuestStory(story)
    try:
        with sealed_host.SealedHost(rootfs, state, "sealed") as host:
            result = host.boot(guest_job(demo_set), stick=demo_set.folder, out=out,
                               timeout_s=BOOT_TIMEOUT_S, on_line=guest)
        guest.close()
    finally:
        shutil.rmtree(state, ignore_errors=True)
    sandbox = (out / "sandbox.txt").read_text("utf-8")
    if "ALLOWED" in sandbox or sandbox.count('"connect ipv4"') != len(UNITS):
        raise DemoError("a unit's sandbox allowed what it must refuse, or was not probed")
    took = json.loads((out / "receipt.json").read_text("utf-8"))["seconds"]
    figures = {
        "boot": f"{result.boot_s or 0:.1f} s",
        "install": f"{sum(took.values()):.1f} s "
                   f"({', '.join(f'{name} {value:.1f}' for name, value in took.items())})",
        "first answer": f"{guest.ended_after['answer']:.1f} s after power-on",
    }
    audit = json.loads((out / "audit.json").read_text("utf-8"))
    answer = (out / "answer.txt").read_text("utf-8").strip()
    return _verdict(answer, audit, figures, demo_set, story)


def private_demo(demo_set: DemoSet, story: Story) -> int:
    """Install into a private folder, serve in the foreground, ask, verify the audit log."""
    began = story.seconds
    program, at = demo_set.folder / "edgekit", ("--root", str(demo_set.desk))
    with story.step("install", f"by the set's own installer into {_shown(demo_set.desk)}"):
        edgekit("install", str(demo_set.folder), *at, "--listen", f"127.0.0.1:{_free_port()}",
                program=program)
    installed = story.seconds
    serve = [str(program), "serve", *at]
    with service(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        with story.step("serve", "starting") as step:
            step.result = server.stdout.readline().strip()
            if not step.result:
                raise DemoError(f"edgekit serve ended: {server.communicate()[1]}")
        story.line("question", QUESTION)
        with story.step("answer", "") as step:
            answer = step.result = edgekit("run", MODEL, QUESTION, *at, program=program).strip()
        answered = story.seconds
    with story.step("audit log", "") as step:
        step.result = edgekit("audit", "verify", *at, program=program).splitlines()[0]
        audit = json.loads(edgekit("audit", "verify", "--json", *at, program=program))
    figures = {"install": f"{installed - began:.1f} s",
               "first answer": f"{answered - began:.1f} s after the installation began"}
    return _verdict(answer, audit, figures, demo_set, story)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _verdict(
    answer: str, audit: dict[str, Any], figures: dict[str, str], demo_set: DemoSet, story: Story
) -> int:
    if answer != ANSWER:
        raise DemoError(f"the answer is wrong: {answer!r} instead of {ANSWER!r}")
    if audit["requests"] != audit["responses"] or audit["orphans"] != 0:
        raise DemoError(f"the audit log is not whole: {audit}")
    story.plain("\ndemo passed: the answer is right and the audit log is whole\n")
    table = {"set": _shown(demo_set.folder), "size": size_text(demo_set.total_bytes), **figures,
             "total": f"{story.seconds:.1f} s"}
    for name, value in table.items():
        story.plain(f"  {name:<14}{value}")
    story.plain("\nto try next\n")
    for command, what in _next_commands(demo_set):
        story.plain(f"  {command}\n      {what}")
    return 0


def _next_commands(demo_set: DemoSet) -> list[tuple[str, str]]:
    folder, desk = _shown(demo_set.folder), _shown(demo_set.desk)
    commands = [
        (f".venv/bin/edgekit inspect {folder} --root {desk}", "what is in the set"),
        (f".venv/bin/edgekit plan {folder} --root {desk} --profile profiles/laptop-8g.toml",
         "what a small laptop would do with it, and why"),
        (f"{folder}/edgekit serve --root {desk}", "serve it to OpenAI and Ollama clients here"),
        ("make test", "everything that is promised, checked"),
    ]
    if not (demo_set.desk / "opt/edgekit/current").is_symlink():
        install = f"{folder}/edgekit install {folder} --root {demo_set.desk}"
        commands.insert(2, (install, "install it here, too, into a private folder"))
    return commands


def _shown(path: Path) -> str:
    """The path as a person in the checkout types it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
