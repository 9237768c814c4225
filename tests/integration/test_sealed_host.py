"""A sealed host really boots, is really sealed, cannot pass by accident and leaves nothing."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools import rootfs as rootfs_module
from tools.sealed_host import (
    Bind,
    BootError,
    BootTimeoutError,
    SealedHost,
    SealedHostError,
    build_rootfs,
    default_cache_dir,
    missing_requirements,
)

BOOT_LIMIT_S = 120.0
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if missing := missing_requirements():
        pytest.skip("cannot run here: " + "; ".join(missing))


@pytest.fixture(scope="module")
def rootfs() -> Path:
    return build_rootfs(default_cache_dir(), report=print)


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    (folder / "hello").write_text("from the stick\n")
    return folder


@pytest.fixture
def host(rootfs: Path, tmp_path: Path) -> Iterator[SealedHost]:
    with SealedHost(rootfs, tmp_path / "state", "alpha") as opened:
        yield opened
    assert leftovers() == []


@pytest.fixture(scope="module", autouse=True)
def _earlier() -> None:
    """What runs that were killed have left on this machine is not these tests' own."""
    EARLIER.clear()
    EARLIER.update(leftovers())


EARLIER: set[str] = set()


def leftovers(still_open: SealedHost | None = None) -> list[str]:
    """Mounts, cgroups, processes and nspawn folders that a sealed host would leave behind."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "sealed-" in line]
    if still_open is not None:
        mounts = [line for line in mounts if str(still_open.root) not in line]
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob("**/sealed-*")]
    nspawn = [str(path) for path in Path("/run/systemd/nspawn").glob("**/*") if not is_free(path)]
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    processes = [line for line in listing.stdout.splitlines() if "--machine=sealed-" in line]
    found = mounts + groups + nspawn + processes
    return [name for name in found if name not in EARLIER]


def is_free(path: Path) -> bool:
    """Whether this is a lock that nobody holds: nspawn, when it is killed, leaves its file."""
    if path.parent.name != "locks":
        return False
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass  # it has just been removed
    return True


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Where hosts of a program that gets killed live; what it left mounted goes with the test."""
    yield tmp_path / "state"
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        if (place := line.split()[1]).startswith(f"{tmp_path}/"):
            subprocess.run(["umount", "--lazy", place], check=False)


def guest_processes() -> list[str]:
    groups = Path("/sys/fs/cgroup").glob("**/sealed-*/**/cgroup.procs")
    return [pid for group in groups for pid in group.read_text().split()]


SANE = """
test "$(systemctl is-system-running --wait)" = running
test -z "$(systemctl --failed --no-legend)"
test -z "$(systemctl list-jobs --no-legend)"
test "$(ls /sys/class/net)" = lo
test $(( $(cat /sys/class/net/lo/flags) & 1 )) = 1
! compgen -c | grep -qE '^python[0-9.]*$'
test "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs
test "$(hostname)" = alpha
test "$(journalctl --quiet -o cat -u sealed-job.service | wc -l)" -ge 1
test ! -e /var/log/journal
"""


def test_the_guest_is_up_sealed_and_sane(host: SealedHost, stick: Path) -> None:
    result = host.boot(SANE, stick=stick, timeout_s=BOOT_LIMIT_S)
    assert result.ok
    assert (result.exit_status, result.job_status) == (123, 0)
    assert result.boot_s is not None
    assert 0 < result.boot_s <= result.total_s


ECHO = """
cat > /etc/systemd/system/echo.socket <<'UNIT'
[Socket]
ListenStream=127.0.0.1:4242
Accept=yes
[Install]
WantedBy=sockets.target
UNIT
cat > /etc/systemd/system/echo@.service <<'UNIT'
[Service]
ExecStart=/bin/cat
StandardInput=socket
UNIT
systemctl enable --now echo.socket
exec 3<>/dev/tcp/127.0.0.1/4242
echo ping >&3
read -r -t 10 answer <&3
test "$answer" = ping
"""


def test_loopback_connections_work(host: SealedHost, stick: Path) -> None:
    host.boot(ECHO, stick=stick, timeout_s=BOOT_LIMIT_S)


INSTALL = """
cat > /etc/systemd/system/hello.service <<'UNIT'
[Unit]
Description=wanted at boot and slow to start
After=basic.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sleep 1
ExecStart=/bin/sh -c 'echo "$(cat /proc/sys/kernel/random/boot_id)" >> /var/lib/hello'
[Install]
WantedBy=multi-user.target
UNIT
systemctl enable hello.service
systemctl start hello.service
systemctl is-active hello.service
cat /etc/machine-id
"""
AGAIN = """
systemctl is-active hello.service
test "$(wc -l < /var/lib/hello)" = 2
cat /etc/machine-id
"""


