"""Which GNU C library an ELF file needs, read the way the loader reads it.

The version needs are found through the program headers and the dynamic section (System V ABI, and
the GNU symbol versioning of the LSB Core specification, section 10.7); section headers may be
stripped and are not trusted. Every offset is checked before it is used, every list has a limit.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from typing import TypeAlias

from edgekit.errors import FormatError

ElfBytes: TypeAlias = "bytes | memoryview | mmap.mmap"

MAGIC = b"\x7fELF"
MAX_PROGRAM_HEADERS = 512
MAX_DYNAMIC_ENTRIES = 4096
MAX_NEEDS = 4096
MAX_NAME_BYTES = 256

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_STRTAB, _DT_STRSZ = 0, 5, 10
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_RELR = b"GLIBC_ABI_DT_RELR"
_RELR_SINCE = (2, 36)
_VERSION = re.compile(rb"GLIBC_(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?")

Segment: TypeAlias = tuple[int, int, int]
"""Of a loaded segment: virtual address, file offset, size in the file (bytes)."""


def is_elf(head: bytes) -> bool:
    """True when these first bytes of a file are an ELF file's."""
    return head[:4] == MAGIC


def needed_glibc(data: ElfBytes) -> tuple[int, int] | None:
    """The newest GLIBC_x.y that a 64-bit little-endian ELF file needs, or None when it needs none.

    Raises FormatError for anything that is not such a file or points outside itself.
    """
    if bytes(data[:6]) != MAGIC + b"\x02\x01":
        raise FormatError("not a 64-bit little-endian ELF file", found=bytes(data[:6]).hex())
    segments, dynamic = _segments(data)
    if dynamic is None:
        return None
    tags = _dynamic(data, dynamic)
    if _DT_VERNEED not in tags:
        return None
    strings = _string_table(data, segments, tags)
    count = tags.get(_DT_VERNEEDNUM, 0)
    if count > MAX_NEEDS:
        raise _malformed(f"{count} version needs")
    start = _offset(segments, tags[_DT_VERNEED])
    versions = [_version(_string(strings, name)) for name in _need_names(data, start, count)]
    return max((version for version in versions if version is not None), default=None)


def _segments(data: ElfBytes) -> tuple[list[Segment], tuple[int, int] | None]:
    """Loaded segments, and the dynamic section's (offset, size) when there is one."""
    (table,) = _unpack("<Q", data, 32)
    entry_size, count = _unpack("<HH", data, 54)
    if count > MAX_PROGRAM_HEADERS or (count and entry_size != 56):
        raise _malformed(f"{count} program headers of {entry_size} bytes")
    loaded: list[Segment] = []
    dynamic = None
    for index in range(count):
        fields = _unpack("<IIQQQQQQ", data, table + index * 56)
        kind, _, offset, address, _, size = fields[:6]
        if kind == _PT_LOAD:
            loaded.append((address, offset, size))
        elif kind == _PT_DYNAMIC and size:
            dynamic = (offset, size)
    return loaded, dynamic


def _dynamic(data: ElfBytes, place: tuple[int, int]) -> dict[int, int]:
    offset, size = place
    tags: dict[int, int] = {}
    for index in range(min(size // 16, MAX_DYNAMIC_ENTRIES)):
        tag, value = _unpack("<QQ", data, offset + index * 16)
        if tag == _DT_NULL:
            break
        tags.setdefault(tag, value)
    return tags


def _string_table(
    data: ElfBytes, segments: list[Segment], tags: dict[int, int]
) -> tuple[ElfBytes, int, int]:
    """The dynamic strings as (data, first offset, end offset)."""
    start = _offset(segments, tags.get(_DT_STRTAB, 0))
    end = start + tags.get(_DT_STRSZ, 0)
    if end > len(data):
        raise _malformed("the string table ends outside the file")
    return data, start, end


def _need_names(data: ElfBytes, start: int, count: int) -> Iterator[int]:
    """The string offset of every version name needed (Verneed and Vernaux records)."""
    position = start
    for _ in range(count):
        _, names, _, first, following = _unpack("<HHIII", data, position)
        if names > MAX_NEEDS:
            raise _malformed(f"{names} names in one version need")
        inner = position + first
        for _ in range(names):
            _, _, _, name, step = _unpack("<IHHII", data, inner)
            yield name
            inner += step
            if not step:
                break
        position += following
        if not following:
            break


def _offset(segments: list[Segment], address: int) -> int:
    for start, offset, size in segments:
        if start <= address < start + size:
            return offset + address - start
    raise _malformed(f"address {address:#x} is in no loaded segment")


def _string(table: tuple[ElfBytes, int, int], offset: int) -> bytes:
    data, start, end = table
    if start + offset >= end:
        raise _malformed("a name starts outside the string table")
    raw = bytes(data[start + offset : min(end, start + offset + MAX_NAME_BYTES)])
    name, terminator, _ = raw.partition(b"\0")
    if not terminator:
        raise _malformed("a name does not end")
    return name


def _version(name: bytes) -> tuple[int, int] | None:
    if name == _RELR:
        return _RELR_SINCE
    match = _VERSION.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def _unpack(layout: str, data: ElfBytes, offset: int) -> tuple[int, ...]:
    size = struct.calcsize(layout)
    if offset + size > len(data):
        raise _malformed(f"offset {offset} is outside the file")
    return struct.unpack(layout, data[offset : offset + size])


def _malformed(text: str) -> FormatError:
    return FormatError("malformed ELF file", found=text)
