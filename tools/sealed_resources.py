"""What a sealed host needs from this machine, given back afterwards: mounts, cgroups, locks.

Each context manager takes back what it gave, and first what a killed program left of the same name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

_NSPAWN_STATE: Final = Path("/run/systemd/nspawn")


class SealedHostError(Exception):
    """A sealed host could not be built, prepared or entered; the text says what and why."""


def tail(text: str, lines: int = 40) -> str:
    """The last lines."""
    return "\n".join(text.splitlines()[-lines:])


@dataclass
class Lines:
    """Text that arrives in pieces of bytes and is passed on in complete lines.

    `first_at` is when the first piece came (time.monotonic), None before.
    """

    on_line: Callable[[str], None] = lambda _: None
    first_at: float | None = None
    _pieces: list[bytes] = field(default_factory=list)
    _rest: bytes = b""

    def feed(self, piece: bytes) -> None:
        """The next piece."""
        self.first_at = self.first_at or time.monotonic()
        self._pieces.append(piece)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._pass_on(line)

    def end(self) -> None:
        """There is no more: what came after the last newline is a line, too."""
        if self._rest:
            self._pass_on(self._rest)
            self._rest = b""

    def _pass_on(self, line: bytes) -> None:
        self.on_line(line.decode(errors="replace").rstrip("\r"))

    def text(self) -> str:
        """All that came."""
        return b"".join(self._pieces).decode(errors="replace")


def private_namespaces() -> list[str]:
    """The prefix of a command whose mounts and processes end with it, and that ends with us."""
    return [
        "setpriv", "--pdeathsig", "KILL",
        "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
    ]  # fmt: skip


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock at `path`; without `wait` SealedHostError says that another has it."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise SealedHostError(f"in use by another process: {path.parent}") from None
        yield


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind the stack, unless the program has its own idea or is not ours to set."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def writable_layer(rootfs: Path, state: Path) -> Iterator[None]:
    """Show rootfs plus the host's changes at state/root; a full copy where overlay cannot be."""
    root = state / "root"
    _unmount(root)  # of a program that was killed
    if (state / "copied").exists() or not _mount_overlay(rootfs, state):
        _copy_once(rootfs, state)
    try:
        yield
    finally:
        _unmount(root)


def _mount_overlay(rootfs: Path, state: Path) -> bool:
    upper, work, root = (state / part for part in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir(exist_ok=True)
    if set(f"{rootfs}{state}") & set(",:\\"):
        return False  # these separate the options of an overlay
    options = f"lowerdir={rootfs},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "-o", options, "sealed-host", str(root)]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


def _copy_once(rootfs: Path, state: Path) -> None:
    if (state / "copied").exists():
        return
    shutil.rmtree(state / "root", ignore_errors=True)
    copy = ["cp", "-a", "--reflink=auto", str(rootfs), str(state / "root")]
    answer = subprocess.run(copy, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise SealedHostError(f"the rootfs could not be copied: {answer.stderr.strip()}")
    (state / "copied").touch()


def _unmount(root: Path) -> None:
    while os.path.ismount(root):
        if subprocess.run(["umount", str(root)], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "--lazy", str(root)], capture_output=True, check=True)


def cgroup2_mount() -> Path | None:
    """Where the unified hierarchy is mounted, in the hybrid layout, too."""
    return next((path for path, kind in _cgroup_mounts() if kind == "cgroup2"), None)


def _cgroup_mounts() -> list[tuple[Path, str]]:
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if (kind := after.split()[0]) in ("cgroup", "cgroup2"):
            mounts.append((Path(before.split()[4]), kind))
    return mounts


@contextlib.contextmanager
def own_cgroup(name: str) -> Iterator[Path]:
    """A fresh control group, removed afterwards with everything that runs in it."""
    mount = cgroup2_mount()
    if mount is None:
        raise SealedHostError("no cgroup v2 hierarchy is mounted")
    _remove_cgroups(name)  # of a program that was killed
    cgroup = mount / name
    cgroup.mkdir()
    try:
        yield cgroup
    finally:
        _remove_cgroups(name)


def _remove_cgroups(name: str) -> None:
    """Kill what runs in the groups of that name and remove them, in v1 hierarchies, too.

    nspawn mirrors the group it runs in into systemd's own v1 hierarchy where there is one.
    """
    deadline = time.monotonic() + 10
    for cgroup in [mount / name for mount, _ in _cgroup_mounts()]:
        while cgroup.exists():
            _kill_cgroup(cgroup)
            for folder in reversed(_tree(cgroup)):
                _rmdir_unless_busy(folder)
            if time.monotonic() > deadline:
                raise SealedHostError(f"processes of {cgroup} cannot be killed")
            time.sleep(0.01)


def _rmdir_unless_busy(folder: Path) -> None:
    if folder.is_dir():
        with contextlib.suppress(OSError):  # a cgroup is busy until its last process is gone
            folder.rmdir()


def _kill_cgroup(cgroup: Path) -> None:
    for pid in processes(cgroup):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes(cgroup: Path) -> list[int]:
    """Process ids in the group and in those below it."""
    pids: list[int] = []
    for folder in _tree(cgroup):
        with contextlib.suppress(OSError):
            pids += [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    return pids


def _tree(cgroup: Path) -> list[Path]:
    """The group and those below it, parents first; the guest may be changing them meanwhile."""
    return [Path(folder) for folder, _, _ in os.walk(cgroup)]


@contextlib.contextmanager
def nspawn_traces_removed(machine: str, root: Path) -> Iterator[None]:
    """Take back what nspawn keeps under /run; the shared folders with the last host to end.

    nspawn itself does so, except the folders, and except when it is killed.

    Every booted host holds a shared lock on /run: a folder must not go while another nspawn is
    about to put something into it.
    """
    directory = root.stat()
    lock = _NSPAWN_STATE / "locks" / f"inode-{directory.st_dev}:{directory.st_ino}"
    run = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(run, fcntl.LOCK_SH)
        try:
            yield
        finally:
            for kind in ("propagate", "unix-export"):
                _unmount(_NSPAWN_STATE / kind / machine)
                shutil.rmtree(_NSPAWN_STATE / kind / machine, ignore_errors=True)
            lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not the last one, or not only ours
                fcntl.flock(run, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for kind in ("propagate", "unix-export", "locks", "."):
                    _rmdir_unless_busy(_NSPAWN_STATE.joinpath(kind))
    finally:
        os.close(run)
