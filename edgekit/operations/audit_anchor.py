"""Anchors: the log's newest checkpoint, carried away by every stick that visits.

An anchor is the checkpoint's own bytes in a file. A log that was cut or rewritten before it no
longer fits it, whoever did it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.audit_chain import parse_line
from edgekit.core.audit_checkpoint import SignedCheckpoint, record_envelope, verify_checkpoint
from edgekit.core.audit_requests import record_kind
from edgekit.core.events import Listener, Warned
from edgekit.core.host_layout import HostLayout
from edgekit.core.hybrid_key import MAX_HALF_BYTES
from edgekit.errors import AuditMissingError, EdgekitError
from edgekit.operations.host_records import audit_event
from edgekit.system.audit_files import (
    ANCHOR_FOLDER,
    ANCHOR_SUFFIX,
    load_audit_signer,
    log_segments,
    public_half_path,
    read_head,
    segment_lines,
    unavailable,
)
from edgekit.system.files import (
    durable_write,
    ensure_directory,
    file_system_of,
    read_bounded,
    translate_os_error,
)


@dataclass(frozen=True, slots=True)
class Anchored:
    """An anchor that was written: its file, and how many records the log had after it."""

    path: Path
    checkpoint: SignedCheckpoint
    after: int


def newest_checkpoint(log_dir: Path) -> SignedCheckpoint | None:
    """The last checkpoint in the log; None before the first. Raises AuditError, TrustError."""
    try:
        for path in reversed(log_segments(log_dir)):
            lines = [x for x in segment_lines(path) if record_kind(x.data) == b"checkpoint"]
            for line in reversed(lines):
                record = parse_line(line, 0)
                if record["type"] == "checkpoint":
                    signer = load_audit_signer(public_half_path(log_dir, read_head(log_dir).log_id))
                    return verify_checkpoint(record_envelope(record), signer)
    except OSError as error:
        raise unavailable("cannot read the audit log", log_dir, error) from error
    return None


def checkpoint_name(checkpoint: SignedCheckpoint) -> str:
    """The file name of an anchor: sorts by record."""
    return f"{checkpoint.value.log_id[:12]}-{checkpoint.value.seq:016d}{ANCHOR_SUFFIX}"


def write_anchor(layout: HostLayout, folder: Path) -> Anchored:
    """Put the newest checkpoint into a folder, beside the audit key's public half, and record it.

    Raises AuditMissingError before the first checkpoint, HostError, AuditUnavailableError.
    """
    checkpoint, head = newest_checkpoint(layout.audit), read_head(layout.audit)
    if checkpoint is None:
        raise AuditMissingError(
            "the audit log has no checkpoint yet",
            found=f"{head.seq} records",
            hint="wait for the end of the epoch (audit.epoch_s), or restart edgekit.target",
        )
    half = public_half_path(layout.audit, head.log_id)
    path = folder / checkpoint_name(checkpoint)
    try:
        ensure_directory(folder)
    except OSError as error:
        raise translate_os_error(error, "making a folder for anchors") from error
    durable_write(folder / half.name, read_bounded(half, MAX_HALF_BYTES, "public half"))
    durable_write(path, checkpoint.envelope)
    record = {
        "type": "anchor",
        "anchored": checkpoint.value.seq,
        "epoch": checkpoint.value.epoch,
        "to": str(folder),
        "actor": f"uid {os.getuid()}",
    }
    audit_event(layout, record)
    return Anchored(path, checkpoint, head.seq - checkpoint.value.seq)


def anchor_visitors(layout: HostLayout, folders: Iterable[Path], listener: Listener) -> None:
    """Anchor on every medium that one of these folders lies on, if it can be written.

    A medium is another file system than the host's own state lies on. The anchor goes beside the
    folder, never into it. Whatever goes wrong is a warning: the visit was for something else.
    """
    if not (layout.audit / "head.json").exists():
        return
    for place in sorted({folder.resolve().parent for folder in folders}):
        with contextlib.suppress(OSError):
            if file_system_of(place) == file_system_of(layout.audit):
                continue
        try:
            write_anchor(layout, place / ANCHOR_FOLDER)
        except EdgekitError as error:
            listener(Warned(f"no audit anchor on {place}: {error.message}"))
