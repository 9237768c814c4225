"""Uvicorn around the gateway: its limits, its listeners, and what the service manager is told."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from edgekit.gateway.protocol import KEEP_ALIVE_S, LimitedProtocol
from edgekit.system.notify import notify

BACKLOG = 1024
GRACE_S = 10
HANDSHAKE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, and how its connections are encrypted (None: not at all)."""

    sock: socket.socket
    tls: ssl.SSLContext | None = None


class Server(uvicorn.Server):
    """Serves an ASGI application on several listeners."""

    def __init__(self, application: Any, listeners: Sequence[Listener]) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=LimitedProtocol,
                ws="none",
                lifespan="off",
                log_level="critical",  # it logs at the pace of strangers
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._listeners = tuple(listeners)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Listen on every listener and tell the manager."""
        await self.lifespan.startup()
        self.servers = [await self._listen(listener) for listener in self._listeners]
        self.started = True
        notify("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way and tell the manager."""
        notify("STOPPING=1")
        await super().shutdown(sockets=sockets)

    async def _listen(self, listener: Listener) -> asyncio.Server:
        # accepted connections inherit it; asyncio sets it only where it can see the protocol
        listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return await asyncio.get_running_loop().create_server(
            lambda: LimitedProtocol(self.config, self.server_state, self.lifespan.state),
            sock=listener.sock,
            ssl=listener.tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if listener.tls else None,
        )
