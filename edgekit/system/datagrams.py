"""Datagrams to a local socket that may be slow, full or absent: sent in order, or not yet."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

_LATER = {
    errno.EAGAIN,
    errno.ENOBUFS,
    errno.ENOENT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ENOTCONN,
    errno.EPIPE,
}
"""The receiver is behind, restarting or not there: what waits is still to be sent."""

SEND_BUFFER_BYTES = 1 << 20


class DatagramSender:
    """A socket that never blocks and connects again when the receiver comes back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock: socket.socket | None = None

    @property
    def waitable(self) -> socket.socket | None:
        """What becomes writable when a full receiver has room again; None when not connected."""
        return self._sock

    def send(self, data: bytes) -> bool:
        """True when the kernel took it; False when the receiver cannot take it now.

        Raises OSError for anything that waiting does not cure.
        """
        try:
            if self._sock is None:
                self._sock = self._connected()
            self._sock.send(data)
        except OSError as error:
            if error.errno not in _LATER:
                raise
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self.close()
            return False
        return True

    def close(self) -> None:
        """Let go of the socket."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            # a record is up to 16 KiB and more when escaped; the default buffer may be smaller
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        return sock
