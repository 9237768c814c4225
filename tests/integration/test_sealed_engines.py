"""llama.cpp from source and from an image, installed on one really sealed host.

The first release carries the server built from source, the second one the same server as a
container image out of a real registry. Both must answer right, through the gateway, with their
units' own sandboxes. The build is a named job (`python -m tests.engines source`); without its
result this says that it was not run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import bundle_demo
from tests.engines import source
from tests.support.appliance import DemoSet
from tools import demo, engine_image, sealed_host
from tools.demo_registry import demo_registry
from tools.sealed_host import SealedHost

WHEEL = 'provider = "wheel"\npackage = "xllamacpp==2026.10.11549"'
SOURCE = f'provider = "source"\npackage = "{source.PACKAGE}"'
IMAGE = f"""provider = "image"
image = "llama-server"
version = "{source.VERSION}"

[[image]]
name = "llama-server"
reference = "{engine_image.REFERENCE}"
"""
JOB = """
edgekit=/opt/edgekit/current/runtime/edgekit
engine=edgekit-engine@{model}.service
ask() {{ $edgekit run {model} "{question}"; }}
said() {{ journalctl -o cat -u $engine > /out/engine-$1.txt; }}
cd /media/stick/demo-small-1.0.0
./edgekit trust import trust/1.root.json --insecure-developer-root --fingerprint {fingerprint}
./edgekit install . --json > /out/receipt-source.json
ask > /out/answer-source.txt
$edgekit plan --compare --json > /out/compared-source.json
$edgekit probe > /out/host.json
said source
cd /media/stick/demo-small-1.1.0
./edgekit install . --json > /out/receipt-image.json
ask > /out/answer-image.txt
$edgekit plan --compare --json > /out/compared-image.json
said image
podman ps --format '{{{{.Image}}}} {{{{.Status}}}}' > /out/containers.txt
container=$(podman ps --quiet)
engine_pid=$(podman inspect --format '{{{{.State.Pid}}}}' $container)
grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/$engine_pid/status > /out/container-status.txt
cut -d: -f3 /proc/$engine_pid/cgroup > /out/container-cgroup.txt
ls /proc/$engine_pid/root > /out/container-root.txt
grep ':' /proc/$engine_pid/net/dev | cut -d: -f1 | tr -d ' ' > /out/container-network.txt
ls -ln /run/edgekit-engine-{model} > /out/socket.txt
ls -ldn /run/edgekit-engine-{model} >> /out/socket.txt
kill -9 $engine_pid
for attempt in $(seq 120); do
    sleep 0.5
    ask > /out/answer-after-kill.txt 2> /dev/null && break
done
systemctl stop edgekit.target $engine
podman ps --all --quiet > /out/left.txt
"""


@dataclass(frozen=True)
class Story:
    """What the host left in its folder."""

    out: Path

    def text(self, name: str) -> str:
        """A result file."""
        return (self.out / name).read_text("utf-8").strip()


@pytest.fixture(scope="module")
def story(demo_set: DemoSet, tmp_path_factory: pytest.TempPathFactory) -> Story:
    if missing := sealed_host.missing_requirements():
        pytest.skip("cannot run here: " + "; ".join(missing))
    if reason := source.missing():
        pytest.skip(f"cannot run here: {reason}")
    work = tmp_path_factory.mktemp("engines")
    stick = work / "stick"
    stick.mkdir()
    first = bundle_demo(work, demo_set.signer, demo_set.root, (WHEEL, SOURCE))
    with demo_registry(work / "registry") as registry:
        engine_image.write_engine_layout(source.tree(), work / "layout")
        engine_image.push_engine(work / "layout", registry.port)
        os.environ["CONTAINERS_REGISTRIES_CONF"] = str(registry.config)
        try:
            second = bundle_demo(
                work, demo_set.signer, demo_set.root, (WHEEL, IMAGE),
                ('version = "1.0.0"', 'version = "1.1.0"'), ("sequence = 1", "sequence = 2"))
        finally:
            del os.environ["CONTAINERS_REGISTRIES_CONF"]
    for made in (first, second):
        shutil.move(made.folder, stick / made.folder.name)
    rootfs = sealed_host.build_rootfs(
        sealed_host.default_cache_dir(), packages=("podman", "crun"))
    out = work / "out"
    out.mkdir()
    job = JOB.format(model=demo.MODEL, question=demo.QUESTION, fingerprint=first.fingerprint)
    with SealedHost(rootfs, work / "hosts", "engines") as host:
        host.boot(job, stick=stick, out=out, timeout_s=300, podman=True)
    return Story(out)


def test_the_server_from_source_answers_with_a_level_that_was_tried(story: Story) -> None:
    assert story.text("answer-source.txt") == demo.ANSWER
    said = story.text("engine-source.txt")
    assert re.search(r"computes with level \w+", said)
    assert "WARNING" not in said


@pytest.mark.parametrize("provider", ["source", "image"])
def test_memory_is_what_was_planned(story: Story, provider: str) -> None:
    (engine,) = json.loads(story.text(f"compared-{provider}.json"))["engines"]
    terms = {term["name"]: term for term in engine["terms"]}
    assert {"kv cache", "compute", "output"} <= set(terms)
    # whose build is in an image is not known, so what one build more needs is counted
    large = {term["name"] for term in terms.values() if term["large"]}
    assert large <= ({"compute"} if provider == "image" else set())
    assert terms["compute"]["found"] <= terms["compute"]["planned"] * 1.02


def test_the_probe_has_the_devices_that_the_engine_sees(story: Story) -> None:
    devices = json.loads(story.text("host.json"))["system"]["engine_devices"]
    assert devices["source"].endswith("edgekit-ggml devices")
    assert re.match(r"CPU cpu \d+ MiB ", devices["value"][0])


def test_the_image_answers_and_is_run_by_digest(story: Story) -> None:
    assert story.text("answer-image.txt") == demo.ANSWER
    name = re.escape(engine_image.REFERENCE.rpartition(":")[0])
    assert re.fullmatch(rf"{name}@sha256:[0-9a-f]{{64}} Up.*", story.text("containers.txt"))


def test_the_container_holds_nothing_it_does_not_need(story: Story) -> None:
    status = dict(line.split(":\t", 1) for line in story.text("container-status.txt").splitlines())
    assert status["Uid"].split()[0] == "61000"
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert story.text("container-network.txt") == "lo"
    assert f"edgekit-engine@{demo.MODEL}.service" in story.text("container-cgroup.txt")
    assert re.search(r"^s\S+ +\d+ 61000 ", story.text("socket.txt"), re.MULTILINE)
    assert re.search(r"^drwxr-s---", story.text("socket.txt"), re.MULTILINE)


def test_a_killed_container_comes_back_and_a_stopped_one_is_gone(story: Story) -> None:
    assert story.text("answer-after-kill.txt") == demo.ANSWER
    assert story.text("left.txt") == ""
