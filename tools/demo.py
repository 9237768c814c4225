"""`make demo`: the whole main job on real parts, from a recipe to an answer on a sealed host.

Where this machine cannot boot a sealed host, the same set is installed into a private folder and
served in the foreground, and the demo says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import demo_image, sealed_host
from tools.debian_packages import DEMO, ensure_packages
from tools.demo_registry import demo_registry

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "Which command builds a bundle?"
ANSWER = "edgekit bundle builds a signed bundle set from a recipe."
MODEL = "edgekit-demo"
BOOT_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class DemoSet:
    """A set made for the demo and the fingerprint that the packager would read aloud."""

    folder: Path
    fingerprint: str


class Story:
    """Prints what happens, with seconds since the start and per step."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", flush=True)

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A step with its own duration."""
        started = time.monotonic()
        self.say(text)
        yield
        self.say(f"  done in {time.monotonic() - started:.1f} s")


def main() -> int:
    """Run the demo; 0 when the right answer was given and the audit log is intact."""
    story = Story()
    missing = ensure_packages(DEMO, story.say)
    reasons = sealed_host.missing_requirements()
    cache = ROOT / ".cache"
    rootfs = RootfsBuild() if not reasons else None
    demo_set = build_set(cache, with_image=not missing and os.geteuid() == 0, story=story)
    if rootfs is None:
        story.say("this machine cannot boot a sealed host: " + "; ".join(reasons))
        story.say("doing the same in a private folder instead")
        return private_demo(demo_set, cache, story)
    with story.step("sealed host: waiting for its root file system (Debian without Python)"):
        folder = rootfs.wait()
    return sealed_demo(demo_set, folder, cache, story)


class RootfsBuild:
    """The sealed host's root file system, built beside everything else."""

    def __init__(self, packages: tuple[str, ...] = ()) -> None:
        self._result: Path | None = None
        self._error: Exception | None = None
        self._arguments = (sealed_host.default_cache_dir(), packages)
        self._thread = threading.Thread(target=self._build, daemon=True)
        self._thread.start()

    def _build(self) -> None:
        try:
            self._result = sealed_host.build_rootfs(
                self._arguments[0], packages=self._arguments[1]
            )
        except sealed_host.SealedHostError as error:
            self._error = error

    def wait(self) -> Path:
        """The finished folder. Raises SealedHostError."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


def build_set(cache: Path, *, with_image: bool, story: Story) -> DemoSet:
    """Make keys once, then bundle the demo recipe with the real command line."""
    work = cache / "demo"
    work.mkdir(parents=True, exist_ok=True)
    root = work / "root.json"
    if not root.exists():
        shutil.rmtree(work / "developer", ignore_errors=True)
        edgekit("keys", "init", str(work / "developer"), "--root-out", str(root),
                "--insecure-developer")
    out = work / "sets"
    shutil.rmtree(out, ignore_errors=True)
    recipe = "bundles/demo.toml" if with_image else "bundles/demo-small.toml"
    if not with_image:
        story.say("no registry on this machine: the container image is left out")
    with story.step(f"edgekit bundle {recipe}"), _registry(work, with_image) as environment:
        result = edgekit(
            "bundle", recipe, "--key", f"file:{work / 'developer'}", "--trust-root", str(root),
            "--out", str(out), "--json", environment=environment,
        )
    table = json.loads(result)
    demo_set = DemoSet(Path(table["directory"]), table["fingerprint"])
    with story.step(f"edgekit verify {demo_set.folder.name}"):
        edgekit("verify", str(demo_set.folder), "--fingerprint", demo_set.fingerprint,
                "--insecure-developer-root")
    return demo_set


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


def edgekit(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run the checkout's edgekit; its stdout. Progress goes to this terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", *arguments], cwd=ROOT, check=False, text=True,
        stdout=subprocess.PIPE, env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        raise SystemExit(f"edgekit {arguments[0]} failed with exit code {done.returncode}")
    return done.stdout


def guest_job(demo_set: DemoSet) -> str:
    """What the operator types on the sealed host, as a bash text; fails at the first surprise."""
    return f"""
echo "python on this host: $(command -v python3 || echo none)"
echo "network interfaces: $(ls /sys/class/net | tr '\\n' ' ')"
cd /media/stick
./edgekit trust import trust/1.root.json --insecure-developer-root \\
    --fingerprint {demo_set.fingerprint}
