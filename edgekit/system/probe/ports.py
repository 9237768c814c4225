"""What listens already, from the kernel's socket tables."""

from __future__ import annotations

import ipaddress
import sys

from edgekit.core.facts import Fact
from edgekit.system.probe.view import HostView

_LISTENING = "0A"
_MAX_PORTS = 200


def probe_listening(view: HostView) -> Fact[tuple[str, ...]]:
    """TCP addresses that something listens on, sorted by port."""
    found: set[tuple[int, str]] = set()
    for name in ("tcp", "tcp6"):
        for line in (view.text(f"proc/net/{name}") or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTENING:
                address, _, port = fields[1].partition(":")
                found.add((int(port, 16), _address(address)))
    return Fact(tuple(f"{a}:{p}" for p, a in sorted(found)[:_MAX_PORTS]), "/proc/net/tcp, tcp6")


def _address(text: str) -> str:
    """The kernel writes an address as words in the machine's own byte order."""
    words = [bytes.fromhex(text[i : i + 8]) for i in range(0, len(text), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    address = ipaddress.ip_address(b"".join(words))
    return f"[{address}]" if address.version == 6 else str(address)
