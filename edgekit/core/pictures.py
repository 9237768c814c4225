"""Pictures that clients send: what their first bytes say, before an engine decodes them. Pure.

PNG, JPEG and GIF, which is what llama.cpp's decoder (stb_image) knows of what browsers make. It
takes further formats, asks a program for those that it does not know, and believes sizes in a file.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from dataclasses import dataclass

from edgekit.errors import FormatError

MAX_PICTURES = 8
"""In one request."""
MAX_PIXELS = 4 << 20
"""Of one picture, 2048 by 2048: more than the models here look at, and what memory is planned for.
"""
MAX_ALL_PIXELS = 8 << 20
"""Of a request's pictures together."""
DECODED_BYTES = 20
"""The most that decoding takes for each pixel: a PNG file is unpacked, unfiltered and converted."""
MAX_SIDE = 1 << 14
MAX_SCANS = 64
"""Of a JPEG file: each goes over the whole picture again."""
_DATA_URL = re.compile(r"data:[\w.+-]{1,60}/[\w.+-]{1,60};base64,", re.ASCII)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's bytes, and what its header says: kind, width and height in pixels."""

    data: bytes
    kind: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width by height."""
        return self.width * self.height


def read_data_url(url: str) -> Picture:
    """The picture in a `data:` URL. Raises FormatError; no other kind of URL is ever followed."""
    match = _DATA_URL.match(url[:200])
    if match is None:
        raise FormatError("must be a data: URL with base64; nothing is fetched")
    return read_base64(url[match.end():])


def read_base64(text: str) -> Picture:
    """The picture in base64 text. Raises FormatError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError("is not base64") from error
    return read_picture(data)


def read_picture(data: bytes) -> Picture:
    """What the header of a picture says, within the limits. Raises FormatError."""
    try:
        kind, width, height = _header(data)
    except (struct.error, IndexError) as error:
        raise FormatError("is cut short") from error
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE) or width * height > MAX_PIXELS:
        raise FormatError(f"has {width} by {height} pixels; at most {MAX_PIXELS} are taken")
    return Picture(data, kind, width, height)


def _header(data: bytes) -> tuple[str, int, int]:
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return "png", *struct.unpack(">II", data[16:24])
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif", *struct.unpack("<HH", data[6:10])
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg", *_jpeg_size(data)
    raise FormatError("is neither PNG, JPEG nor GIF")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """From the frame header; segments before it are stepped over."""
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise FormatError(f"has more than {MAX_SCANS} scans")
    place = 2
    while True:
        if data[place] != 0xFF:
            raise FormatError("is not a well-formed JPEG file")
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        (length,) = struct.unpack(">H", data[place + 2 : place + 4])
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        if marker in (0xD8, 0xD9, 0xDA) or length < 2:
            raise FormatError("has no frame that is known")
        place += 2 + length


def check_expansion(picture: Picture) -> None:
    """Refuse a PNG whose data unpack to more than its header says: a decoder may keep it all.

    Takes as long as unpacking does, and a MiB of memory. Raises FormatError.
    """
    if picture.kind != "png":
        return
    data = picture.data
    depth, colour, _, _, interlaced = data[24:29]
    if colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise FormatError("is not a well-formed PNG file")
    rows = picture.height * (2 if interlaced else 1) + 8
    room = rows * (1 + -(-picture.width * depth * _CHANNELS[colour] // 8)) + 64
    if room > 5 * MAX_PIXELS:  # 16 bits for each channel
        raise FormatError("has too many pixels for so many bits")
    unpacker = zlib.decompressobj()
    try:
        for chunk in _png_data(data):
            while chunk:
                room -= len(unpacker.decompress(chunk, _STEP))
                chunk = unpacker.unconsumed_tail  # noqa: PLW2901 - what is left of it
                if room < 0:
                    raise FormatError("unpacks to more than its header says")
    except zlib.error as error:
        raise FormatError("is not a well-formed PNG file") from error


def _png_data(data: bytes) -> list[bytes]:
    chunks, place = [], 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"IDAT":
            chunks.append(data[place + 8 : place + 8 + length])
        place += 12 + length
    return chunks
