"""What a process in this unit can reach: run inside a unit, it reports what its sandbox refused.

Every attempt must fail. The result is one JSON line, `{attempt: errno name or "ALLOWED"}`, and exit
status 0 only when nothing was allowed. Addresses are from RFC 5737 and RFC 3849, which
belong to nobody.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

CONNECT_TIMEOUT_S = 3.0
RUN_FROM_STATE = "run from state"


def main() -> int:
    """Try everything, print what happened; 0 when all of it was refused."""
    attempts = dict(FORBIDDEN)
    if _is_engine():  # for the other two the writer's socket is their own work
        attempts["reach audit writer"] = _reach_audit_writer
    if "STATE_DIRECTORY" not in os.environ:
        del attempts[RUN_FROM_STATE]
    results = {name: _try(attempt) for name, attempt in attempts.items()}
    print(json.dumps(results, sort_keys=True), flush=True)
    return 1 if "ALLOWED" in results.values() else 0


def _is_engine() -> bool:
    return "engine" in Path("/proc/self/cgroup").read_text("utf-8")


def _reach_audit_writer() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.connect("/run/edgekit-auditd/audit.sock")


def _list_audit_log() -> None:
    list(Path("/var/lib/edgekit/audit/.").iterdir())


def _try(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "ALLOWED"


def _connect(family: int, address: str) -> Callable[[], None]:
    def attempt() -> None:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_TIMEOUT_S)
            probe.connect((address, 443))

    return attempt


def _send_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"probe", ("192.0.2.1", 53))


def _see_interfaces() -> None:
    """Any interface but loopback means the network namespace is not our own."""
    names = {name for _, name in socket.if_nameindex()} - {"lo"}
    if not names:
        raise OSError(errno.ENODEV, "only loopback")


def _write(path: str) -> Callable[[], None]:
    def attempt() -> None:
        with Path(path).open("w", encoding="ascii"):
            pass

    return attempt


def _read(path: str) -> Callable[[], None]:
    def attempt() -> None:
        with Path(path).open("rb"):
            pass

    return attempt


def _map_writable_code() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(None, ctypes.c_size_t(4096), protection, flags, -1, ctypes.c_long(0))
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def _run_from(folder: str) -> Callable[[], None]:
    """Write a program there and start it. A folder that may not be written is a refusal, too."""

    def attempt() -> None:
        path = Path(folder.format(**os.environ), "edgekit-probe")
        path.write_bytes(b"#!/bin/sh\nexit 0\n")
        try:
            path.chmod(0o755)
            pid = os.posix_spawn(str(path), [str(path)], {})
            os.waitpid(pid, 0)
        finally:
            path.unlink()

    return attempt


def _see_process_one() -> None:
    """Any process of another user is enough; pid 1 is always root's."""
    Path("/proc/1/stat").read_bytes()


def _call(name: str, *arguments: object) -> Callable[[], None]:
    """A function of the C library that must give -1; its errno is the refusal."""

    def attempt() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if getattr(libc, name)(*arguments) == -1:
            raise OSError(ctypes.get_errno(), name)

    return attempt


def _system_call(number: int | None, *arguments: object) -> Callable[[], None]:
    """A bare system call; ENOSYS where this processor's number is not known here."""

    def attempt() -> None:
        if number is None:
            raise OSError(errno.ENOSYS, "system call")
        libc = ctypes.CDLL(None, use_errno=True)
        values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
        if libc.syscall(ctypes.c_long(number), *values) == -1:
            raise OSError(ctypes.get_errno(), "system call")

    return attempt


def _open_socket(family: int, kind: int) -> Callable[[], None]:
    def attempt() -> None:
        socket.socket(family, kind).close()

    return attempt


_X86 = os.uname().machine == "x86_64"
# x86-64 and asm-generic numbers (unistd.h)
_INIT_MODULE = 175 if _X86 else 105
_PERF_EVENT_OPEN = 298 if _X86 else 241
_BPF = 321 if _X86 else 280
_KEYCTL = 250 if _X86 else 219
_CLONE_NEWUSER = 0x10000000
_PTRACE_SEIZE = 0x4206
_REBOOT = 169 if _X86 else 142
_REBOOT_MAGIC = (0xFEE1DEAD, 672274793, 0)  # switches Ctrl-Alt-Del off: harmless if it worked
_TIME = b"\0" * 16

FORBIDDEN: dict[str, Callable[[], None]] = {
    "connect ipv4": _connect(socket.AF_INET, "192.0.2.1"),
    "connect ipv6": _connect(socket.AF_INET6, "2001:db8::1"),
    "send datagram": _send_datagram,
    "see interfaces": _see_interfaces,
    "write /etc": _write("/etc/edgekit-probe"),
    "write /usr": _write("/usr/edgekit-probe"),
    "write releases": _write("/opt/edgekit/edgekit-probe"),
    "write trust": _write("/var/lib/edgekit/trust/edgekit-probe"),
    "write units": _write("/run/systemd/system/edgekit-probe"),
    "read api keys": _read("/etc/edgekit/local.key"),
    "read shadow": _read("/etc/shadow"),
    "read audit log": _list_audit_log,
    "writable code": _map_writable_code,
    "run from /tmp": _run_from("/tmp"),  # noqa: S108 - the point is to try it
    "run from /dev/shm": _run_from("/dev/shm"),  # noqa: S108
    RUN_FROM_STATE: _run_from("{STATE_DIRECTORY}"),
    "netlink socket": _open_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "raw socket": _open_socket(socket.AF_PACKET, socket.SOCK_RAW),
    "see other processes": _see_process_one,
    "signal other process": lambda: os.kill(1, 0),
    "trace other process": _call("ptrace", _PTRACE_SEIZE, 1, None, None),
    "new user namespace": _call("unshare", _CLONE_NEWUSER),
    "mount": _call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "change root": _call("chroot", b"/tmp"),
    "change user": _call("setuid", 0),
    "set clock": _call("clock_settime", 0, _TIME),
    "set host name": _call("sethostname", b"edgekit-probe", 13),
    "load module": _system_call(_INIT_MODULE, 0, 0, 0),
    "load bpf": _system_call(_BPF, 0, 0, 0),
    "perf events": _system_call(_PERF_EVENT_OPEN, 0, 0, -1, -1, 0),
    "keyring": _system_call(_KEYCTL, 0, -3, 0),
    "reboot": _system_call(_REBOOT, *_REBOOT_MAGIC, 0),
    "kernel log": _read("/dev/kmsg"),
    "raw memory": _read("/dev/mem"),
    "real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
}

if __name__ == "__main__":
    sys.exit(main())
