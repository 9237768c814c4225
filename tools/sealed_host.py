"""Boot a sealed host: a Debian machine with systemd, without Python and without a network.

A rootfs is built once and cached (`build_rootfs`). Each `SealedHost` keeps its own changes over
that shared, never modified rootfs, so the same host can be booted again and finds its files.
`SealedHost.boot` runs one bash job inside the booted machine. The machine answers with exit
status 123 only if the job ended with 0, so a machine that never came up cannot look like a success.

Needs root, systemd-nspawn and debootstrap; the machine it runs on needs no systemd of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from tools.rootfs import SUITE, Report, build_rootfs, debian_archive, default_cache_dir
from tools.sealed_resources import (
    Lines,
    SealedHostError,
    cgroup2_mount,
    locked,
    nspawn_traces_removed,
    own_cgroup,
    private_namespaces,
    processes,
    sigterm_as_exit,
    tail,
    writable_layer,
)

__all__ = [
    "EXIT_OK", "Bind", "BootError", "BootResult", "BootTimeoutError", "SealedHost",
    "SealedHostError", "build_rootfs", "default_cache_dir", "missing_requirements",
]  # fmt: skip

EXIT_OK: Final = 123
"""What the machine exits with when the job ended with 0; nothing else in systemd uses it."""

_COMMANDS: Final = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "apt-get": "apt",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
_CHANNEL: Final = "/run/sealed-host"
_FIRST_LINE: Final = "sealed-host: the job starts"
_JOURNAL_LINES: Final = 80

# Ordered after multi-user.target, so everything enabled has been started or has failed; and its
# own start is over as soon as bash runs, so `systemctl start` in the job waits for nothing of ours.
_JOB_UNIT: Final = f"""\
[Unit]
Description=The job of this sealed host
After=multi-user.target
SuccessAction=exit
SuccessActionExitStatus={EXIT_OK}
FailureAction=exit
FailureActionExitStatus=1

[Service]
Type=exec
Environment=HOME=/root LANG=C.UTF-8
ExecStart=/bin/bash {_CHANNEL}/wrapper
"""

_WRAPPER: Final = f"""\
exec > {_CHANNEL}/output 2>&1
echo '{_FIRST_LINE}'
bash -euo pipefail {_CHANNEL}/job
status=$?
echo "$status" > {_CHANNEL}/status
if [ "$status" -ne 0 ]; then
    {{ systemctl --failed --no-legend --plain
       journalctl --quiet --no-pager --lines={_JOURNAL_LINES}; }} > {_CHANNEL}/journal 2>&1
fi
exit "$status"
"""


@dataclass(frozen=True)
class Bind:
    """A file or folder of this machine shown inside the sealed host at `target` (absolute)."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class BootResult:
    """What one boot gave.

    `exit_status` is the machine's (123: the job ended with 0), negative for a signal;
    `job_status` the job's own, None if it never ended. `boot_s` are the seconds from starting
    systemd-nspawn to the job's first line, None if there was none; `total_s` includes shutdown.
    `journal` is the guest's journal tail, and is filled only when the job did not end with 0.
    """

    exit_status: int
    job_status: int | None
    boot_s: float | None
    total_s: float
    console: str
    job_output: str
    journal: str

    @property
    def ok(self) -> bool:
        """Whether the machine came up and its job ended with 0."""
        return self.exit_status == EXIT_OK

    def describe(self) -> str:
        """What is needed to find out why this boot failed, in several lines."""
        return "\n".join(
            (
                f"machine exit status {self.exit_status}, after {self.total_s:.1f} s",
                f"job exit status {self.job_status}",
                "--- job output (tail)", tail(self.job_output),
                "--- journal (tail)", tail(self.journal, _JOURNAL_LINES),
                "--- console (tail)", tail(self.console),
            )
        )  # fmt: skip


class BootError(SealedHostError):
    """The machine did not come up, or its job did not end with 0; `result` has the details."""

    def __init__(self, what: str, result: BootResult) -> None:
        super().__init__(f"{what}: {result.describe()}")
        self.result = result


