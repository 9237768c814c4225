"""Work that was cut off: what the host remembers of it, and how the next command closes it (I7).

One run of `install` or `rollback` is an attempt, named in each of its audit records. A marker is on
disk before the attempt's first record and until after its last, so that no attempt stays open: the
next command closes it by what is on disk. A record may then stand there twice; the last one of an
attempt says how it ended.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgekit.core.fields import Fields
from edgekit.core.host_layout import HostLayout
from edgekit.core.strict_json import parse_strict
from edgekit.operations.host_records import audit_event, pretty_json, receipt_table
from edgekit.system import generations
from edgekit.system.files import (
    discard_temporaries,
    durable_write,
    ensure_directory,
    fsync_directory,
    read_bounded,
    translate_os_error,
)

INSTALL, ROLLBACK = "install", "rollback"
_MAX_MARKER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An attempt under way: what it makes serve, and what served before ("" for nothing).

    `attempt` is "" once the audit log says that it was cut off.
    """

    verb: str
    attempt: str
    generation: str
    previous: str


def new_attempt() -> str:
    """A name that no other attempt has."""
    return secrets.token_hex(8)


def begin_marker(layout: HostLayout, unfinished: Unfinished) -> None:
    """Remember durably that an attempt is under way. Raises DiskFullError or HostError."""
    try:
        ensure_directory(layout.state)
    except OSError as error:
        raise translate_os_error(error, "making the folder of the host's state") from error
    durable_write(_marker(layout), pretty_json(asdict(unfinished)))


def read_marker(layout: HostLayout) -> Unfinished | None:
    """The attempt that was cut off, if one was. Raises FormatError when the marker is damaged."""
    path = _marker(layout)
    if not path.exists():
        return None
    data = read_bounded(path, _MAX_MARKER_BYTES, path.name)
    fields = Fields(parse_strict(data, max_bytes=_MAX_MARKER_BYTES, what=path.name))
    unfinished = Unfinished(
        fields.text("verb", choices=(INSTALL, ROLLBACK)),
        fields.text("attempt"),
        fields.text("generation"),
        fields.text("previous"),
    )
    fields.finish()
    return unfinished


def end_marker(layout: HostLayout) -> None:
    """The attempt ended, well or not. Raises HostError."""
    path = _marker(layout)
    try:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            fsync_directory(path.parent)
    except OSError as error:
        raise translate_os_error(error, "forgetting what was under way") from error


def close_unfinished(layout: HostLayout) -> Unfinished | None:
    """Say in the audit log how an attempt ended that was cut off; None when there was none.

    The marker stays until the next attempt replaces it or `end_marker` removes it: it alone knows
    what served before.
    """
    unfinished = read_marker(layout)
    if unfinished is None:
        return None
    generations.remove_partial(layout, unfinished.generation)
    for folder in (
        layout.state,
        layout.trust,
        layout.configuration,
        layout.opt,
        layout.generation(unfinished.generation),
    ):
        discard_temporaries(folder)
    if unfinished.attempt and not _was_recorded(layout, unfinished):
        done = (
            unfinished.verb == ROLLBACK
            and generations.current_generation(layout) == unfinished.generation
        )
        audit_event(
            layout,
            {
                "type": f"{unfinished.verb}_{'commit' if done else 'abort'}",
                "attempt": unfinished.attempt,
                "generation": unfinished.generation,
                "reason": "interrupted",
                "actor": f"uid {os.getuid()}",
            },
        )
    begin_marker(layout, replace(unfinished, attempt=""))
    return unfinished


def _was_recorded(layout: HostLayout, unfinished: Unfinished) -> bool:
    """Whether this very attempt came as far as its receipt, which follows its commit record."""
    if unfinished.verb != INSTALL:
        return False
    return receipt_table(layout, unfinished.generation).get("attempt") == unfinished.attempt


def _marker(layout: HostLayout) -> Path:
    return layout.state / "installing.json"
