"""What an engine said about its memory, kept beside its socket by the supervisor."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.core.fields import Fields
from edgekit.core.planning.engine_report import REPORT_SUFFIX, Buffer, buffers_table
from edgekit.core.strict_json import parse_strict
from edgekit.errors import HostError
from edgekit.system.files import read_bounded

MAX_REPORT_BYTES = 1 << 20
REPORT_MODE = 0o640
"""The gateway, in the same group, reads it; nobody else has to."""


def report_path(socket: Path) -> Path:
    """Where the report of the engine with this socket lies."""
    return socket.with_name(socket.stem + REPORT_SUFFIX)


def keep_report(socket: Path, buffers: tuple[Buffer, ...]) -> None:
    """Keep what the engine reported. Raises OSError."""
    path = report_path(socket)
    path.write_text(json.dumps(buffers_table(buffers)), "utf-8")
    path.chmod(REPORT_MODE)


def read_report(socket: Path) -> tuple[Buffer, ...]:
    """What the engine with this socket reported; nothing when it did not. Raises FormatError."""
    try:
        data = read_bounded(report_path(socket), MAX_REPORT_BYTES, "engine report")
    except HostError:
        return ()
    fields = Fields(parse_strict(data, max_bytes=MAX_REPORT_BYTES, what="engine report"))
    fields.text("schema", choices=("edgekit.engine-report/1",))
    found = []
    for item in fields.items("buffers", max_items=256):
        size = "size" if "size" in item else "bytes"  # what releases before vLLM's reports wrote
        found.append(
            Buffer(
                item.text("kind"), item.text("device"), item.integer(size, low=0, high=1 << 50)
            )
        )
        item.finish()
    fields.finish()
    return tuple(found)
