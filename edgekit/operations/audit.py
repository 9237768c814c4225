"""`edgekit audit verify` and `tail`: everything that may be read from a log, on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import parse_line
from edgekit.core.audit_checkpoint import verify_checkpoint
from edgekit.core.audit_keys import MAX_KEY_FILE_BYTES, parse_audit_key
from edgekit.core.audit_summary import AuditSummary, Tally
from edgekit.core.audit_verify import Evidence, Verifier
from edgekit.errors import AuditMissingError, TrustError
from edgekit.system.audit_files import (
    load_audit_signer,
    public_half_path,
    read_head,
    read_lines,
    tail_lines,
)
from edgekit.system.audit_secrets import load_mac_key
from edgekit.system.files import read_bounded

MAX_ANCHOR_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Brought:
    """Files an auditor brings: the audit key's public half, MAC keys, anchors."""

    signer: Path | None = None
    keys: tuple[Path, ...] = ()
    anchors: tuple[Path, ...] = ()
    first: int = 1


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
    keys = [parse_audit_key(read_bounded(p, MAX_KEY_FILE_BYTES, "audit key")) for p in brought.keys]
    own = load_mac_key(log_dir, head.log_id) if head is not None and not keys else None
    anchors = [
        verify_checkpoint(read_bounded(p, MAX_ANCHOR_BYTES, "anchor"), signer)
        for p in brought.anchors
        if signer is not None
    ]
    keys += [own] if own is not None else []
    return Evidence(signer, tuple(keys), tuple(anchors), head, brought.first)


def verify_audit(log_dir: Path, brought: Brought = NOTHING) -> AuditSummary:
    """Check every record of the log. Raises the AuditError that says what is wrong and where."""
    evidence = gather_evidence(log_dir, brought)
    verifier, tally = Verifier(evidence), Tally()
    for verified in verifier.check(read_lines(log_dir, evidence.first)):
        tally.add(verified)
    return tally.summary(verifier.verdict(), evidence)


def tail_audit(log_dir: Path, count: int) -> list[dict[str, Any]]:
    """The newest `count` records, oldest first, read without verifying the chain."""
    return [parse_line(line, 0) for line in tail_lines(log_dir, count)]
