"""Boot a whole emulated machine: a Debian with a kernel, a clock and USB sockets of its own.

A sealed host (tools/sealed_host.py) borrows the kernel of the machine it runs on, with its clock,
its memory controller and its file systems. Where those matter, this is the real thing: QEMU
emulates the processor, so it needs no KVM and is ten to thirty times slower. There is no network
card in it. Debian's SELinux policy is loaded and enforced.

A machine has its disk as long as it is open. Its job is a bash text; what the job writes under /out
is seen here while it runs. A stick is a disk image; it can be pulled out while the machine runs.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tools.sealed_resources import Lines, SealedHostError, private_namespaces, tail

__all__ = ["KERNEL_PACKAGES", "Machine", "MachineError", "Run", "missing_requirements"]

KERNEL_PACKAGES: Final = ("linux-image-amd64", "exfatprogs", "kmod", "selinux-policy-default")
"""What a rootfs must have beside systemd to boot here, and to use sticks as people format them."""

_PROGRAMS: Final = {"qemu-system-x86_64": "qemu-system-x86", "mkfs.ext4": "e2fsprogs"}
_DISK_BYTES: Final = 4 << 30
_MEMORY_MIB: Final = 3072
_CHANNEL: Final = "/run/machine"
_POLL_S: Final = 0.2
_MONITOR_S: Final = 20.0

_OPERATOR: Final = "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"
"""The SELinux context of root's login shell."""
_SELINUX: Final = "SELINUX=enforcing\nSELINUXTYPE=default\n"

_NINE_P: Final = "(genfscon 9p / (system_u object_r nfs_t ((s0) (s0))))"
"""What Debian's policy does not say: shared folders are labelled as those of another machine."""

_FSTAB: Final = f"""\
/dev/vda / ext4 rw 0 1
channel {_CHANNEL} 9p trans=virtio,version=9p2000.L,msize=524288 0 0
out /out 9p trans=virtio,version=9p2000.L,msize=524288 0 0
given /given 9p trans=virtio,version=9p2000.L,msize=524288,ro 0 0
"""
_JOB_UNIT: Final = f"""\
[Unit]
Description=The job of this machine
After=multi-user.target
RequiresMountsFor={_CHANNEL} /out /given
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=exec
SELinuxContext={_OPERATOR}
Environment=HOME=/root LANG=C.UTF-8
ExecStart=/bin/bash {_CHANNEL}/wrapper
"""
_WRAPPER: Final = f"""\
exec > {_CHANNEL}/output 2>&1
bash -euo pipefail {_CHANNEL}/job
status=$?
if [ "$status" -ne 0 ]; then
    {{ systemctl --failed --no-legend --plain; journalctl --quiet --no-pager --lines=80; }} \\
        > {_CHANNEL}/journal 2>&1
fi
journalctl --sync
journalctl --quiet --no-pager --output=cat _TRANSPORT=audit > {_CHANNEL}/audit
sync
echo "$status" > {_CHANNEL}/status
"""


