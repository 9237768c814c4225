"""`edgekit audit verify` and `tail`: everything that may be read from a log, on any machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import Head, parse_line
from edgekit.core.audit_checkpoint import verify_checkpoint
from edgekit.core.audit_export import (
    EXPORT_NAME,
    MAX_EXPORT_BYTES,
    ExportedFile,
    verify_manifest,
)
from edgekit.core.audit_keys import MAX_KEY_FILE_BYTES, parse_audit_key
from edgekit.core.audit_retention import find_removal
from edgekit.core.audit_summary import AuditSummary
from edgekit.core.audit_verify import Evidence
from edgekit.errors import (
    AuditAlteredError,
    AuditCheckpointError,
    AuditMissingError,
    TrustError,
)
from edgekit.operations.audit_parts import check_log
from edgekit.system.audit_files import (
    find_anchors,
    load_audit_signer,
    oldest_record,
    public_half_path,
    read_head,
    tail_lines,
)
from edgekit.system.audit_secrets import load_mac_key
from edgekit.system.files import read_bounded
from edgekit.system.volumes import hash_file

MAX_ANCHOR_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Brought:
    """Files an auditor brings: the audit key's public half, MAC keys, anchors or folders of them.

    `first` is the record that the log should begin with; None takes the log at its word.
    """

    signer: Path | None = None
    keys: tuple[Path, ...] = ()
    anchors: tuple[Path, ...] = ()
    first: int | None = None


NOTHING = Brought()


def gather_evidence(log_dir: Path, brought: Brought = NOTHING) -> Evidence:
    """What to hold a log against: what was brought, and what the log's own folder offers.

    The head is read first: a writer may append meanwhile, and may only make the log longer. Without
    a public half from elsewhere the log's own is used, and without a MAC key the writer's present
    one if this user may read it. Raises AuditError, TrustError, HostError, FormatError.
    """
    try:
        head = read_head(log_dir)
    except AuditMissingError:
        if not brought.anchors and brought.signer is None:
            raise
        head = None  # an exported range has none: its anchors say where it must reach
    path = brought.signer
    if path is None and head is not None:
        path = public_half_path(log_dir, head.log_id)
    signer = load_audit_signer(path) if path is not None and path.exists() else None
    if signer is None and brought.anchors:
        raise TrustError(
            "anchors mean nothing without the key that signed them",
            hint="edgekit audit verify --pubkey AUDIT.signer.json --anchor FILE",
        )
    first = brought.first or oldest_record(log_dir)
    keys = [parse_audit_key(read_bounded(p, MAX_KEY_FILE_BYTES, "audit key")) for p in brought.keys]
    own = load_mac_key(log_dir, head.log_id) if head is not None and not keys else None
    anchors = [
        verify_checkpoint(read_bounded(p, MAX_ANCHOR_BYTES, "anchor"), signer)
        for p in find_anchors(brought.anchors, head.log_id if head is not None else "")
        if signer is not None
    ]
    keys += [own] if own is not None else []
    return Evidence(signer, tuple(keys), tuple(anchors), head, first)


def verify_audit(
    log_dir: Path, brought: Brought = NOTHING, workers: int | None = None
) -> AuditSummary:
    """Check every record of the log, or of an export of it, in so many processes.

    As many as there are processors, for a log that is worth it, unless said. Raises the AuditError
    that says what is wrong and where.
    """
    if (log_dir / EXPORT_NAME).exists():
        return verify_export(log_dir, brought, workers)
    evidence = gather_evidence(log_dir, brought)
    checked = check_log(log_dir, evidence, workers)
    tally, removals = checked.tally, checked.removals
    summary = tally.summary(checked.verdict, evidence)
    if brought.first is not None or evidence.first == 1 or tally.first is None:
        return summary
    before = parse_line(tally.first, evidence.first)["prev"]
    return replace(summary, removed=find_removal(evidence.first, before, removals))


def verify_export(
    folder: Path, brought: Brought = NOTHING, workers: int | None = None
) -> AuditSummary:
    """Check an export: every record, then that every file is the one that was signed.

    Raises what `verify_audit` raises, AuditCheckpointError when the list is not signed by the audit
    key or the records do not come to what it says.
    """
    halves = [brought.signer] if brought.signer else sorted(folder.glob("audit-*.signer.json"))
    if len(halves) != 1:
        raise TrustError("an export needs the key that signed it", hint="give --pubkey FILE")
    signer = load_audit_signer(halves[0])
    manifest = verify_manifest(
        read_bounded(folder / EXPORT_NAME, MAX_EXPORT_BYTES, EXPORT_NAME), signer
    )
    anchors = [
        verify_checkpoint(read_bounded(p, MAX_ANCHOR_BYTES, "anchor"), signer)
        for p in find_anchors(brought.anchors, manifest.log_id)
    ]
    inside = tuple(a for a in anchors if manifest.first <= a.value.seq <= manifest.last)
    keys = tuple(
        parse_audit_key(read_bounded(p, MAX_KEY_FILE_BYTES, "audit key")) for p in brought.keys
    )
    head = Head(manifest.log_id, manifest.last, manifest.chain)
    evidence = Evidence(signer, keys, inside, head, manifest.first)
    checked = check_log(folder, evidence, workers)
    tally, verdict = checked.tally, checked.verdict
    if (verdict.last, verdict.root) != (manifest.last, manifest.root):
        raise AuditCheckpointError(
            "the records are not those that were exported",
            where=str(folder),
            found=f"record {verdict.last}, root {verdict.root.hex()[:24]}...",
            needed=f"record {manifest.last}, root {manifest.root.hex()[:24]}...",
        )
    for file in manifest.files:
        _check_file(folder / file.name, file)
    # the signed list vouches for the end as a checkpoint would
    signed = replace(verdict, signed_to=verdict.last)
    return replace(tally.summary(signed, evidence), borrowed=brought.signer is None)


def _check_file(path: Path, file: ExportedFile) -> None:
    if not path.is_file():
        raise AuditMissingError("a file of the export is missing", where=str(path))
    found, size = hash_file(path, "sha384")
    if (found.value, size) != (file.sha384, file.size):
        raise AuditAlteredError(
            "a file of the export was changed",
            where=str(path),
            found=f"{size} bytes, {found.value[:24]}...",
            needed=f"{file.size} bytes, {file.sha384[:24]}...",
        )


def tail_audit(log_dir: Path, count: int) -> list[dict[str, Any]]:
    """The newest `count` records, oldest first, read without verifying the chain."""
    return [parse_line(line, 0) for line in tail_lines(log_dir, count)]
