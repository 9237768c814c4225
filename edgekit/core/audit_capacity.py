"""How much room an audit log gets, and what happens as it fills (NIST SP 800-53 AU-4, AU-5).

    75 %   warn     recorded, shown
    90 %   alert    recorded, shown as not well
    98 %   full     no new request is recorded, so none is served; running ones end

The room is planned once, when the log is made, from the free space and the use that is expected; a
site can say another size. A reserve beside it is given back when it is needed: for the last
records, and for the records about an export that makes room again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from edgekit.core.fields import Fields
from edgekit.core.site_config import AuditConfig
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_strict

CAPACITY_SCHEMA = "edgekit.audit-capacity/1"
MAX_CAPACITY_BYTES = 1024
MIB = 1 << 20

REQUEST_BYTES = 1_700
"""A request's two records, measured with the demo model's fields and rounded up."""

DAY_BYTES = 288 * 640 + 24 * 9_600
"""A day in which nothing happens: a heartbeat every five minutes, a checkpoint every hour."""

SHARE = 4
"""At most this part of what was free: a quarter."""

RESERVE_BYTES = 4 * MIB
MIN_BYTES = 16 * MIB


class Level(IntEnum):
    """How full a log is."""

    OK = 0
    WARN = 75
    ALERT = 90
    FULL = 98

    @property
    def label(self) -> str:
        """Its name in records and answers."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Capacity:
    """Bytes that a log may have, and of the reserve beside it."""

    limit_bytes: int
    reserve_bytes: int = RESERVE_BYTES

    def level(self, used_bytes: int, free_bytes: int) -> Level:
        """How full a log of this many bytes is on a file system with this many free ones.

        It is full, too, when the disk has less room left than the reserve takes.
        """
        if free_bytes < self.reserve_bytes // 4:
            return Level.FULL
        percent = used_bytes * 100 // self.limit_bytes
        return max(level for level in Level if percent >= level)


def plan_capacity(config: AuditConfig, free_bytes: int) -> Capacity:
    """The room for a log on a file system with so many bytes free."""
    if config.max_mib:
        return Capacity(config.max_mib * MIB)
    wanted = config.days * (config.requests_per_day * REQUEST_BYTES + DAY_BYTES)
    return Capacity(max(MIN_BYTES, min(wanted, free_bytes // SHARE)))


def encode_capacity(capacity: Capacity) -> bytes:
    """The file in which the plan is kept."""
    return encode_canonical({"schema": CAPACITY_SCHEMA, **capacity_fields(capacity)}) + b"\n"


def capacity_fields(capacity: Capacity) -> Mapping[str, Any]:
    """The plan's numbers, for a record."""
    return {"limit_bytes": capacity.limit_bytes, "reserve_bytes": capacity.reserve_bytes}


def parse_capacity(data: bytes) -> Capacity:
    """Raises FormatError."""
    fields = Fields(parse_strict(data, max_bytes=MAX_CAPACITY_BYTES, what="audit capacity"))
    fields.text("schema", choices=(CAPACITY_SCHEMA,))
    capacity = Capacity(
        fields.integer("limit_bytes", low=1, high=MAX_INTEGER),
        fields.integer("reserve_bytes", low=0, high=MAX_INTEGER),
    )
    fields.finish()
    return capacity
