"""The gateway's control socket: root hands over the keys file, and it is in force at once."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from edgekit.core.api_keys import MAX_BYTES, KeyRing, parse_keys
from edgekit.errors import FormatError, HostError
from edgekit.system.gateway_control import ACCEPTED, TIMEOUT_S

_UCRED = struct.Struct("3i")


async def listen(path: Path, accept: Callable[[KeyRing], None]) -> asyncio.Server:
    """Serve the socket at `path`; `accept` gets every set of keys. Raises HostError."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await _answer(reader, writer, accept))
            await writer.drain()
        except OSError:
            pass  # it left before its answer
        finally:
            writer.close()

    try:
        path.unlink(missing_ok=True)
        return await asyncio.start_unix_server(serve, path)
    except OSError as error:
        raise HostError(
            "cannot listen on the control socket", where=str(path), found=str(error)
        ) from error


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accept: Callable[[KeyRing], None]
) -> bytes:
    if _caller(writer) not in (0, os.getuid()):
        return b"this socket is for root"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            data = await reader.read(MAX_BYTES + 1)
            while len(data) <= MAX_BYTES and (more := await reader.read(MAX_BYTES)):
                data += more
        accept(parse_keys(data))
    except TimeoutError:
        return b"the message did not arrive in time"
    except FormatError as error:
        return error.message.encode()
    return ACCEPTED


def _caller(writer: asyncio.StreamWriter) -> int:
    sock = writer.get_extra_info("socket")
    _pid, uid, _gid = _UCRED.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    return int(uid)
