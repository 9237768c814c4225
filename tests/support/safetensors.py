"""Tiny safetensors files, made by hand: right by default, wrong on request."""

from __future__ import annotations

import json
import struct
from typing import Any


def tensor(start: int = 0, end: int = 32, dtype: str = "F32", shape: Any = None) -> dict[str, Any]:
    """A tensor's line in the header; eight floats unless told otherwise."""
    return {"dtype": dtype, "shape": [8] if shape is None else shape, "data_offsets": [start, end]}


def safetensors(
    table: Any = None, *, data: bytes = bytes(64), raw: bytes | None = None,
    claimed: int | None = None,
) -> bytes:
    """A file; `raw` replaces the JSON header, `claimed` the header's length."""
    if table is None:
        table = {"__metadata__": {"format": "pt"}, "a": tensor(), "b": tensor(32, 64)}
    header = json.dumps(table).encode() if raw is None else raw
    length = len(header) if claimed is None else claimed
    return struct.pack("<Q", length) + header + data
