"""Pictures made by hand: flat colours as PNG, and the heads of other kinds."""

from __future__ import annotations

import base64
import struct
import zlib

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    colour: tuple[int, int, int] = RED, width: int = 20, height: int = 20, *,
    data: bytes | None = None, depth: int = 8, kind: int = 2,
) -> bytes:
    """A flat picture; `data` takes the place of the rows that it should have."""
    rows = b"".join(b"\0" + bytes(colour) * width for _ in range(height)) if data is None else data
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows))
            + _chunk(b"IEND", b""))


def jpeg(width: int = 20, height: int = 20, *, scans: int = 1, before: bytes = b"") -> bytes:
    """The head of a JPEG file, and so many scans without content."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + before + frame + b"\xff\xda\x00\x02" * scans + b"\xff\xd9"


def gif(width: int = 20, height: int = 20) -> bytes:
    """The head of a GIF file."""
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0;"


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def plain(data: bytes) -> str:
    return base64.b64encode(data).decode()
