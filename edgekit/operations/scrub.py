"""`edgekit scrub`: read everything that is installed again and compare it with what was signed.

Weights are hashed before every engine start in any case. A scrub also reads what is only needed
some day: programs, and the release that a rollback goes back to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.fields import Fields
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import TREE_ROLES
from edgekit.core.release import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from edgekit.core.strict_json import parse_strict
from edgekit.errors import DigestError, EdgekitError
from edgekit.operations.host_records import (
    audit_event,
    load_pins,
    pretty_json,
    previous_generation,
    require_generation,
)
from edgekit.system.clock import wall_clock
from edgekit.system.files import durable_write, exclusive_lock, read_bounded
from edgekit.system.generations import damaged_environments
from edgekit.system.volumes import hash_file

TASK = "scrub"
MAX_REPORT_BYTES = 4 << 20
MAX_NAMED = 100


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """When (Unix seconds), how many files and bytes were read, and which are not as signed."""

    at: int
    files: int
    bytes: int
    bad: tuple[str, ...]


def scrub(layout: HostLayout, listener: Listener) -> ScrubReport:
    """Hash every installed file of the current, previous and pinned releases.

    The report is kept for `status` and `doctor`. Raises NotInstalledError, BusyError, FormatError
    when a manifest is damaged; DigestError, after everything was read, when a file is not as
    signed.
    """
    with exclusive_lock(layout.lock, "this host"):
        current = require_generation(layout)
        previous = previous_generation(layout, current)
        kept = dict.fromkeys(
            name for name in (current, previous, *sorted(load_pins(layout))) if name
        )
        wanted = dict(pair for name in kept for pair in _files(layout, name))
        report = _read_all(wanted, listener)
        bad = [str(path) for name in kept for path in _damaged(layout, name)]
        report = replace(report, bad=(*report.bad, *bad)[:MAX_NAMED])
        durable_write(_path(layout), pretty_json(_table(report)))
        record = {
            "type": "scrub",
            "files": str(report.files),
            "bad": ",".join(report.bad)[:1000],
            "actor": f"uid {os.getuid()}",
        }
        audit_event(layout, record)
    if report.bad:
        raise DigestError(
            f"{len(report.bad)} installed files are not what was signed",
            found="\n".join(report.bad[:10]),
            hint="edgekit install, from the same set, writes damaged files again",
        )
    return report


def load_scrub_report(layout: HostLayout) -> ScrubReport | None:
    """The last report, None when there is none. Raises FormatError when it is damaged."""
    path = _path(layout)
    if not path.is_file():
        return None
    data = read_bounded(path, MAX_REPORT_BYTES, path.name)
    fields = Fields(parse_strict(data, max_bytes=MAX_REPORT_BYTES, what=path.name))
    report = ScrubReport(
        at=fields.integer("at", low=0, high=1 << 40),
        files=fields.integer("files", low=0, high=1 << 40),
        bytes=fields.integer("bytes", low=0, high=1 << 60),
        bad=fields.texts("bad", max_items=MAX_NAMED, max_length=4096),
    )
    fields.finish()
    return report


def _files(layout: HostLayout, generation: str) -> Iterator[tuple[Path, Digest]]:
    """Every file of a generation and every blob it names, with what it must hash to."""
    folder = layout.generation(generation)
    for entry in _manifest(layout, generation).entries:
        blob = layout.blob(entry.digest)
        if entry.role in TREE_ROLES:
            yield folder / str(entry.path), entry.digest
        elif blob.exists():  # variants that were not chosen are not on this host
            yield blob, entry.digest


def _damaged(layout: HostLayout, generation: str) -> tuple[Path, ...]:
    """Engines whose installed wheels are not what was installed: no manifest names those files."""
    tree = [e for e in _manifest(layout, generation).entries if e.role in TREE_ROLES]
    return damaged_environments(layout, generation, tree)


def _manifest(layout: HostLayout, generation: str) -> Manifest:
    path = layout.generation(generation) / "manifest.json"
    return parse_manifest(read_bounded(path, MAX_MANIFEST_BYTES, "manifest.json"))


def _read_all(wanted: dict[Path, Digest], listener: Listener) -> ScrubReport:
    listener(Started(TASK, sum(path.stat().st_size for path in wanted if path.exists())))
    total, bad = 0, []
    for path, digest in sorted(wanted.items()):
        try:
            found, size = hash_file(path, digest.algorithm)
        except EdgekitError:
            bad.append(str(path))
            continue
        total += size
        listener(Advanced(TASK, size))
        if found != digest:
            bad.append(str(path))
    listener(Finished(TASK))
    return ScrubReport(wall_clock(), len(wanted), total, tuple(bad[:MAX_NAMED]))


def _table(report: ScrubReport) -> dict[str, object]:
    return {
        "at": report.at,
        "files": report.files,
        "bytes": report.bytes,
        "bad": list(report.bad),
    }


def _path(layout: HostLayout) -> Path:
    return layout.state / "scrub.json"
