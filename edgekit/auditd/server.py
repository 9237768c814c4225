"""The audit writer's loop: collect what waits on every connection, commit it once, answer.

A large batch is answered after the next one was collected and sealed: the disk works meanwhile.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from edgekit.auditd.protocol import (
    MAX_DATAGRAM_BYTES,
    Wanted,
    encode_ack,
    encode_refusal,
    parse_datagram,
)
from edgekit.auditd.writer import Result, Writer
from edgekit.core.audit_checkpoint import Checkpoint
from edgekit.core.audit_record import REKEY, AuditEvent, own_event
from edgekit.errors import AuditUnavailableError

MAX_CONNECTIONS = 64
MAX_BATCH = 512
SETTLE_S = 1.0
"""At most so much later than a record: its head is durable, a signature that is owed is made."""

LEFT_LOOK_S = 1.0
GIVE_UP_S = 60.0
"""How long a gateway may take to answer a request that it recorded with an earlier writer."""

GATEWAY_LEFT = "the gateway left"

_UCRED = struct.Struct("3i")


@dataclass(slots=True)
class Peer:
    """A connected client, the user it runs as (SO_PEERCRED), and answers it has yet to read.

    While answers wait, nothing more is read from it, so they never exceed two batches.
    """

    sock: socket.socket
    uid: int
    answers: deque[bytes] = field(default_factory=deque)
    open: dict[str, None] = field(default_factory=dict)
    """Ids of its requests that have no response yet."""
    told: Checkpoint | None = None
    """The newest checkpoint it has heard of."""


Item = tuple[Peer, Wanted]


def listen(path: Path) -> socket.socket:
    """A listening SOCK_SEQPACKET socket, mode 0660. Replaces a stale socket, nothing else.

    Call with the log's lock held: then no other writer can be alive behind an existing socket.
    Raises AuditUnavailableError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    old_mask = os.umask(0o117)  # born with its final mode: no moment in which others may connect
    try:
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
        sock.bind(str(path))
        sock.listen(MAX_CONNECTIONS)
    except OSError as error:
        sock.close()
        raise AuditUnavailableError(
            "cannot listen on the audit socket", where=str(path), found=str(error)
        ) from error
    finally:
        os.umask(old_mask)
    return sock


