"""Proofs about an audit log for who does not have the log: a record is in it, one log continues.

Both are canonical JSON that holds the checkpoints they are about. Checking one takes the public
half of the audit key alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.core.audit_chain import LogLine, parse_line
from edgekit.core.audit_checkpoint import SignedCheckpoint, verify_checkpoint
from edgekit.core.audit_record import MAX_LINE_BYTES
from edgekit.core.fields import Fields
from edgekit.core.hybrid_key import HybridKey
from edgekit.core.merkle import (
    MAX_PROOF,
    leaf_hash,
    root_from_inclusion,
    roots_from_consistency,
)
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_canonical
from edgekit.errors import AuditCheckpointError, AuditFormatError, FormatError

INCLUSION_SCHEMA = "edgekit.audit-inclusion/1"
CONSISTENCY_SCHEMA = "edgekit.audit-consistency/1"
MAX_PROOF_BYTES = 128 << 10

_HASH = r"[0-9a-f]{96}"


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows. `record` is the record itself; None for a proof of consistency."""

    old: SignedCheckpoint
    new: SignedCheckpoint
    record: Mapping[str, Any] | None


def encode_inclusion(
    checkpoint: SignedCheckpoint, seq: int, line: bytes, path: Sequence[bytes]
) -> bytes:
    """The proof that `line` is record `seq` of the log that the checkpoint was signed for."""
    return encode_canonical(
        {
            "schema": INCLUSION_SCHEMA,
            "checkpoint": checkpoint.envelope.decode("ascii"),
            "seq": seq,
            "line": line.decode("ascii"),
            "path": [node.hex() for node in path],
        }
    )


def encode_consistency(
    old: SignedCheckpoint, new: SignedCheckpoint, path: Sequence[bytes]
) -> bytes:
    """The proof that the log of `new` begins with the whole log of `old`."""
    return encode_canonical(
        {
            "schema": CONSISTENCY_SCHEMA,
            "old": old.envelope.decode("ascii"),
            "new": new.envelope.decode("ascii"),
            "path": [node.hex() for node in path],
        }
    )


def verify_proof(data: bytes, key: HybridKey) -> Proven:
    """Check a proof of either kind.

    Raises AuditCheckpointError when it does not lead to the signed roots or a signature is not the
    key's, AuditFormatError for bytes that are no proof.
    """
    try:
        table = parse_canonical(data.rstrip(b"\n"), max_bytes=MAX_PROOF_BYTES, what="proof")
        fields = Fields(table, "proof")
        schema = fields.text("schema", choices=(INCLUSION_SCHEMA, CONSISTENCY_SCHEMA))
        path = [bytes.fromhex(h) for h in fields.texts("path", max_items=MAX_PROOF, pattern=_HASH)]
        if schema == INCLUSION_SCHEMA:
            return _verify_inclusion(fields, path, key)
        return _verify_consistency(fields, path, key)
    except FormatError as error:
        raise AuditFormatError("this is no proof about an audit log", found=str(error)) from error


def check_same_log(old: SignedCheckpoint, new: SignedCheckpoint) -> None:
    """Refuse two checkpoints that cannot be of one log. Raises AuditCheckpointError."""
    if old.value.log_id != new.value.log_id:
        raise AuditCheckpointError(
            "the checkpoints are of two logs", found=new.value.log_id, needed=old.value.log_id
        )
    if new.value.seq < old.value.seq or new.value.epoch < old.value.epoch:
        raise AuditCheckpointError(
            "the second checkpoint is older than the first",
            found=f"record {new.value.seq}, epoch {new.value.epoch}",
            needed=f"record {old.value.seq}, epoch {old.value.epoch}, or later",
        )
    same = new.value.seq == old.value.seq
    if same and (new.value.root, new.value.chain) != (old.value.root, old.value.chain):
        raise AuditCheckpointError(
            "two checkpoints of the same record disagree: the log has two histories",
            where=f"record {old.value.seq}",
        )


def _verify_inclusion(fields: Fields, path: list[bytes], key: HybridKey) -> Proven:
    checkpoint = _take_checkpoint(fields, "checkpoint", key)
    seq = fields.integer("seq", low=1, high=MAX_INTEGER)
    text = fields.text("line", max_length=MAX_LINE_BYTES)
    fields.finish()
    line = LogLine("proof", 0, text.encode())
    root = root_from_inclusion(leaf_hash(line.data), seq - 1, checkpoint.value.seq, path)
    if root != checkpoint.value.root:
        raise AuditCheckpointError(
            "the record is not in the log that was signed", where=f"record {seq}"
        )
    return Proven(checkpoint, checkpoint, parse_line(line, seq))


def _verify_consistency(fields: Fields, path: list[bytes], key: HybridKey) -> Proven:
    old, new = (_take_checkpoint(fields, name, key) for name in ("old", "new"))
    fields.finish()
    check_same_log(old, new)
    if old.value.seq != new.value.seq:
        found = roots_from_consistency(old.value.seq, new.value.seq, old.value.root, path)
        if found != (old.value.root, new.value.root):
            raise AuditCheckpointError(
                "the newer log does not continue the older one", where=f"record {old.value.seq}"
            )
    elif path:
        raise AuditFormatError("a consistency proof is too long")
    return Proven(old, new, None)


def _take_checkpoint(fields: Fields, name: str, key: HybridKey) -> SignedCheckpoint:
    return verify_checkpoint(fields.text(name, max_length=MAX_LINE_BYTES).encode(), key)
