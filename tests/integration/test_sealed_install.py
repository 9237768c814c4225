"""The main job on really sealed hosts: systemd as PID 1, no network but loopback, no Python.

Once on the Debian release that edgekit is frozen on (systemd 252), once on the next (systemd 257).
One set, made from the demo recipe with a container image out of a real registry, goes in on a
read-only stick. The figures that matter are printed; run with -s to see them.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import demo, sealed_host
from tools.debian_packages import DEMO
from tools.rootfs import NEWER_SUITE, SUITE
from tools.sealed_host import BootResult, SealedHost

PODMAN = ("podman", "crun")
SYSTEMD = {SUITE: 252, NEWER_SUITE: 257}
"""The Debian releases that hosts are made of, and their version of systemd."""
EXPECTED_REFUSALS = {
    "connect ipv4": "EAFNOSUPPORT",
    "connect ipv6": "EAFNOSUPPORT",
    "send datagram": "EAFNOSUPPORT",
    "write /etc": "EROFS",
    "write /usr": "EROFS",
    "read api keys": "EACCES",
    "read shadow": "EACCES",
    "run from /tmp": "EACCES",
}

RUN_IMAGE = """
image=$(grep -o 'registry[^"]*@sha256:[0-9a-f]*' /out/receipt.json)
echo "image: $image"
podman --runtime crun run --rm --pull=never --network=none --cgroups=disabled \\
    --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$image" > /out/image.txt
"""

AFTER_REBOOT = f"""
systemctl --version | head -n 1 > /out/systemd.txt
edgekit=/opt/edgekit/current/runtime/edgekit
for attempt in $(seq 60); do
    [ "$(systemctl is-active edgekit-gateway.service)" = active ] && break
    sleep 0.5
done
# the check after a boot asks the model, too: a question under way is no answer yet
until [ "$(systemctl show --property=ExecMainExitTimestampMonotonic --value \\
           edgekit-boot-check.service)" -gt 0 ]; do sleep 0.2; done
systemctl --failed --no-legend | tee /out/failed.txt
$edgekit run {demo.MODEL} "{demo.QUESTION}" > /out/answer-after-reboot.txt
$edgekit audit verify --json > /out/audit-after-reboot.json
$edgekit audit tail -n 20 > /out/records.jsonl
ls -la /etc/edgekit /var/lib/edgekit > /out/permissions.txt

get() {{  # get PATH TOKEN: the whole answer to a GET
    exec 3<>/dev/tcp/127.0.0.1/11434
    printf 'GET %s HTTP/1.1\\r\\nHost: 127.0.0.1:11434\\r\\n' "$1" >&3
    printf 'Authorization: Bearer %s\\r\\nConnection: close\\r\\n\\r\\n' "$2" >&3
    timeout 60 cat <&3
    exec 3>&-
}}
status() {{ get "$1" "$2" | head -n 1 | cut -d ' ' -f 2; }}
get /readyz "" | tail -n 1 > /out/ready.json
token=$($edgekit key add "sealed host" --scope chat --scope metrics)
{{ status /v1/models "$token"; status /metrics "$token"; status /edgekit/state "$token"
   status /readyz ""; status /console ""; }} > /out/key-added.txt
