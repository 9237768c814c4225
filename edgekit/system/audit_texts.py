"""Kept texts on disk: one side file each, below a folder for the day it was written.

    <folder>/2026-11-25/<request id>.<part>.text

A file is durable before the record that names it; one without a record is what a crash leaves and
harms nothing. What is inside: `core.audit_texts`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgekit.core.audit_texts import MAX_LINE_BYTES, MAX_TEXT_BYTES, TextLabel, parse_text
from edgekit.errors import HostError
from edgekit.system.files import durable_write, fsync_directory, read_bounded, translate_os_error

_SUFFIX = ".text"
_REQUEST = re.compile(r"[A-Za-z0-9-]{1,80}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class TextStore:
    """The kept texts below one folder, which is made on first use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, label: TextLabel, data: bytes) -> str:
        """Make a side file durable; returns its SHA-384 in hex. Raises HostError, DiskFullError."""
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=label.t_utc)
        folder = self._directory / moment.strftime("%Y-%m-%d")
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                fsync_directory(folder.parent)
                fsync_directory(folder.parent.parent)
        except OSError as error:
            raise translate_os_error(error, "making a folder for kept texts") from error
        durable_write(folder / _name(label.request_id, label.part), data, mode=0o600)
        return hashlib.sha384(data).hexdigest()

    def find(self, request_id: str, part: str) -> Path | None:
        """Where the text of a request lies, None when there is none (any more)."""
        name = _name(request_id, part)
        return next((day / name for day in self.days() if (day / name).is_file()), None)

    def read(self, request_id: str, part: str) -> bytes | None:
        """A side file's bytes, None when there is none (any more). Raises HostError."""
        path = self.find(request_id, part)
        return None if path is None else read_bounded(path, MAX_TEXT_BYTES * 2, "kept text")

    def label(self, path: Path) -> TextLabel:
        """What a side file says it is. Raises HostError, AuditFormatError."""
        try:
            with path.open("rb") as file:
                return parse_text(file.read(MAX_LINE_BYTES + 1)).label
        except OSError as error:
            raise translate_os_error(error, "reading a kept text") from error

    def erase(self, paths: list[Path]) -> None:
        """Remove side files durably; one that is gone already is fine. Raises HostError."""
        try:
            for path in paths:
                path.unlink(missing_ok=True)
            for folder in {path.parent for path in paths}:
                fsync_directory(folder)
        except OSError as error:
            raise translate_os_error(error, "erasing a kept text") from error

    def days(self) -> Iterator[Path]:
        """The folders of days, oldest first."""
        if self._directory.is_dir():
            yield from sorted(p for p in self._directory.iterdir() if _DAY.fullmatch(p.name))

    def files(self) -> Iterator[Path]:
        """Every side file, oldest day first."""
        for day in self.days():
            yield from sorted(day.glob(f"*{_SUFFIX}"))


def _name(request_id: str, part: str) -> str:
    if _REQUEST.fullmatch(request_id) is None:
        raise HostError("no request id", found=request_id[:80], needed="letters, digits, dashes")
    return f"{request_id}.{part}{_SUFFIX}"