def test_a_job_may_start_units_and_they_are_up_before_the_next_job(
    host: SealedHost, stick: Path, rootfs: Path, tmp_path: Path
) -> None:
    first = host.boot(INSTALL, stick=stick, timeout_s=BOOT_LIMIT_S)
    second = host.boot(AGAIN, stick=stick, timeout_s=BOOT_LIMIT_S)
    assert first.job_output.splitlines()[-2:] == second.job_output.splitlines()
    assert not (rootfs / "var/lib/hello").exists(), "the shared rootfs must not change"
    with SealedHost(rootfs, tmp_path / "state", "beta") as other:
        identity = other.boot("cat /etc/machine-id", stick=stick, timeout_s=BOOT_LIMIT_S)
    assert identity.job_output != second.job_output.splitlines()[-1] + "\n"


def test_binds_and_live_lines(host: SealedHost, stick: Path, tmp_path: Path) -> None:
    out, odd = tmp_path / "out", tmp_path / "with:colon"
    out.mkdir()
    odd.write_text("odd\n")
    lines: list[str] = []
    host.boot(
        "cat /media/stick/hello; cat /run/odd >&2; ! touch /media/stick/x; echo kept > /out/file",
        stick=stick,
        out=out,
        extra_binds=[Bind(odd, "/run/odd")],
        timeout_s=BOOT_LIMIT_S,
        on_line=lines.append,
    )
    assert lines[:2] == ["from the stick", "odd"]
    assert "Read-only file system" in lines[2]
    assert (out / "file").read_text() == "kept\n"


@pytest.mark.parametrize("job", ["exit 123", "exit 7", "false; true", "kill -KILL $PPID"])
def test_only_a_job_that_ended_with_zero_is_a_success(
    host: SealedHost, stick: Path, job: str
) -> None:
    with pytest.raises(BootError, match="alpha failed") as caught:
        host.boot(f"echo before; {job}", stick=stick, timeout_s=BOOT_LIMIT_S)
    assert caught.value.result.exit_status not in (0, 123)
    assert caught.value.result.job_output == "before\n"


def test_a_failed_job_brings_its_journal(host: SealedHost, stick: Path) -> None:
    result = host.boot(
        "systemd-run --quiet --wait sh -c 'echo clue; exit 3'",
        stick=stick,
        timeout_s=BOOT_LIMIT_S,
        check=False,
    )
    assert (result.ok, result.job_status) == (False, 3)
    assert "clue" in result.journal


def test_a_host_that_never_boots_cannot_pass(host: SealedHost, stick: Path) -> None:
    init = host.root / "usr/lib/systemd/systemd"
    init.unlink()
    init.symlink_to("/bin/true")
    with pytest.raises(BootError) as caught:
        host.boot("true", stick=stick, timeout_s=BOOT_LIMIT_S)
    assert (caught.value.result.exit_status, caught.value.result.boot_s) == (0, None)


def test_a_timeout_kills_the_machine_and_shows_the_journal(host: SealedHost, stick: Path) -> None:
    with pytest.raises(BootTimeoutError, match="still running after 3 s") as caught:
        host.boot("logger a-clue; echo begun; sleep 600", stick=stick, timeout_s=3)
    assert "a-clue" in caught.value.result.journal
    assert caught.value.result.job_output == "begun\n"
    assert leftovers(host) == []


def test_an_exception_of_the_listener_leaves_nothing(host: SealedHost, stick: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="one"):
        host.boot("echo one; sleep 600", stick=stick, timeout_s=BOOT_LIMIT_S, on_line=interrupt)
    assert leftovers(host) == []


PROGRAM = """
import sys
from pathlib import Path
from tools.sealed_host import SealedHost
with SealedHost(Path(sys.argv[1]), Path(sys.argv[2]), "alpha") as host:
    host.boot("echo up; sleep 600", stick=Path(sys.argv[3]), timeout_s=120,
              on_line=lambda line: print(line, flush=True))
"""


