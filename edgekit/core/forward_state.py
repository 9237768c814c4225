"""How far copies of audit records got: the forwarder's file, which `status` reads, too. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from edgekit.core.audit_keys import LOG_ID_PATTERN
from edgekit.core.fields import Fields
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_strict

SCHEMA = "edgekit.forward/1"
MAX_STATE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ForwardState:
    """The next record lies at `offset` bytes of `segment`; records up to `seq` were sent, but for
    `dropped` of them."""

    log_id: str
    segment: str = ""
    offset: int = 0
    seq: int = 0
    dropped: int = 0


def encode_forward_state(state: ForwardState) -> bytes:
    """Bytes of the file."""
    return encode_canonical({"schema": SCHEMA, **asdict(state)})


def parse_forward_state(data: bytes) -> ForwardState:
    """Bytes of the file to the state. Raises FormatError."""
    fields = Fields(parse_strict(data, max_bytes=MAX_STATE_BYTES, what="forward.json"))
    fields.text("schema", choices=(SCHEMA,))
    state = ForwardState(
        fields.text("log_id", pattern=LOG_ID_PATTERN),
        fields.text("segment", max_length=40),
        fields.integer("offset", low=0, high=MAX_INTEGER),
        fields.integer("seq", low=0, high=MAX_INTEGER),
        fields.integer("dropped", low=0, high=MAX_INTEGER),
    )
    fields.finish()
    return state