class BootTimeoutError(BootError):
    """The machine was still running after the time allowed and was killed."""


def missing_requirements() -> list[str]:
    """Say in plain words why a sealed host cannot be built or booted here; empty if it can.

    Changes nothing and does not use the network, so an unreachable archive is not noticed.
    """
    missing = [
        f"{command} is not installed (Debian package {package})"
        for command, package in _COMMANDS.items()
        if shutil.which(command) is None
    ]
    if os.geteuid() != 0:
        return [*missing, "not running as root"]
    if cgroup2_mount() is None:
        missing.append("no cgroup v2 hierarchy is mounted")
    elif not os.access(cgroup2_mount() or "", os.W_OK):
        missing.append("the cgroup v2 hierarchy is read-only")
    if missing:
        return missing
    probe = subprocess.run([*private_namespaces(), "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        missing.append("cannot create mount and process namespaces")
    if debian_archive() is None:
        missing.append(f"apt's configuration names no Debian {SUITE} archive")
    return missing


class SealedHost:
    """One host: a writable layer in `state_dir`/`name` over the shared read-only `rootfs`.

    Use it as a context manager. Inside, `root` is the host's file system, which may be read and
    changed between boots; everything written stays for later boots and later `SealedHost`s with
    the same state. Leaving unmounts it; the state itself is the caller's to delete.

    While it is open, SIGTERM ends the program through SystemExit (143), so that nothing stays
    behind. After SIGKILL the machine dies too; its mount and empty cgroup stay until the host is
    next opened and booted.
    """

    def __init__(self, rootfs: Path, state_dir: Path, name: str) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise SealedHostError(f"not a host name: {name!r}")
        self._rootfs = rootfs.resolve()
        self._state = (state_dir / name).resolve()
        self._name = name
        # The state's path and not the name: hosts of two test runs may have the same name.
        self._machine = "sealed-" + hashlib.sha256(bytes(self._state)).hexdigest()[:12]
        self._cleanup = contextlib.ExitStack()

    @property
    def root(self) -> Path:
        """The host's file system as seen from this machine; there only while the host is open."""
        return self._state / "root"

    def __enter__(self) -> SealedHost:
        """Raise SealedHostError if the same host is open elsewhere or cannot be mounted."""
        self._state.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self._state / "lock", wait=False))
            stack.enter_context(sigterm_as_exit())
            stack.enter_context(writable_layer(self._rootfs, self._state))
            machine_id = self.root / "etc/machine-id"
            if not machine_id.read_text().strip():
                machine_id.write_text(uuid.uuid4().hex + "\n")
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def boot(
        self,
        job: str,
        *,
        stick: Path,
        out: Path | None = None,
        extra_binds: Sequence[Bind] = (),
        timeout_s: float,
        podman: bool = False,
        on_line: Report | None = None,
        check: bool = True,
    ) -> BootResult:
        """Boot, run the bash text `job` as root, power off, and say what happened.

        The job starts when everything enabled in the host has been started. It runs with
        `bash -euo pipefail`. Inside, `stick` is /media/stick (read-only) and `out` is /out; the
        only network interface is the loopback. `on_line` gets each line the job writes to stdout
        or stderr, as it comes, without its newline. `podman` allows containers in the guest and
        keeps their images in the host's state. `timeout_s` covers boot, job and shutdown.

        Raises BootTimeoutError when the time is over, and, unless `check` is false, BootError for
        anything but a job that ended with 0. However it ends, also by an exception of `on_line`
        or a signal, no process, mount or cgroup of the machine is left.
        """
        channel = self._prepare(job)
        binds = [Bind(channel, _CHANNEL, writable=True), Bind(stick, "/media/stick"), *extra_binds]
        if out is not None:
            binds.append(Bind(out, "/out", writable=True))
        if podman:
            # Container storage needs a file system that is not itself an overlay.
            images = self._state / "containers"
            images.mkdir(exist_ok=True)
            binds.append(Bind(images, "/var/lib/containers", writable=True))
        with own_cgroup(self._machine) as cgroup, nspawn_traces_removed(self._machine, self.root):
            command = self._command(binds, podman=podman)
            result, in_time = _Run(command, cgroup, channel, on_line).finish(timeout_s)
        if not in_time:
            raise BootTimeoutError(f"host {self._name} still running after {timeout_s:g} s", result)
        if check and not result.ok:
            raise BootError(f"host {self._name} failed", result)
        return result

    def _prepare(self, job: str) -> Path:
        """Put the unit into the host; return the fresh folder through which job and we talk."""
        units = self.root / "etc/systemd/system"
        (units / "sealed-job.service").write_text(_JOB_UNIT)
        wanted = units / "multi-user.target.wants/sealed-job.service"
        wanted.parent.mkdir(exist_ok=True)
        wanted.unlink(missing_ok=True)
        wanted.symlink_to("../sealed-job.service")
        channel = self._state / "channel"
        shutil.rmtree(channel, ignore_errors=True)
        channel.mkdir()
        (channel / "job").write_text(job)
        (channel / "wrapper").write_text(_WRAPPER)
        os.mkfifo(channel / "output")
        return channel

    def _command(self, binds: Sequence[Bind], *, podman: bool) -> list[str]:
        command = [
            "systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}",
            f"--machine={self._machine}", f"--hostname={self._name}", "--private-network",
            "--console=pipe", "--register=no", "--keep-unit", "--settings=no",
            "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        ]  # fmt: skip
        for bind in binds:
            source = str(bind.source.resolve(strict=True)).replace("\\", "\\\\")
            option = "--bind" if bind.writable else "--bind-ro"
            command.append(f"{option}={source.replace(':', chr(92) + ':')}:{bind.target}")
        if podman:
            # crun joins a session keyring; podman's own capability set includes what nspawn drops.
            command += ["--system-call-filter=add_key keyctl", "--capability=all"]
        return command


class _Run:
    """One running machine: reads its console and its job's output until it ends or is killed."""

    def __init__(
        self, command: list[str], cgroup: Path, channel: Path, on_line: Report | None
    ) -> None:
        self._command, self._cgroup, self._channel = command, cgroup, channel
        self._console = Lines()
        self._output = Lines(_after_the_first(on_line or (lambda _: None)))

    def finish(self, timeout_s: float) -> tuple[BootResult, bool]:
        """Run to the end; the second value is whether it ended by itself within `timeout_s`."""
        # Opened for writing as well, or the pipe would be at its end whenever nobody writes.
        output = os.open(self._channel / "output", os.O_RDWR | os.O_NONBLOCK)
        started = time.monotonic()
        process = self._start()
        assert process.stdout is not None
        try:
            os.set_blocking(process.stdout.fileno(), False)
            sources = {process.stdout.fileno(): self._console, output: self._output}
            in_time = _pump(process.pid, sources, started + timeout_s)
            journal = self._read("journal") if in_time else _journal_of(self._cgroup)
        finally:
            process.kill()  # takes nspawn and the guest with it; nothing if all ended
            exit_status = process.wait()
            process.stdout.close()
            os.close(output)
        return self._result(exit_status, started, journal), in_time

    def _start(self) -> subprocess.Popen[bytes]:
        # In a cgroup of its own, because nspawn makes its subgroups where it runs and two would
        # collide; only nspawn is in it, because a group with processes cannot share resources
        # among subgroups. In a process namespace, because the guest survives a killed nspawn.
        enter = '(echo 0 > "$1/cgroup.procs" && shift && exec "$@"); exit $?'
        return subprocess.Popen(
            [*private_namespaces(), "sh", "-c", enter, "sh", str(self._cgroup), *self._command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "yes", "SYSTEMD_LOG_COLOR": "0"},
            start_new_session=True,  # so that Ctrl-C reaches us and not nspawn
        )  # fmt: skip

    def _result(self, exit_status: int, started: float, journal: str) -> BootResult:
        first = self._output.first_at
        status = self._read("status").strip()
        return BootResult(
            exit_status=exit_status,
            job_status=int(status) if status else None,
            boot_s=None if first is None else first - started,
            total_s=time.monotonic() - started,
            console=self._console.text(),
            job_output=self._output.text().removeprefix(_FIRST_LINE).removeprefix("\n"),
            journal=journal,
        )

    def _read(self, name: str) -> str:
        path = self._channel / name
        return path.read_text(errors="replace") if path.exists() else ""


def _after_the_first(on_line: Report) -> Report:
    """The same without the line that only says that the job starts."""

    def pass_on(line: str) -> None:
        if line != _FIRST_LINE:
            on_line(line)

    return pass_on


def _pump(pid: int, sources: dict[int, Lines], deadline: float) -> bool:
    """Read all sources until the process ends (True) or the deadline passes (False)."""
    ended = os.pidfd_open(pid)
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in (ended, *sources):
                selector.register(descriptor, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ready = [key.fd for key, _ in selector.select(left)]
                for descriptor in set(ready) & set(sources):
                    if not _drain(descriptor, sources[descriptor]):
                        selector.unregister(descriptor)
                if ended in ready:
                    return True
            return False
    finally:
        os.close(ended)
        for descriptor, lines in sources.items():
            _drain(descriptor, lines)
            lines.end()


def _drain(descriptor: int, lines: Lines) -> bool:
    """Take what is there without waiting; whether more may come."""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(descriptor, 65536):
            lines.feed(piece)
        return False
    return True


def _journal_of(cgroup: Path) -> str:
    """The journal tail of a machine that still runs, or why it cannot be had."""
    leader = next((pid for pid in processes(cgroup) if _is_init(pid)), None)
    if leader is None:
        return "(the machine has no process 1)"
    enter = ["nsenter", "--target", str(leader), "--mount", "--pid", "--uts", "--ipc", "--net"]
    show = ["journalctl", "--quiet", "--no-pager", f"--lines={_JOURNAL_LINES}"]
    try:
        answer = subprocess.run([*enter, *show], capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return "(journalctl did not answer)"
    return (answer.stdout + answer.stderr).decode(errors="replace")


def _is_init(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                inside = line.split()[1:]
                return len(inside) > 1 and inside[-1] == "1"
    return False


_SELF_CHECK: Final = """
echo "state: $(systemctl is-system-running --wait || true)"
echo "failed units: $(systemctl --failed --no-legend | wc -l)"
echo "network interfaces: $(echo $(ls /sys/class/net))"
if compgen -c | grep -qE '^python[0-9.]*$'; then echo 'Python is here'; exit 1; fi
echo 'Python: absent'
systemd-run --quiet --wait --pipe -p DynamicUser=yes -p PrivateNetwork=yes \\
    -p ProtectSystem=strict -p MemoryDenyWriteExecute=yes -p PrivateUsers=yes \\
    -p SystemCallFilter=@system-service -p NoNewPrivileges=yes \\
    sh -c 'echo "hardened unit: works, as user $(id -u)"'
"""


def main(argv: Sequence[str] = sys.argv[1:], out: IO[str] = sys.stdout) -> int:
    """Build or take from the cache (`argv[0]` or the default), boot once, print what was seen."""

    def say(line: str) -> None:
        print(line, file=out, flush=True)

    if missing := missing_requirements():
        for reason in missing:
            say(f"cannot boot a sealed host here: {reason}")
        return 1
    with tempfile.TemporaryDirectory(prefix="sealed-host-") as folder:
        rootfs = build_rootfs(Path(argv[0]) if argv else default_cache_dir(), report=say)
        stick = Path(folder) / "stick"
        stick.mkdir()
        with SealedHost(rootfs, Path(folder) / "state", "self-check") as host:
            result = host.boot(_SELF_CHECK, stick=stick, timeout_s=60, on_line=say)
    say(f"booted in {result.boot_s or 0:.1f} s, done in {result.total_s:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
