"""Read an audit log as it grows, hands off the writer: whole lines, in order, none twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgekit.core.audit_chain import LogLine
from edgekit.core.audit_record import MAX_LINE_BYTES
from edgekit.errors import AuditFormatError, AuditUnavailableError
from edgekit.system.audit_files import log_segments


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next line begins: a segment's file name and a byte offset in it."""

    segment: str
    offset: int

    @classmethod
    def after(cls, line: LogLine) -> Place:
        """Right behind a line."""
        return cls(line.segment, line.offset + len(line.data) + 1)


class Follower:
    """Reads on from a place (None: from the oldest segment's start). Close it with `close`."""

    def __init__(self, directory: Path, place: Place | None = None) -> None:
        self._directory = directory
        self._place = place
        self._file: BinaryIO | None = None

    def read(self, max_lines: int = 512) -> list[LogLine]:
        """What is there by now, at most `max_lines`; empty when nothing new was written.

        Raises AuditUnavailableError when the log cannot be read, AuditFormatError for a line that
        is no record.
        """
        try:
            lines = self._read(max_lines)
            if not lines and self._advance():
                lines = self._read(max_lines)
        except OSError as error:
            raise AuditUnavailableError(
                "cannot read the audit log", where=str(self._directory), found=error.strerror
            ) from error
        return lines

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, max_lines: int) -> list[LogLine]:
        if self._place is None:
            return []
        if self._file is None:
            self._file = (self._directory / self._place.segment).open("rb")
        lines: list[LogLine] = []
        self._file.seek(self._place.offset)
        while len(lines) < max_lines:
            data = self._file.readline(MAX_LINE_BYTES + 2)
            if not data.endswith(b"\n"):
                if len(data) > MAX_LINE_BYTES:
                    where = f"{self._place.segment}: byte {self._place.offset}"
                    raise AuditFormatError("not an audit record", where=where)
                break  # the writer is in the middle of it
            line = LogLine(self._place.segment, self._place.offset, data[:-1])
            lines.append(line)
            self._place = Place.after(line)
        return lines

    def _advance(self) -> bool:
        """Go on to the next segment, if there is one and the present one is read to its end.

        A segment gets no more lines once the next one exists, so it is read once more after that.
        """
        segments = [path.name for path in log_segments(self._directory)]
        if self._place is None:
            later = segments
        else:
            later = [name for name in segments if name > self._place.segment]
            if not later or self._has_more():
                return bool(later)
        if not later:
            return False
        self.close()
        self._place = Place(later[0], 0)
        return True

    def _has_more(self) -> bool:
        if self._file is None or self._place is None:
            return False
        self._file.seek(self._place.offset)
        return self._file.readline(MAX_LINE_BYTES + 2).endswith(b"\n")
