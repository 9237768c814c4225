"""How much one datagram of the audit socket carries: one JSON table a line, several lines at once.

Sending is what a busy gateway pays most for, so what waits at the same moment goes out together.
The tables: `auditd.protocol`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MAX_QUESTIONS_BYTES = 64 << 10
MAX_ANSWERS_BYTES = 4096
MAX_LINES = 256


def join_lines(lines: Iterable[bytes], max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The lines as datagrams, and how many each holds; a line that is longer goes alone."""
    taken: list[bytes] = []
    size = 0
    for line in lines:
        if taken and (size + len(line) > max_bytes or len(taken) == MAX_LINES):
            yield len(taken), b"\n".join(taken)
            taken, size = [], 0
        taken.append(line)
        size += len(line) + 1
    if taken:
        yield len(taken), b"\n".join(taken)
