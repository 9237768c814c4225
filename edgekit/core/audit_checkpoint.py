"""Checkpoints: what a log was up to a record, signed by the host's audit key.

A checkpoint is a DSSE envelope around canonical JSON, signed with Ed25519 and ML-DSA-87. The log
holds one after each epoch that asks for one, in a record of type `checkpoint`; carried away, the
envelope is an **anchor**: a log that is cut or rewritten before it no longer fits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.audit_keys import LOG_ID_PATTERN
from edgekit.core.dsse import Envelope, parse_dsse
from edgekit.core.fields import Fields
from edgekit.core.hybrid_key import HybridKey
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_canonical
from edgekit.errors import AuditCheckpointError, AuditFormatError, FormatError

CHECKPOINT_SCHEMA = "edgekit.audit-checkpoint/1"
CHECKPOINT_TYPE = "application/vnd.edgekit.audit-checkpoint+json"
MAX_CHECKPOINT_BYTES = 15 << 10

_HASH = r"[0-9a-f]{96}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log up to and including record `seq`, which closes `epoch`.

    `chain` is chain_seq, `root` the root of the tree of all `seq` lines. Times as in that record:
    microseconds since 1970, nanoseconds since boot.
    """

    log_id: str
    epoch: int
    seq: int
    chain: bytes
    root: bytes
    t_utc: int
    t_boot_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint that the audit key signed. Only `verify_checkpoint` makes one."""

    value: Checkpoint
    envelope: bytes


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The payload to sign."""
    return encode_canonical(
        {
            "schema": CHECKPOINT_SCHEMA,
            "log_id": checkpoint.log_id,
            "epoch": checkpoint.epoch,
            "seq": checkpoint.seq,
            "chain": checkpoint.chain.hex(),
            "root": checkpoint.root.hex(),
            "t_utc": checkpoint.t_utc,
            "t_boot_ns": checkpoint.t_boot_ns,
            "boot_id": checkpoint.boot_id,
        }
    )


def verify_checkpoint(data: bytes, key: HybridKey) -> SignedCheckpoint:
    """The checkpoint in an envelope that both of the audit key's parts signed.

    Raises AuditCheckpointError when they did not, AuditFormatError for bytes that are none.
    """
    envelope = _parse_envelope(data)
    if not key.has_signed(envelope):
        raise AuditCheckpointError(
            "a checkpoint is not signed by the host's audit key", needed=key.fingerprint[:24]
        )
    return SignedCheckpoint(_parse_payload(envelope.payload), data)


def unsafe_read_checkpoint(data: bytes) -> Checkpoint:
    """What a checkpoint says, whoever signed it: to show it, never to believe it."""
    return _parse_payload(_parse_envelope(data).payload)


def checkpoint_fields(envelope: bytes, epoch: int) -> dict[str, Any]:
    """The fields of the log's own record that holds a checkpoint."""
    table = parse_canonical(envelope, max_bytes=MAX_CHECKPOINT_BYTES, what="checkpoint")
    return {"type": "checkpoint", "epoch": epoch, "envelope": table}


def record_envelope(record: Mapping[str, Any]) -> bytes:
    """The envelope in a record of type `checkpoint`: the anchor to carry away."""
    return encode_canonical(record.get("envelope"))


def _parse_envelope(data: bytes) -> Envelope:
    try:
        return parse_dsse(data.rstrip(b"\n"), MAX_CHECKPOINT_BYTES, "checkpoint", CHECKPOINT_TYPE)
    except FormatError as error:
        raise AuditFormatError("a checkpoint is malformed", found=str(error)) from error


def _parse_payload(payload: bytes) -> Checkpoint:
    try:
        table = parse_canonical(payload, max_bytes=MAX_CHECKPOINT_BYTES, what="checkpoint")
        fields = Fields(table, "checkpoint")
        fields.text("schema", choices=(CHECKPOINT_SCHEMA,))
        checkpoint = Checkpoint(
            fields.text("log_id", pattern=LOG_ID_PATTERN),
            fields.integer("epoch", low=0, high=MAX_INTEGER),
            fields.integer("seq", low=1, high=MAX_INTEGER),
            bytes.fromhex(fields.text("chain", pattern=_HASH)),
            bytes.fromhex(fields.text("root", pattern=_HASH)),
            fields.integer("t_utc", low=-MAX_INTEGER, high=MAX_INTEGER),
            fields.integer("t_boot_ns", low=0, high=MAX_INTEGER),
            fields.text("boot_id", max_length=36),
        )
        fields.finish()
    except FormatError as error:
        raise AuditFormatError("a checkpoint is malformed", found=str(error)) from error
    return checkpoint