def started_elsewhere(rootfs: Path, state: Path, stick: Path) -> subprocess.Popen[str]:
    """Another process with host alpha booted and its job running."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(rootfs), str(state), str(stick)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(
    rootfs: Path, state: Path, stick: Path, number: signal.Signals
) -> None:
    process = started_elsewhere(rootfs, state, stick)
    process.send_signal(number)
    assert process.wait(timeout=20) in (128 + number, -number)
    assert leftovers() == []


def test_after_sigkill_the_machine_dies_and_the_host_opens_again(
    rootfs: Path, state: Path, stick: Path
) -> None:
    process = started_elsewhere(rootfs, state, stick)
    with pytest.raises(SealedHostError, match="in use"), SealedHost(rootfs, state, "alpha"):
        pytest.fail("one host was opened twice")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60  # a busy machine takes its time to end a guest
    while (alive := guest_processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive == []
    with SealedHost(rootfs, state, "alpha") as again:
        again.boot("true", stick=stick, timeout_s=BOOT_LIMIT_S)
    assert leftovers() == []


def test_two_hosts_run_at_the_same_time(rootfs: Path, tmp_path: Path, stick: Path) -> None:
    def run(name: str) -> str:
        with SealedHost(rootfs, tmp_path / "state", name) as host:
            return host.boot("hostname; sleep 2", stick=stick, timeout_s=BOOT_LIMIT_S).job_output

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, ["one", "two"])) == ["one\n", "two\n"]
    assert leftovers() == []


# A comma cannot be said to the kernel, so there the rootfs is copied.
@pytest.mark.parametrize("folder", ["overlay", "no, overlay"])
def test_a_host_opened_again_has_its_files(
    rootfs: Path, tmp_path: Path, stick: Path, folder: str
) -> None:
    for _ in range(2):
        with SealedHost(rootfs, tmp_path / folder, "alpha") as host:
            result = host.boot("echo boot >> /kept; cat /kept", stick=stick, timeout_s=BOOT_LIMIT_S)
    assert result.job_output == "boot\nboot\n"
    assert not (rootfs / "kept").exists()
    assert leftovers() == []


# --- the cache, with a recipe that takes no time ------------------------------------------------


def recipe(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(rootfs_module, "_BUILD_SCRIPT", "set -eu; result=$2; " + script)


def test_builds_at_the_same_time_build_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe(monkeypatch, "sleep 0.5; touch $result/made")
    reports: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(build_rootfs, tmp_path, report=reports.append) for _ in range(3)]
    assert len({future.result() for future in futures}) == 1
    assert (futures[0].result() / "made").exists()
    assert len(reports) == 2


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no such archive; exit 1", "no such archive"),
        ("mkdir -p $result/usr/bin; touch $result/usr/bin/python3", "must not contain Python"),
    ],
)
def test_a_bad_build_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, reason: str
) -> None:
    recipe(monkeypatch, script)
    with pytest.raises(SealedHostError, match=reason):
        build_rootfs(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


BUILDER = """
import sys
from pathlib import Path
from tools import rootfs
rootfs._BUILD_SCRIPT = 'touch $2/half; mount -t tmpfs sealed-scratch $1; sleep 600 || true'
rootfs.build_rootfs(Path(sys.argv[1]))
"""


def test_a_killed_build_does_not_poison_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process = subprocess.Popen([sys.executable, "-c", BUILDER, str(tmp_path)], cwd=PROJECT)
    deadline = time.monotonic() + 10
    while not list(tmp_path.glob("*.partial/half")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    (partial,) = tmp_path.glob("*.partial")
    assert list(tmp_path.glob("rootfs-*[0-9a-f]")) == []
    # The same recipe's key, but one that ends: the leftover must not be in the result.
    key = partial.stem.removeprefix("rootfs-")
    monkeypatch.setattr(rootfs_module, "_rootfs_key", lambda *_: key)
    recipe(monkeypatch, "touch $result/whole")
    assert [path.name for path in build_rootfs(tmp_path).iterdir()] == ["whole"]
    assert list(tmp_path.glob("*.partial*")) == []


# --- containers in the guest --------------------------------------------------------------------


def image_of(binary: Path, archive: Path) -> None:
    """Write a one-file container image, tagged `localhost/tiny:1`, without any container tool."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(binary, "busybox")
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "config": {"Entrypoint": ["/busybox"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    entry = {"Config": "config.json", "RepoTags": ["localhost/tiny:1"], "Layers": ["layer.tar"]}
    members = {
        "layer.tar": layer.getvalue(),
        "config.json": config,
        "manifest.json": json.dumps([entry]).encode(),
    }
    with tarfile.open(archive, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


LOAD = "podman load -i /media/stick/tiny.tar"
RUN = """
podman --runtime crun run --rm --network=none --cgroups=disabled \\
    --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 localhost/tiny:1 echo in a container
"""


def test_containers_load_run_and_stay(tmp_path: Path, stick: Path) -> None:
    busybox = Path(shutil.which("busybox") or "/missing")
    if not busybox.exists() or b"statically" not in subprocess.run(
        ["file", "-L", busybox], capture_output=True, check=False
    ).stdout:  # fmt: skip
        pytest.skip("cannot run here: no static busybox (Debian package busybox-static)")
    image_of(busybox, stick / "tiny.tar")
    rootfs = build_rootfs(default_cache_dir(), packages=("podman", "crun"), report=print)
    with SealedHost(rootfs, tmp_path / "state", "gamma") as host:
        host.boot(LOAD, stick=stick, timeout_s=BOOT_LIMIT_S, podman=True)
        result = host.boot(RUN, stick=stick, timeout_s=BOOT_LIMIT_S, podman=True)
    assert result.job_output.endswith("in a container\n")
    assert leftovers() == []
