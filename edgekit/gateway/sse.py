"""Server-sent events out of a byte stream, in whatever pieces it arrives."""

from __future__ import annotations

from edgekit.errors import EngineError

MAX_EVENT_BYTES = 8 << 20


class SseParser:
    """Collects bytes and gives back the payloads of whole events; comments are swallowed."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The `data:` payloads of the events these bytes complete. Raises EngineError."""
        buffer = self._buffer + data
        if b"\r" in buffer:
            buffer = buffer.replace(b"\r\n", b"\n")
        *events, self._buffer = buffer.split(b"\n\n")
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise EngineError("an event of the engine has no end")
        return [payload for event in events if (payload := _payload(event))]


def _payload(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [
        line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
    ]
    return b"\n".join(lines)
