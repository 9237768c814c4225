"""The files of an audit log, as anyone may read them.

audit-<first seq, 16 digits>.jsonl   records, at most 64 MiB a file
head.json                            log id, last acknowledged seq, chain value; 512 bytes
audit-<log id, 12 digits>/           the audit key: its public half, and for the writer the rest
writer.lock                          held by the one writer (flock)
reserve                              space that is given back when the disk is full
audit-*.jsonl.<offset>.torn          bytes a crash left behind a half-written record
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgekit.core.audit_chain import Head, LogLine, parse_head
from edgekit.core.audit_record import MAX_LINE_BYTES
from edgekit.core.hybrid_key import MAX_HALF_BYTES, HybridKey, verify_hybrid_key
from edgekit.errors import AuditMissingError, AuditUnavailableError, TrustError

HEAD_NAME = "head.json"
LOCK_NAME = "writer.lock"

ANCHOR_FOLDER = "edgekit-anchors"
ANCHOR_SUFFIX = ".checkpoint"
MAX_ANCHORS = 100_000
"""Where anchors lie on a medium, and how their names end."""

_SEGMENT = re.compile(r"audit-([0-9]{16})\.jsonl")


def segment_name(first: int) -> str:
    """The file that begins with record `first`."""
    return f"audit-{first:016d}.jsonl"


def first_record(segment: Path) -> int:
    """The number of the record that a segment begins with, by its name."""
    return int(segment.name[6:22])


def log_segments(directory: Path) -> list[Path]:
    """The segment files, oldest first. Raises OSError."""
    return sorted(path for path in directory.iterdir() if _SEGMENT.fullmatch(path.name))


def oldest_record(directory: Path) -> int:
    """The number of the record that the log begins with now; 1 for an empty log."""
    try:
        segments = log_segments(directory)
    except OSError as error:
        raise unavailable("cannot read the audit log", directory, error) from error
    return first_record(segments[0]) if segments else 1


def segment_lines(path: Path) -> Iterator[LogLine]:
    """Every whole line of one segment; an unfinished last line is left out. Raises OSError."""
    offset = 0
    with path.open("rb") as file:
        # a line is never longer than the limit: a longer one is yielded in part and refused
        while data := file.readline(MAX_LINE_BYTES + 2):
            if not data.endswith(b"\n") and not file.peek(1):
                return
            yield LogLine(path.name, offset, data.removesuffix(b"\n"))
            offset += len(data)


def read_lines(directory: Path, first: int = 1) -> Iterator[LogLine]:
    """Every whole line from the segment that begins with record `first` on, in order."""
    try:
        for path in log_segments(directory):
            if first_record(path) >= first:
                yield from segment_lines(path)
    except OSError as error:
        raise unavailable("cannot read the audit log", directory, error) from error


def tail_lines(directory: Path, count: int) -> list[LogLine]:
    """The last `count` whole lines, oldest first, unverified."""
    lines: list[LogLine] = []
    for path in reversed(log_segments(directory)):
        lines = list(segment_lines(path))[-(count - len(lines)) :] + lines
        if len(lines) >= count:
            break
    return lines


def read_head(directory: Path) -> Head:
    """The kept head. Raises AuditMissingError without one, AuditFormatError for a damaged one."""
    try:
        return parse_head((directory / HEAD_NAME).read_bytes().rstrip(b" \n"))
    except FileNotFoundError as error:
        raise AuditMissingError(
            "the audit log has no head", where=str(directory / HEAD_NAME)
        ) from error
    except OSError as error:
        raise unavailable("cannot read the audit log", directory, error) from error


def signer_folder(directory: Path, log_id: str) -> Path:
    """Where the keys of this log lie; its name is the signer's."""
    return directory / f"audit-{log_id[:12]}"


def public_half_path(directory: Path, log_id: str) -> Path:
    """The public half of the audit key, which may be given to anyone."""
    folder = signer_folder(directory, log_id)
    return folder / f"{folder.name}.signer.json"


def load_audit_signer(path: Path) -> HybridKey:
    """An audit key's public half from a file. Raises TrustError, FormatError, SignatureError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_HALF_BYTES + 1)
    except OSError as error:
        raise TrustError(
            "the audit key's public half cannot be read", where=str(path), found=error.strerror
        ) from error
    return verify_hybrid_key(data)


def unavailable(message: str, where: Path, error: OSError) -> AuditUnavailableError:
    """What an OSError means for who waits for a record."""
    text = os.strerror(error.errno) if error.errno else str(error)
    return AuditUnavailableError(message, where=str(where), found=text)

def find_anchors(paths: Iterable[Path], log_id: str) -> list[Path]:
    """Files of anchors: those named, and in folders those of this log. Raises HostError."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = path / ANCHOR_FOLDER if (path / ANCHOR_FOLDER).is_dir() else path
            found += sorted(inside.glob(f"{log_id[:12]}-*{ANCHOR_SUFFIX}"))[-MAX_ANCHORS:]
        else:
            found.append(path)
    return found
