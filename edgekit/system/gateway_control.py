"""Hand the running gateway a new set of API keys: one message, one answer, over a unix socket.

The socket is for root alone (and, in a private root, for the user that runs it): the gateway asks
the kernel who calls. A message is the keys file, ended by shutting down the sending side.
"""

from __future__ import annotations

import socket
from pathlib import Path

from edgekit.errors import EngineNotReadyError, HostError

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1000
ACCEPTED = b"ok"


def push_keys(path: Path, keys_file: bytes) -> None:
    """Put these keys in force now; returns when they are.

    Raises EngineNotReadyError when no gateway runs (it reads the file when it starts), HostError
    when it refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.connect(str(path))
            sock.sendall(keys_file)
            sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(MAX_ANSWER_BYTES)
    except OSError as error:
        raise EngineNotReadyError(
            "the gateway does not run", where=str(path), found=str(error)
        ) from error
    if answer != ACCEPTED:
        raise HostError(
            "the gateway did not take the keys",
            where=str(path),
            found=answer.decode(errors="replace") or "no answer",
        )
