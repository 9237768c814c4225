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


def main() -> int:
    """Try everything, print what happened; 0 when all of it was refused."""
    attempts = dict(_ATTEMPTS)
    if _is_engine():  # for the other two the writer's socket is their own work
        attempts["reach audit writer"] = _reach_audit_writer
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


def _run_from_tmp() -> None:
    path = Path("/tmp/edgekit-probe")  # noqa: S108 - the point is to try it
    path.write_bytes(b"#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    os.posix_spawn(str(path), [str(path)], {})


_ATTEMPTS: dict[str, Callable[[], None]] = {
    "connect ipv4": _connect(socket.AF_INET, "192.0.2.1"),
    "connect ipv6": _connect(socket.AF_INET6, "2001:db8::1"),
    "send datagram": _send_datagram,
    "see interfaces": _see_interfaces,
    "write /etc": _write("/etc/edgekit-probe"),
    "write /usr": _write("/usr/edgekit-probe"),
    "read api keys": _read("/etc/edgekit/local.key"),
    "read shadow": _read("/etc/shadow"),
    "read audit log": _list_audit_log,
    "writable code": _map_writable_code,
    "run from /tmp": _run_from_tmp,
}

if __name__ == "__main__":
    sys.exit(main())
