"""`python -m tests.audit.kills_engine BUG SOCKET SEEN`: the fake engine of the kill suite.

The text of every prompt is a line of the file SEEN before anything else happens with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from tests.support.fake_engine import FakeEngine

TOKEN_S = 0.003


class Seen(list[dict[str, Any]]):
    """The engine's requests; the text of each is also a line of a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, request: dict[str, Any]) -> None:
        os.write(self._file, request["messages"][-1]["content"].encode() + b"\n")


async def serve(socket_path: str, seen: str) -> None:
    """Until killed."""
    Path(socket_path).unlink(missing_ok=True)
    await FakeEngine(socket_path, TOKEN_S, requests=Seen(seen)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[2:]))
