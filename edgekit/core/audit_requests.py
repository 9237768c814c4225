"""Which requests in a log have no response. Lines are looked into, not parsed."""

from __future__ import annotations

from collections.abc import Iterator

_TYPE = b'"type":"'
_REQUEST_ID = b'"request_id":"'


def record_kind(line: bytes) -> bytes:
    """A record's type, unless a table in it has a later field called type."""
    start = line.rfind(_TYPE) + len(_TYPE)
    return line[start : line.find(b'"', start)]


class OpenRequests:
    """Ids of requests that were neither answered nor given up."""

    def __init__(self) -> None:
        self._ids: dict[bytes, None] = {}
        self._ended: set[bytes] = set()
        """Of requests that were made before the first record that was added."""

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        """The ids, oldest first."""
        return (identity.decode("ascii", "replace") for identity in self._ids)

    def add(self, kind: bytes, line: bytes) -> None:
        """One more record, in the order of the log."""
        if kind == b"request":
            self._ids[_request_id(line)] = None
        elif kind in (b"response", b"orphaned"):
            request = _request_id(line)
            if request in self._ids:
                del self._ids[request]
            else:
                self._ended.add(request)

    def join(self, later: OpenRequests) -> None:
        """Go on with what was added elsewhere, of later records."""
        for request in later._ended:
            if request in self._ids:
                del self._ids[request]
            else:
                self._ended.add(request)
        self._ids |= later._ids


def _request_id(line: bytes) -> bytes:
    return line.partition(_REQUEST_ID)[2].partition(b'"')[0]