class Server:
    """Serves one listener until `stopping` is readable or the log fails."""

    def __init__(
        self,
        writer: Writer,
        listener: socket.socket,
        stopping: socket.socket,
        *,
        ping: Callable[[], object],
        ping_every: float | None,
        left: Iterable[str] = (),
    ) -> None:
        """`left` are requests that an earlier writer left open."""
        self._writer = writer
        self._left = dict.fromkeys(left)
        self._given_up: dict[str, str] = {}
        self._listener = listener
        self._stopping = stopping
        self._ping = ping
        self._ping_every = ping_every
        self._peers: dict[int, Peer] = {}
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve. Raises AuditUnavailableError after answering everyone who waited."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._stopping, selectors.EVENT_READ)
        next_ping = next_settling = time.monotonic()
        give_up = next_ping + GIVE_UP_S
        while True:
            now = time.monotonic()
            if self._ping_every is not None and now >= next_ping:
                self._ping()
                next_ping = now + self._ping_every
            if now >= next_settling:
                # between batches, not within them: nobody waits for it
                self._writer.settle()
                next_settling = now + SETTLE_S
            if self._left and now >= give_up:
                self._given_up |= dict.fromkeys(self._left, "the audit writer ended")
                self._left.clear()
            patience_s = self._patience(next_settling - now)
            ready = {key.fd for key, _ in self._selector.select(patience_s)}
            self._deliver(ready)
            if items := self._collect(ready):
                self._commit(items)
            else:
                self._writer.finish()
            self._close_requests()
            if self._listener.fileno() in ready:
                self._accept()
            if self._stopping.fileno() in ready:
                self._writer.finish()
                return

    def _patience(self, settling_in_s: float) -> float:
        """Seconds until something is due even when nobody asks."""
        if self._writer.is_busy:
            return 0
        due = [self._writer.due_in_s(max(0, settling_in_s))]
        if self._ping_every is not None:
            due.append(self._ping_every)
        if self._left:
            due.append(LEFT_LOOK_S)
        return min(due)

    def close(self) -> None:
        """Close every connection."""
        for peer in list(self._peers.values()):
            self._drop(peer)
        self._selector.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # the client left between select and accept
        if len(self._peers) >= MAX_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _pid, uid, _gid = _UCRED.unpack(raw)
        self._peers[sock.fileno()] = Peer(sock, uid)
        self._selector.register(sock, selectors.EVENT_READ)

    def _drop(self, peer: Peer) -> None:
        if self._peers.pop(peer.sock.fileno(), None) is not None:
            self._selector.unregister(peer.sock)
            peer.sock.close()
            self._given_up |= dict.fromkeys(peer.open, GATEWAY_LEFT)

    def _collect(self, ready: set[int]) -> list[Item]:
        """What waits, at most MAX_BATCH; what stays in the sockets is taken next time round."""
        items: list[Item] = []
        for descriptor in ready & self._peers.keys():
            peer = self._peers[descriptor]
            while len(items) < MAX_BATCH and not peer.answers:
                data = self._receive(peer)
                if data is None:
                    break
                items.append((peer, parse_datagram(data, peer_uid=peer.uid)))
        return items

    def _receive(self, peer: Peer) -> bytes | None:
        """One datagram, or None when none waits or the peer is gone. Too long reads as empty."""
        try:
            data, _, flags, _ = peer.sock.recvmsg(MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            self._drop(peer)
            return None
        if flags & socket.MSG_TRUNC:
            return b"{"  # no record: refused as such by the parser
        if not data:
            self._drop(peer)
            return None
        return data

    def _commit(self, items: list[Item]) -> None:
        """Group commit: one write and one sync for all, then each its answer."""
        wanted: list[tuple[Peer, int, AuditEvent]] = []
        for peer, wish in items:
            if wish.event is None or wish.number is None:
                self._answer(peer, encode_refusal(wish.number, wish.refusal))
            elif wish.event.fields["type"] == REKEY:
                self._rekey(peer, wish.number, wish.event)
            else:
                wanted.append((peer, wish.number, wish.event))
        events = [event for _, _, event in wanted]
        self._writer.commit(events, lambda results: self._tell(wanted, results))

    def _rekey(self, peer: Peer, number: int, event: AuditEvent) -> None:
        """For root, or who runs the writer."""
        if peer.uid in (0, os.geteuid()):
            asked = [(peer, number, event)]
            self._writer.rekey(event, lambda results: self._tell(asked, results))
        else:
            self._answer(peer, encode_refusal(number, "a new MAC key is root's to ask for"))

    def _tell(self, wanted: list[tuple[Peer, int, AuditEvent]], results: Sequence[Result]) -> None:
        """Each its answer: what it sent is durable, or why not."""
        for (peer, number, event), result in zip(wanted, results, strict=True):
            if isinstance(result, str):
                self._answer(peer, encode_refusal(number, result))
            else:
                self._track(peer, event)
                news = self._writer.signed if self._writer.signed is not peer.told else None
                peer.told = self._writer.signed
                self._answer(peer, encode_ack(number, result, self._writer.level, news))

    def _track(self, peer: Peer, event: AuditEvent) -> None:
        """Remember which requests are open, and whose they are.

        A peer may be gone already: its last words were read together with its end.
        """
        request = event.fields.get("request_id")
        if not isinstance(request, str):
            return
        if event.fields["type"] == "request":
            if peer.sock.fileno() < 0:
                self._given_up[request] = GATEWAY_LEFT
            else:
                peer.open[request] = None
        elif event.fields["type"] == "response":
            self._left.pop(request, None)
            self._given_up.pop(request, None)
            for other in self._peers.values():
                other.open.pop(request, None)

    def _close_requests(self) -> None:
        """Record the end of requests that nobody will answer any more."""
        given_up = list(islice(self._given_up.items(), MAX_BATCH))
        if given_up:
            self._writer.note(
                own_event("orphaned", unit="auditd", request_id=request, reason=reason)
                for request, reason in given_up
            )
        for request, _ in given_up:
            del self._given_up[request]

    def _answer(self, peer: Peer, data: bytes) -> None:
        if peer.sock.fileno() < 0:
            return  # it left in the meantime
        peer.answers.append(data)
        if len(peer.answers) == 1:
            self._flush(peer)

    def _deliver(self, ready: set[int]) -> None:
        for descriptor in ready & self._peers.keys():
            if self._peers[descriptor].answers:
                self._flush(self._peers[descriptor])

    def _flush(self, peer: Peer) -> None:
        """Send what the peer takes; wait for it to read the rest."""
        try:
            while peer.answers:
                peer.sock.send(peer.answers[0])
                peer.answers.popleft()
        except BlockingIOError:
            self._selector.modify(peer.sock, selectors.EVENT_WRITE)
        except OSError:
            self._drop(peer)
        else:
            self._selector.modify(peer.sock, selectors.EVENT_READ)
