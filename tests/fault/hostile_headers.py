"""`python -m tests.fault.hostile_headers SET HEADROOM_MIB`: documents made to exhaust a reader.

Each takes the place of `release.json` or of the next root in a good set, where nothing has been
verified yet. A reader whose address space is limited to what it has plus some room must refuse
each with a format or shape error, never with MemoryError, and soon. Prints one line per document.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edgekit.core.trust import MAX_RELEASE_BYTES, restore_root
from edgekit.errors import EdgekitError
from edgekit.system.bundle_set import open_set, verify_set
from edgekit.system.trust_store import HostTrust

MIB = 1 << 20
SIZE = MAX_RELEASE_BYTES
NAMES = ("release.json", "trust/2.root.json")


def hostile() -> Iterator[tuple[str, bytes | int]]:
    """Names and bytes; a number is the size of a file of zeros that takes no room."""
    yield "ten terabytes", 10 << 40
    yield "one byte above the limit", SIZE + 1
    yield "all zeros", SIZE
    yield "brackets only", b"[" * SIZE
    yield "braces only", b'{"a":' * (SIZE // 5)
    yield "brackets in a long text", b'"' + b"[" * (SIZE - 2) + b'"'
    yield "a text that never ends", b'"' + b"a" * (SIZE - 1)
    yield "backslashes only", b'"' + b"\\" * (SIZE - 1)
    yield "escapes only", b'"' + b"\\u0041" * (SIZE // 6 - 1) + b'"'
    yield "one number", b"9" * SIZE
    yield "many numbers", b"[" + b"1," * (SIZE // 2 - 2) + b"1]"
    yield "a huge exponent", b"[1e999999999]"
    yield "many keys, the last twice", _object([*(f"{n:x}" for n in range(SIZE // 10)), "0"])
    yield "one key many times", _object(["a"] * (SIZE // 7))
    yield "lists in lists in lists", _wide(SIZE)
    yield "not UTF-8", b"\xff" * SIZE
    yield "a byte order mark", b"\xef\xbb\xbf{}"
    yield "a payload as large as can be", _envelope(b"{" * (SIZE // 4 * 3 - 200))
    yield "a payload of brackets", _envelope(b"[" * 100_000)
    yield "more signatures than allowed", _envelope(b"{}", count=65)
    yield "signatures as long as can be", _envelope(b"{}", count=20, length=16 << 10)
    yield "a signature that is too long", _envelope(b"{}", count=1, length=300_000)
    yield "one key id many times", _envelope(b"{}", count=60, keyid="0" * 64)


def _object(names: list[str]) -> bytes:
    return ("{" + ",".join(f'"{name}":1' for name in names) + "}").encode()


def _wide(size: int) -> bytes:
    return b"[" + b",".join([b"[[[[[[[[[[[[[[]]]]]]]]]]]]]]"] * (size // 30)) + b"]"


def _envelope(payload: bytes, count: int = 1, length: int = 64, keyid: str = "") -> bytes:
    signature = base64.b64encode(bytes(length)).decode()
    return json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": "application/vnd.tuf+json",
            "signatures": [
                {"keyid": keyid or f"{n:064x}", "sig": signature} for n in range(count)
            ],
        },
        sort_keys=True, separators=(",", ":"),
    ).encode()


def main(folder: Path, headroom: int) -> None:
    """Read every document in this one process."""
    host = HostTrust(restore_root((folder / "trust/1.root.json").read_bytes()))
    verify_set(open_set((folder,)), host)  # what is imported late is imported now
    documents = list(hostile())
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmSize:\s+(\d+) kB", status)
    assert found is not None
    limit = (int(found[1]) << 10) + (headroom << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for place in NAMES:
        good = (folder / place).read_bytes() if (folder / place).exists() else None
        for name, data in documents:
            with (folder / place).open("wb") as file:
                if isinstance(data, int):
                    os.truncate(file.fileno(), data)
                else:
                    file.write(data)
            started = time.monotonic()
            outcome = _outcome(folder, host)
            print(f"{place}\t{name}\t{outcome}\t{time.monotonic() - started:.2f}")
        (folder / place).unlink() if good is None else (folder / place).write_bytes(good)


def _outcome(folder: Path, host: HostTrust) -> str:
    try:
        verify_set(open_set((folder,)), host)
    except EdgekitError as error:
        return type(error).__name__
    except MemoryError:
        return "MemoryError"
    return "accepted"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
