"""A place without a network, for trying what must not need one: `python -m edgekit.system.netless`.

    python -m edgekit.system.netless PROGRAM [ARGUMENT...]

starts the program in a network namespace of its own: loopback is up, nothing else is there, and
names are asked of an address that cannot be reached. Root makes the namespaces as it is, others as
root of a user namespace of their own. What the program tried to send is counted by the kernel.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x4_0000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_RESOLVER = Path("/etc/resolv.conf")
_NOWHERE = "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n"
"""TEST-NET-1 of RFC 5737. A nameserver on loopback would hide a question from the counters."""
CANNOT = 97
"""Exit status when no such namespace can be made."""


def netless_command(argv: Sequence[str]) -> tuple[str, ...]:
    """The command that starts `argv` there. The connected side only: it needs a Python."""
    return (sys.executable, "-m", "edgekit.system.netless", *argv)


def count_attempts(pid: int) -> int:
    """How often anything in that process's network had no route for what it sent.

    OutNoRoutes of IPv4 and IPv6 (Linux Documentation/networking/snmp_counter.rst): the kernel adds
    one for every connection and datagram to an address that is not on this machine.
    """
    snmp = Path(f"/proc/{pid}/net/snmp").read_text("ascii")
    newer = Path(f"/proc/{pid}/net/snmp6")
    total = 0
    rows = [line.split() for line in snmp.splitlines() if line.startswith("Ip:")]
    if len(rows) == 2:
        total += int(dict(zip(rows[0], rows[1], strict=True))["OutNoRoutes"])
    lines = newer.read_text("ascii").splitlines() if newer.exists() else []
    return total + sum(int(line.split()[1]) for line in lines if line.startswith("Ip6OutNoRoutes"))


def main() -> None:
    """Make the place and become the program."""
    try:
        _leave_network()
    except OSError as error:
        print(f"no network namespace can be made here: {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the point of this program


def _leave_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    kinds = _CLONE_NEWNET | _CLONE_NEWNS
    if user != 0:
        kinds |= _CLONE_NEWUSER
    _check(libc.unshare(kinds))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny", "ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", "ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", "ascii")
    _check(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    _hide_nameservers(libc)
    _raise_loopback()


def _hide_nameservers(libc: ctypes.CDLL) -> None:
    """glibc asks loopback without the file, which no counter shows; so only a file is covered."""
    if not _RESOLVER.exists():
        return
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(_NOWHERE)
        file.flush()
        target = bytes(_RESOLVER.resolve())
        _check(libc.mount(file.name.encode(), target, None, _MS_BIND, None))


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