./edgekit install . --json > /out/receipt.json
edgekit=/opt/edgekit/current/runtime/edgekit
$edgekit status
echo "question: {QUESTION}"
$edgekit run {MODEL} {shlex.quote(QUESTION)} | tee /out/answer.txt
{sandbox_probe_job("gateway")}
{sandbox_probe_job("auditd")}
{sandbox_probe_job(f"engine@{MODEL}")}
$edgekit audit verify
$edgekit audit verify --json > /out/audit.json
"""


def sandbox_probe_job(unit: str) -> str:
    """Bash that runs the probe program inside a copy of a unit's own sandbox."""
    name = f"edgekit-probe-{unit.partition('@')[0]}"
    return f"""
sed -e 's|^ExecStart=\\([^ ]*\\) .*|ExecStart=\\1 daemon sandbox-probe|' -e 's/^Type=.*/Type=oneshot/' \\
    -e '/^Restart/d;/^WatchdogSec/d;/^NotifyAccess/d;/^Requires/d;/^After/d;/^PartOf/d' \\
    -e '/^RuntimeDirectory=/d;/^StateDirectory=/d' \\
    /etc/systemd/system/edgekit-{unit}.service > /run/systemd/system/{name}.service
systemctl daemon-reload
systemctl start {name}.service || true
echo "sandbox of edgekit-{unit}: $(journalctl -o cat -u {name}.service | grep -m1 '^{{')" \\
    | tee -a /out/sandbox.txt
"""


def sealed_demo(demo_set: DemoSet, rootfs: Path, cache: Path, story: Story) -> int:
    """Boot the sealed host with the set as a read-only stick and do the operator's part."""
    state, out = cache / "demo/hosts", cache / "demo/out"
    for folder in (state, out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    with story.step("sealed host: boot, install, ask, audit"), sealed_host.SealedHost(
        rootfs, state, "sealed"
    ) as host:
        result = host.boot(guest_job(demo_set), stick=demo_set.folder, out=out,
                           timeout_s=BOOT_TIMEOUT_S,
                           on_line=lambda line: story.say(f"  | {line}"))
    receipt = json.loads((out / "receipt.json").read_text("utf-8"))
    answer = (out / "answer.txt").read_text("utf-8").strip()
    audit = json.loads((out / "audit.json").read_text("utf-8"))
    boot = f"{result.boot_s:.1f} s" if result.boot_s is not None else "?"
    took = ", ".join(f"{name} {value:.1f} s" for name, value in receipt["seconds"].items())
    story.say(f"booted in {boot}; install: {took}")
    return _verdict(answer, audit, story)


def private_demo(demo_set: DemoSet, cache: Path, story: Story) -> int:
    """Install into a private folder, serve in the foreground, ask, verify the audit log."""
    host = cache / "demo/host"
    shutil.rmtree(host, ignore_errors=True)
    program = str(demo_set.folder / "edgekit")
    at = ["--root", str(host)]
    listen = ["--listen", "127.0.0.1:11435"]
    steps = [
        [program, "trust", "import", str(demo_set.folder / "trust/1.root.json"), "--fingerprint",
         demo_set.fingerprint, "--insecure-developer-root", *at],
        [program, "install", str(demo_set.folder), *at, *listen],
    ]
    for argv in steps:
        with story.step(f"edgekit {argv[1]}"):
            subprocess.run(argv, check=True)
    with subprocess.Popen([program, "serve", *at], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        story.say(service.stdout.readline().strip())
        story.say(f"question: {QUESTION}")
        answer = subprocess.run([program, "run", MODEL, QUESTION, *at], check=True, text=True,
                                stdout=subprocess.PIPE).stdout.strip()
        story.say(f"answer: {answer}")
        service.terminate()
    audit = subprocess.run([program, "audit", "verify", "--json", *at], check=True, text=True,
                           stdout=subprocess.PIPE).stdout
    return _verdict(answer, json.loads(audit), story)


def _verdict(answer: str, audit: dict[str, object], story: Story) -> int:
    right = answer == ANSWER
    story.say(f"answer is {'right' if right else 'WRONG'}: {answer}")
    story.say(f"audit log is intact: {audit['records']} records, {audit['requests']} requests, "
              f"{audit['responses']} responses")
    whole = right and audit["requests"] == audit["responses"] and audit["orphans"] == 0
    story.say("demo passed" if whole else "demo FAILED")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