$edgekit key revoke "${{token:3:8}}" 2>&1 | tee /out/key-revoked.txt
status /v1/models "$token" >> /out/key-revoked.txt
"""


@dataclass(frozen=True)
class Story:
    """Two boots of one host of a Debian suite, and the folder in which it left its results."""

    suite: str
    first: BootResult
    second: BootResult
    out: Path

    def text(self, name: str) -> str:
        """A result file."""
        return (self.out / name).read_text("utf-8").strip()


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoSet:
    missing = sealed_host.missing_requirements()
    if missing:
        pytest.skip("cannot run here: " + "; ".join(missing))
    os.environ.pop("PYTHONPATH", None)
    work = tmp_path_factory.mktemp("sealed")
    return demo.build_set(work, with_image=True, story=demo.Story())


@pytest.fixture(scope="module", params=SYSTEMD)
def story(
    request: pytest.FixtureRequest, image_set: demo.DemoSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    suite = request.param
    work = tmp_path_factory.mktemp(suite)
    rootfs = sealed_host.build_rootfs(
        sealed_host.default_cache_dir(), packages=PODMAN, suite=suite)
    out = work / "out"
    out.mkdir()
    with SealedHost(rootfs, work / "hosts", "story") as host:
        first = host.boot(demo.guest_job(image_set) + RUN_IMAGE, stick=image_set.folder, out=out,
                          timeout_s=300, podman=True)
        second = host.boot(AFTER_REBOOT, stick=work, out=out, timeout_s=120, podman=True)
    return Story(suite, first, second, out)


def test_the_packages_of_the_demo_are_named() -> None:
    assert "systemd-nspawn" in DEMO


def test_the_host_is_sealed(story: Story) -> None:
    assert "python on this host: none" in story.first.job_output
    assert re.search(r"network interfaces: lo\s*$", story.first.job_output, re.MULTILINE)


def test_the_host_runs_the_systemd_that_was_meant(story: Story) -> None:
    assert story.text("systemd.txt").startswith(f"systemd {SYSTEMD[story.suite]} ")


def test_installs_and_answers_right(story: Story) -> None:
    assert story.text("answer.txt") == demo.ANSWER
    receipt = json.loads(story.text("receipt.json"))
    assert set(receipt["seconds"]) >= {"copy", "build", "start", "health"}
    records = [json.loads(line) for line in story.text("records.jsonl").splitlines()]
    first_token_ms = [r["ttft_ms"] for r in records if r["type"] == "response"][-1]
    print(f"\nboot {story.first.boot_s:.1f} s; first token {first_token_ms} ms; install "
          + ", ".join(f"{k} {v:.1f} s" for k, v in receipt["seconds"].items())
          + f"; boot to power-off {story.first.total_s:.1f} s")


@pytest.mark.parametrize("unit", ["gateway", "auditd", f"engine@{demo.MODEL}"])
def test_no_unit_can_reach_a_network_or_leave_its_sandbox(story: Story, unit: str) -> None:
    line = next(
        line for line in story.text("sandbox.txt").splitlines() if f"edgekit-{unit}:" in line
    )
    found = json.loads(line.partition(": ")[2])
    print(f"\n{unit}: {found}")
    assert "ALLOWED" not in found.values()
    # by the system call filter; from systemd 253 on by the kernel itself (PR_SET_MDWE)
    code = "EACCES" if SYSTEMD[story.suite] >= 253 else "EPERM"
    expected = {**EXPECTED_REFUSALS, "writable code": code}
    assert {name: found[name] for name in expected} == expected


def test_every_part_is_ready_and_the_engine_lies_where_it_was_planned(story: Story) -> None:
    parts = json.loads(story.text("ready.json"))["parts"]
    own = {f"engine:{demo.MODEL}", f"device:{demo.MODEL}"}
    assert set(parts) == {"audit", "audit_space", "disk", *own}
    assert set(parts.values()) == {True}


def test_the_container_image_runs_by_digest_without_pulling(story: Story) -> None:
    assert "hello from edgekit" in story.text("image.txt")
    assert re.search(r"image: registry\.edgekit\.internal/edgekit/hello@sha256:[0-9a-f]{64}",
                     story.first.job_output)


def test_the_audit_log_is_whole(story: Story) -> None:
    audit = json.loads(story.text("audit.json"))
    assert audit["requests"] == audit["responses"] > 0
    assert audit["orphans"] == 0


def test_everything_comes_back_after_a_reboot(story: Story) -> None:
    assert story.text("answer-after-reboot.txt") == demo.ANSWER
    assert story.text("failed.txt") == ""
    assert json.loads(story.text("audit-after-reboot.json"))["orphans"] == 0


def test_secrets_are_roots_alone(story: Story) -> None:
    assert re.search(r"-rw------- .* local\.key", story.text("permissions.txt"))
    assert re.search(r"-rw------- .* api-keys\.json", story.text("permissions.txt"))


def test_keys_count_at_once_in_the_gateways_own_sandbox(story: Story) -> None:
    assert story.text("key-added.txt").split() == ["200", "200", "403", "200", "200"]
    revoked = story.text("key-revoked.txt")
    assert revoked.startswith("revoked ")
    assert revoked.endswith("401")
    assert "no gateway runs" not in revoked
