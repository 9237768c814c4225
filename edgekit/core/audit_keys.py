"""The audit log's MAC keys: one per epoch, each made from the one before, which is then forgotten.

    K_{e+1} = HKDF-SHA-384(K_e, salt none, info "edgekit-audit-ratchet")
    mac     = HMAC-SHA-384(K_e, record without its "~mac")

Who takes over a host learns the key of that epoch and of later ones, never of earlier ones. Who was
given the first key (or the key of any epoch) can check every record from there on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgekit.core.fields import Fields
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_strict
from edgekit.errors import AuditFormatError, FormatError

KEY_SCHEMA = "edgekit.audit-key/1"
KEY_BYTES = 48
MAX_KEY_FILE_BYTES = 512
LOG_ID_PATTERN = r"[0-9a-f]{32}"

_INFO = b"edgekit-audit-ratchet"
_BLOCK_BYTES = 128


class MacKey:
    """HMAC-SHA-384 under one key. The two padded blocks are hashed once (RFC 2104 section 4)."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha384(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha384(bytes(byte ^ 0x5C for byte in block))

    def mac(self, body: bytes) -> str:
        """The MAC of a record's bytes, in hex."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.hexdigest()


@dataclass(frozen=True, slots=True, repr=False)
class AuditKey:
    """The secret of one epoch of one log."""

    log_id: str
    epoch: int
    key: bytes

    def next(self) -> AuditKey:
        """The key of the epoch after."""
        return AuditKey(self.log_id, self.epoch + 1, ratchet(self.key))

    def at(self, epoch: int) -> AuditKey:
        """The key of a later epoch."""
        key = self
        while key.epoch < epoch:
            key = key.next()
        return key


def ratchet(key: bytes) -> bytes:
    """K_{e+1} from K_e."""
    return HKDF(algorithm=SHA384(), length=KEY_BYTES, salt=None, info=_INFO).derive(key)


def encode_audit_key(key: AuditKey) -> bytes:
    """The file in which an auditor keeps a log's key."""
    table = {
        "schema": KEY_SCHEMA,
        "log_id": key.log_id,
        "epoch": key.epoch,
        "key": key.key.hex(),
    }
    return encode_canonical(table) + b"\n"


def parse_audit_key(data: bytes) -> AuditKey:
    """Raises AuditFormatError, which never shows what the file holds."""
    try:
        fields = Fields(parse_strict(data, max_bytes=MAX_KEY_FILE_BYTES, what="audit key"))
        fields.text("schema", choices=(KEY_SCHEMA,))
        key = AuditKey(
            fields.text("log_id", pattern=LOG_ID_PATTERN),
            fields.integer("epoch", low=0, high=MAX_INTEGER),
            bytes.fromhex(fields.text("key", pattern=rf"[0-9a-f]{{{2 * KEY_BYTES}}}")),
        )
        fields.finish()
    except FormatError as error:
        raise AuditFormatError("this is not an audit key", needed=KEY_SCHEMA) from error
    return key