@dataclass(frozen=True)
class Run:
    """One boot: the job's exit status (None: it never ended), what it printed, how long it took.

    `denials` is what the policy refused until the job ended, a line each; empty when it never did.
    """

    status: int | None
    output: str
    journal: str
    denials: tuple[str, ...]
    console: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the job ended with 0."""
        return self.status == 0

    def describe(self) -> str:
        """What is needed to find out why this boot failed, in several lines."""
        return "\n".join((
            f"job exit status {self.status}, after {self.seconds:.0f} s",
            "--- job output (tail)", tail(self.output),
            "--- denials", *self.denials,
            "--- journal (tail)", tail(self.journal, 80), "--- console (tail)", tail(self.console),
        ))  # fmt: skip


class MachineError(SealedHostError):
    """The machine did not come up, or its job did not end with 0."""


def missing_requirements() -> list[str]:
    """Say in plain words why no machine can be made here; empty if one can."""
    return [
        f"{program} is not installed (Debian package {package})"
        for program, package in _PROGRAMS.items()
        if shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin") is None
    ]


class Machine:
    """A machine whose disk, in `state`, is made from `rootfs` when it is opened.

    Use it as a context manager; between boots the disk keeps what was written. Leaving deletes it,
    the rest of the state is the caller's to delete.
    """

    def __init__(self, rootfs: Path, state: Path) -> None:
        self._rootfs, self._state = rootfs.resolve(), state.resolve()
        self._disk = self._state / "disk.img"
        self._channel = self._state / "channel"
        self._monitor: _Monitor | None = None

    def __enter__(self) -> Machine:
        self._state.mkdir(parents=True, exist_ok=True)
        self._make_disk()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._disk.unlink(missing_ok=True)

    def boot(
        self,
        job: str,
        *,
        given: Path,
        out: Path,
        timeout_s: float,
        clock: str | None = None,
        sticks: Sequence[Path] = (),
        on_line: Callable[[str], None] = lambda _: None,
    ) -> Run:
        """Boot, run the bash text `job` as root with `bash -euo pipefail`, power off.

        Inside, `given` is /given (read-only) and `out` is /out. `clock` is what the machine's
        own clock (RTC) shows at power-on, as 1970-01-01T00:00:00; None is the time here. `sticks`
        are images of disks in its USB sockets: /dev/sda, /dev/sdb ... `on_line` gets each line the
        job prints; it may call `pull` and `plug`.

        Raises MachineError when the job did not end with 0 or not in time.
        """
        shutil.rmtree(self._channel, ignore_errors=True)
        self._channel.mkdir()
        (self._channel / "job").write_text(job, "utf-8")
        (self._channel / "wrapper").write_text(_WRAPPER, "utf-8")
        (self._channel / "output").touch()
        with tempfile.TemporaryDirectory(prefix="edgekit-qmp-") as folder:
            monitor = Path(folder) / "qmp"
            command = self._command(given, out, clock, sticks, monitor)
            run = self._run(command, monitor, timeout_s, on_line)
        if not run.ok:
            raise MachineError(f"the machine's job failed: {run.describe()}")
        return run

    def pull(self, number: int = 0) -> None:
        """Pull a stick out of the running machine, whatever it is doing."""
        self._connected().ask("device_del", id=f"stick{number}")

    def plug(self, number: int = 0) -> None:
        """Put a pulled stick back."""
        self._connected().ask(
            "device_add", driver="usb-storage", bus="usb.0", drive=f"image{number}",
            id=f"stick{number}",
        )  # fmt: skip

    def _connected(self) -> _Monitor:
        assert self._monitor is not None, "the machine is not running"
        return self._monitor

    def _make_disk(self) -> None:
        tree = self._state / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        try:
            subprocess.run(["cp", "-a", str(self._rootfs), str(tree)], check=True)
            units = tree / "etc/systemd/system"
            (units / "machine-job.service").write_text(_JOB_UNIT, "utf-8")
            wanted = units / "multi-user.target.wants"
            wanted.mkdir(exist_ok=True)
            (wanted / "machine-job.service").symlink_to("../machine-job.service")
            (tree / "etc/fstab").write_text(_FSTAB, "utf-8")
            (tree / "etc/hostname").write_text("machine\n", "utf-8")
            for folder in ("out", "given"):
                (tree / folder).mkdir()
            (tree / "etc/selinux/config").write_text(_SELINUX, "utf-8")
            _label(tree)
            with self._disk.open("wb") as file:
                file.truncate(_DISK_BYTES)
            # with verity, as a site would format it for weights that are sealed by the kernel
            subprocess.run(
                ["mkfs.ext4", "-q", "-O", "verity", "-d", str(tree), str(self._disk)], check=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )  # fmt: skip
        finally:
            shutil.rmtree(tree, ignore_errors=True)

    def _command(
        self, given: Path, out: Path, clock: str | None, sticks: Sequence[Path], monitor: Path
    ) -> list[str]:
        (kernel,) = (self._rootfs / "boot").glob("vmlinuz-*")
        (initrd,) = (self._rootfs / "boot").glob("initrd.img-*")
        command = [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-smp", "2", "-m", str(_MEMORY_MIB), "-nic", "none", "-display", "none",
            "-serial", "stdio", "-no-reboot", "-qmp", f"unix:{monitor},server=on,wait=off",
            "-kernel", str(kernel), "-initrd", str(initrd),
            "-append", "console=ttyS0 root=/dev/vda rw quiet security=selinux",
            "-drive", f"if=virtio,format=raw,cache=unsafe,file={self._disk}",
            "-device", "qemu-xhci,id=usb",
        ]  # fmt: skip
        if clock is not None:
            command += ["-rtc", f"base={clock}"]
        shares = {"channel": self._channel, "out": out, "given": given}
        for tag, folder in shares.items():
            read_only = ",readonly=on" if tag == "given" else ""
            share = f"local,path={folder.resolve()},mount_tag={tag},security_model=none"
            command += ["-virtfs", f"{share},multidevs=remap{read_only}"]
        for number, image in enumerate(sticks):
            file = f"file.driver=file,file.filename={image.resolve()}"
            command += [
                "-blockdev", f"driver=raw,node-name=image{number},{file}",
                "-device", f"usb-storage,bus=usb.0,drive=image{number},id=stick{number}",
            ]  # fmt: skip
        return command

    def _run(
        self, command: list[str], monitor: Path, timeout_s: float, on_line: Callable[[str], None]
    ) -> Run:
        started = time.monotonic()
        console = self._state / "console"
        with console.open("wb") as file, (self._channel / "output").open("rb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                self._monitor = _Monitor(monitor, process)
                lines = Lines(on_line)
                while process.poll() is None and time.monotonic() - started < timeout_s:
                    lines.feed(output.read())
                    time.sleep(_POLL_S)
                lines.feed(output.read())
                lines.end()
            finally:
                process.kill()
                process.wait()
                if self._monitor is not None:
                    self._monitor.close()
                self._monitor = None
        status = self._text("status").strip()
        return Run(
            int(status) if status else None, self._text("output"), self._text("journal"),
            tuple(line for line in self._text("audit").splitlines() if " denied " in line),
            console.read_text("utf-8", errors="replace"), time.monotonic() - started,
        )  # fmt: skip

    def _text(self, name: str) -> str:
        path = self._channel / name
        return path.read_text("utf-8", errors="replace") if path.exists() else ""


def _label(tree: Path) -> None:
    """Give every file the label that the tree's own policy names.

    The kernel here may know nothing of SELinux: to it labels are extended attributes like others.
    """
    script = """
        mount --bind /proc "$1/proc"
        echo "$2" > "$1/tmp/shares.cil"
        chroot "$1" semodule --noreload --install=/tmp/shares.cil
        rm "$1/tmp/shares.cil"
        exec chroot "$1" setfiles -m -e /proc /etc/selinux/default/contexts/files/file_contexts /
    """
    subprocess.run(
        [*private_namespaces(), "bash", "-euc", script, "label", str(tree), _NINE_P], check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip


class _Monitor:
    """QEMU's machine protocol: one question, one answer; events in between are not looked at."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _MONITOR_S
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(_MONITOR_S)
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                self._socket.connect(str(path))
                break
            self._socket.close()
            if process.poll() is not None or time.monotonic() > deadline:
                raise MachineError("QEMU did not start; its words are in the console's file")
            time.sleep(0.05)
        self._file = self._socket.makefile("rwb")
        self._file.readline()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> None:
        question = {"execute": command, "arguments": arguments}
        self._file.write(json.dumps(question).encode() + b"\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "error" in answer:
                raise MachineError(f"QEMU refused {command}: {answer['error']['desc']}")
            if "return" in answer:
                return

    def close(self) -> None:
        self._file.close()
        self._socket.close()
