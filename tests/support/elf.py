"""Small ELF shared objects, made by hand, that need chosen symbol versions."""

from __future__ import annotations

import struct

BASE = 0x400000


def make_elf(*versions: str, library: str = "libc.so.6", chain_ok: bool = True) -> bytes:
    """A 64-bit little-endian ELF file with one version need naming these versions."""
    strings = b"\0" + library.encode() + b"\0"
    offsets = []
    for version in versions:
        offsets.append(len(strings))
        strings += version.encode() + b"\0"
    header, table = 64, 2 * 56
    needs = header + table
    need = struct.pack("<HHIII", 1, len(versions), 1, 16, 0)
    for index, offset in enumerate(offsets):
        last = index == len(offsets) - 1
        need += struct.pack("<IHHII", 0, 0, index + 2, offset, 0 if last else 16)
    string_place = needs + len(need)
    dynamic_place = string_place + len(strings)
    address = BASE if chain_ok else BASE * 2
    tags = [(5, BASE + string_place), (10, len(strings)), (0x6FFFFFFE, address + needs),
            (0x6FFFFFFF, 1), (0, 0)]
    if not versions:
        tags = [*tags[:2], (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    total = dynamic_place + len(dynamic)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, total, total, 4096)
    dyn = struct.pack("<IIQQQQQQ", 2, 6, dynamic_place, BASE + dynamic_place,
                      BASE + dynamic_place, len(dynamic), len(dynamic), 8)
    return head + load + dyn + need + strings + dynamic
