"""What a host will not go back behind: a release number, and a point in time (step V4, ADR 10).

No wall clock decides an order. The time floor only ever grows, from signed statements; the clock is
believed where the floor bears it out.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.digest import Digest
from edgekit.core.fields import Fields
from edgekit.core.release_statement import ReleaseContent, format_date
from edgekit.core.root import MAX_EPOCH, MAX_SEQUENCE, TrustedRoot
from edgekit.core.strict_json import encode_canonical, parse_canonical
from edgekit.errors import FormatError, RollbackError, TrustError

COMPILED_IN = 1_793_491_200
"""2026-11-01T00:00:00Z: this program is not older than that. Raised with every release."""

CLOCK_SLACK_S = 30 * 86_400
"""A clock this far ahead of the floor is still borne out by it."""

MAX_FLOOR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Floor:
    """The newest (epoch, sequence) this host has committed to, and that statement's digest.

    `time` is the newest `created` of any release it has committed to, in Unix seconds.
    """

    epoch: int = 0
    sequence: int = 0
    statement: str = ""
    time: int = 0

    @property
    def pair(self) -> tuple[int, int]:
        """What is compared."""
        return self.epoch, self.sequence

    @property
    def time_floor(self) -> int:
        """Unix seconds; it is certainly not earlier than this."""
        return max(COMPILED_IN, self.time)

    def raised(self, other: Floor) -> Floor:
        """The higher of the two in each part; nothing ever goes down."""
        higher = max(self, other, key=lambda floor: floor.pair)
        return Floor(higher.epoch, higher.sequence, higher.statement, max(self.time, other.time))


@dataclass(frozen=True, slots=True)
class TrustedTime:
    """The time that decides about expiry, in Unix seconds, and what became of the clock.

    `clock` is `believed`, `behind` (earlier than the floor, so the floor counts) or `ahead` (too
    far beyond the floor to be borne out, so the floor counts).
    """

    seconds: int
    clock: str


def trust_time(floor: int, wall_clock: int) -> TrustedTime:
    """The clock where the floor bears it out, else the floor (both Unix seconds)."""
    if wall_clock < floor:
        return TrustedTime(floor, "behind")
    if wall_clock > floor + CLOCK_SLACK_S:
        return TrustedTime(floor, "ahead")
    return TrustedTime(wall_clock, "believed")


def statement_floor(statement: ReleaseContent) -> Floor:
    """The floor that a committed release proves."""
    return Floor(statement.epoch, statement.sequence, str(statement.digest), statement.created)


def check_floor(statement: ReleaseContent, floor: Floor, minimum: tuple[int, int] = (0, 0)) -> None:
    """Step V4: refuse a statement older than the host's floor or the root's minimum.

    (epoch, sequence) are compared in that order; the same pair must be the same statement. An epoch
    goes up by one at a time, or as far as the root says, so that whoever steals keys cannot use up
    the numbers. Raises RollbackError.
    """
    check_minimum(statement, minimum)
    offered = (statement.epoch, statement.sequence)
    if offered < floor.pair:
        raise RollbackError(
            "this set is older than what the host has already accepted",
            found=_pair(offered),
            needed=f"{_pair(floor.pair)} or newer",
            hint="ask the packager for the newest set",
        )
    if offered == floor.pair and str(statement.digest) != floor.statement:
        raise RollbackError(
            "another set with the same sequence number was already accepted",
            found=statement.digest.short,
            needed=floor.statement[7:19],
            hint="raise `sequence` in the recipe and bundle again",
        )
    highest = max(floor.epoch, minimum[0]) + 1
    if floor.epoch and statement.epoch > highest:
        raise RollbackError(
            "this set skips epochs, which would leave no number for the ones after it",
            found=f"epoch {statement.epoch}",
            needed=f"epoch {highest} at most, or a root that names a later minimum",
            hint="edgekit keys rotate --minimum EPOCH.SEQUENCE",
        )


def check_downgrade(statement: ReleaseContent, floor: Floor, minimum: tuple[int, int]) -> bool:
    """Step V4 when the operator breaks the glass; True when the set is below the floor.

    Older sequences of the floor's epoch are let through. The root's minimum, earlier epochs and a
    second statement with the floor's numbers are not. Raises RollbackError.
    """
    offered = (statement.epoch, statement.sequence)
    if offered >= floor.pair:
        check_floor(statement, floor, minimum)
        return False
    check_minimum(statement, minimum)
    if statement.epoch < floor.epoch:
        raise RollbackError(
            "this set is of an epoch that is over; not even a downgrade goes back there",
            found=_pair(offered),
            needed=f"epoch {floor.epoch}",
        )
    return True


def check_not_expired(root: TrustedRoot, statement: ReleaseContent, time: TrustedTime) -> None:
    """Refuse to install anew what is past its end. Raises TrustError."""
    for what, expires, hint in (
        (f"root {root.version}", root.expires, "edgekit trust import NEWER.root.json"),
        ("this set", statement.expires, "ask the packager for a newer set"),
    ):
        if time.seconds > expires:
            raise TrustError(
                f"{what} has expired and installs nothing new",
                found=f"until {format_date(expires)}",
                needed=f"{format_date(time.seconds)} or later",
                hint=hint,
            )


def encode_floor(floor: Floor) -> bytes:
    """Bytes of the host's floor file, with their own digest so that damage shows."""
    body = {
        "epoch": floor.epoch,
        "sequence": floor.sequence,
        "statement": floor.statement,
        "time": floor.time,
    }
    check = Digest.of(encode_canonical(body)).value
    return encode_canonical({"floor": body, "check": check})


def parse_floor(data: bytes) -> Floor:
    """Bytes of a floor file to a Floor. Raises FormatError when damaged."""
    fields = Fields(parse_canonical(data, max_bytes=MAX_FLOOR_BYTES, what="trust floor"), "floor")
    check = fields.text("check")
    body = fields.take("floor", dict)
    fields.finish()
    if Digest.of(encode_canonical(body)).value != check:
        raise FormatError("trust floor is damaged")
    facts = Fields(body, "floor")
    floor = Floor(
        epoch=facts.integer("epoch", low=0, high=MAX_EPOCH),
        sequence=facts.integer("sequence", low=0, high=MAX_SEQUENCE),
        statement=facts.text("statement"),
        time=facts.integer("time", low=0, high=1 << 40, default=0),  # absent before 0.2
    )
    facts.finish()
    return floor


def check_minimum(statement: ReleaseContent, minimum: tuple[int, int]) -> None:
    """Refuse what a root forbids, wherever it comes from. Raises RollbackError."""
    offered = (statement.epoch, statement.sequence)
    if offered < minimum:
        raise RollbackError(
            "the root forbids releases this old",
            found=_pair(offered),
            needed=f"{_pair(minimum)} or newer",
            hint="ask the packager for a newer set",
        )


def _pair(pair: tuple[int, int]) -> str:
    return f"epoch {pair[0]}, sequence {pair[1]}"
