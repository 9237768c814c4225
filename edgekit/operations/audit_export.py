"""`edgekit audit export`: a range of the log as a signed package, checked while it is copied.

The steps: E1 the range, E2 the room, E3 verify and copy line by line, E4 sign, E5 record, then the
name. What leaves the host is recorded before it counts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from edgekit.core.audit_chain import LogLine, parse_line
from edgekit.core.audit_export import (
    EXPORT_NAME,
    EXPORT_TYPE,
    MAX_FILES,
    ExportManifest,
    encode_manifest,
    render_readme,
)
from edgekit.core.audit_retention import EXPORT, exported_to
from edgekit.core.audit_verify import Evidence, Verdict, Verifier
from edgekit.core.envelope import encode_envelope
from edgekit.core.events import Advanced, Finished, Listener, Started
from edgekit.core.host_layout import HostLayout
from edgekit.core.hybrid_key import MAX_HALF_BYTES, HybridKey
from edgekit.core.siem import Origin, render_cef, render_syslog
from edgekit.errors import AuditFormatError, AuditMissingError, PrivilegeError, TrustError
from edgekit.operations.audit import Brought, gather_evidence
from edgekit.operations.audit_anchor import checkpoint_name, newest_checkpoint
from edgekit.operations.host_records import audit_event
from edgekit.system.audit_files import (
    first_record,
    log_segments,
    public_half_path,
    read_head,
    read_lines,
    signer_folder,
)
from edgekit.system.audit_package import PackageWriter, finish_packages
from edgekit.system.clock import wall_clock
from edgekit.system.files import check_room, exclusive_lock, read_bounded
from edgekit.system.signing import load_signer

TASK = "export"
FORMATS = ("cef", "syslog")
LARGER = 2
"""A record in another form is at most about twice as long as its line (measured: 1.3 to 1.7)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records: by number, by time (us since 1970; `until` excluded), or what was not exported
    yet. Whole segments are exported, so a range may begin earlier than asked for."""

    first: int | None = None
    last: int | None = None
    since: int | None = None
    until: int | None = None
    new: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """A package: where it lies, what its list says, and the fingerprint of who signed it."""

    folder: Path
    manifest: ExportManifest
    signer: str


def export_audit(
    layout: HostLayout,
    out: Path,
    wanted: Wanted,
    formats: tuple[str, ...],
    listener: Listener,
) -> Exported:
    """Write the range to a new folder in `out`.

    Raises PrivilegeError, BusyError, AuditMissingError when the range holds nothing, DiskFullError,
    AuditUnavailableError when it cannot be recorded, and the verifier's errors for a log that is
    not intact: that one is copied as it is, and verified elsewhere.
    """
    if not layout.is_private and os.geteuid() != 0:
        raise PrivilegeError("exporting needs root", hint="sudo edgekit audit export --out DIR")
    with exclusive_lock(layout.audit_lock, "the audit log's exports"):
        first, last = _range(layout.audit, wanted)  # E1
        begin = _segment_of(layout.audit, first)
        size = _check_room(layout.audit, out, begin, formats)  # E2
        head = read_head(layout.audit)
        evidence = gather_evidence(layout.audit, Brought(first=begin))
        signer = _require_signer(evidence)
        prefix = f"edgekit-audit-{head.log_id[:12]}"
        name = f"{prefix}-{begin}-{last}"
        _finish_earlier(layout.audit, out, prefix)
        listener(Started(TASK, size))
        with PackageWriter(out, name) as package:
            origin = Origin(socket.gethostname(), head.log_id)
            verdict = _copy(layout.audit, evidence, last, package, formats, origin, listener)  # E3
            manifest = _sign(layout.audit, verdict, package, origin, signer.fingerprint)  # E4
            record = {
                "type": EXPORT,
                "first": begin,
                "last": last,
                "chain": manifest.chain.hex(),
                "formats": ",".join(("jsonl", *formats)),
                "to": str(out),
                "actor": f"uid {os.getuid()}",
            }
            audit_event(layout, record)  # E5
            folder = package.commit()
        listener(Finished(TASK))
    return Exported(folder, manifest, signer.fingerprint)


def _finish_earlier(log_dir: Path, out: Path, prefix: str) -> None:
    """A package that was recorded and not yet named when its export was cut off gets its name."""
    recorded: set[str] = set()

    def counts(name: str) -> bool:
        if not recorded:
            found = read_records(log_dir, EXPORT)
            recorded.update(f"{prefix}-{record['first']}-{record['last']}" for record in found)
        return name in recorded

    finish_packages(out, prefix, EXPORT_NAME, counts)


def _require_signer(evidence: Evidence) -> HybridKey:
    if evidence.signer is None:
        raise TrustError("the audit key's public half is missing, and with it who could sign")
    return evidence.signer


def _range(log_dir: Path, wanted: Wanted) -> tuple[int, int]:
    """First and last record asked for. Raises AuditMissingError for a range without records."""
    head, segments = read_head(log_dir), log_segments(log_dir)
    oldest = first_record(segments[0]) if segments else 1
    first = max(wanted.first or oldest, oldest)
    last = min(wanted.last or head.seq, head.seq)
    if wanted.new:
        first = max(first, exported_to(read_records(log_dir, EXPORT), oldest) + 1)
    if wanted.since is not None or wanted.until is not None:
        inside = [
            record["seq"]
            for record in read_records(log_dir)
            if (wanted.since is None or record["t_utc"] >= wanted.since)
            and (wanted.until is None or record["t_utc"] < wanted.until)
        ]
        first, last = (max(first, inside[0]), min(last, inside[-1])) if inside else (1, 0)
    if first > last:
        raise AuditMissingError(
            "there is nothing to export",
            found=f"records {oldest} to {head.seq}",
            needed="a range that holds records",
        )
    return first, last


def read_records(log_dir: Path, kind: str = "") -> Iterator[dict[str, Any]]:
    """The log's records, of one type when asked for; parsed only where they may be of it."""
    mark = f'"type":"{kind}'.encode()
    for line in read_lines(log_dir):
        if mark in line.data:
            record = parse_line(line, 0)
            if kind in ("", record["type"]):
                yield record


def _segment_of(log_dir: Path, seq: int) -> int:
    """The first record of the segment that holds record `seq`."""
    return max(first for path in log_segments(log_dir) if (first := first_record(path)) <= seq)


def _check_room(log_dir: Path, out: Path, begin: int, formats: tuple[str, ...]) -> int:
    """Bytes to read, once it is known that the package has room and is not too many files."""
    paths = [path for path in log_segments(log_dir) if first_record(path) >= begin]
    if len(paths) * (1 + len(formats)) > MAX_FILES:
        raise AuditFormatError("the export has too many files", needed="a smaller range: --to N")
    size = sum(path.stat().st_size for path in paths)
    check_room(out, size * (1 + LARGER * len(formats)) + (1 << 20), "the export")
    return size


def _copy(
    log_dir: Path,
    evidence: Evidence,
    last: int,
    package: PackageWriter,
    formats: tuple[str, ...],
    origin: Origin,
    listener: Listener,
) -> Verdict:
    """Check every line and copy it; the verdict over what was copied."""
    head = evidence.head if evidence.head is not None and evidence.head.seq <= last else None
    verifier = Verifier(Evidence(evidence.signer, evidence.keys, (), head, evidence.first))
    numbered = enumerate(read_lines(log_dir, evidence.first), evidence.first)
    lines = (line for _, line in takewhile(lambda item: item[0] <= last, numbered))
    segment, read = "", 0
    for verified in verifier.check(lines):
        line = verified.line
        if line.segment != segment:
            package.end_files()
            segment = line.segment
        _copy_line(package, line, formats, origin)
        read += len(line.data) + 1
        if read >= 1 << 20:
            listener(Advanced(TASK, read))
            read = 0
    listener(Advanced(TASK, read))
    package.end_files()
    return verifier.verdict()


def _copy_line(
    package: PackageWriter, line: LogLine, formats: tuple[str, ...], origin: Origin
) -> None:
    package.add_line(line.segment, line.data)
    if not formats:
        return
    record = parse_line(line, 0)
    stem = line.segment.removesuffix(".jsonl")
    if "cef" in formats:
        package.add_line(f"{stem}.cef", render_cef(record, origin).encode("ascii"))
    if "syslog" in formats:
        text = line.data.decode("ascii")
        package.add_line(f"{stem}.syslog", render_syslog(record, origin, text))


def _sign(
    log_dir: Path, verdict: Verdict, package: PackageWriter, origin: Origin, fingerprint: str
) -> ExportManifest:
    """The list of files, signed by the host's audit key, and what a reader needs beside it."""
    log_id = verdict.log_id
    half = public_half_path(log_dir, log_id)
    package.add_file(half.name, read_bounded(half, MAX_HALF_BYTES, "public half"))
    newest = newest_checkpoint(log_dir)
    if newest is not None and newest.value.seq <= verdict.last:
        package.add_file(checkpoint_name(newest), newest.envelope)
    signer = load_signer(f"file:{signer_folder(log_dir, log_id)}")
    manifest = ExportManifest(
        log_id,
        origin.host,
        wall_clock() * 1_000_000,
        verdict.first,
        verdict.last,
        verdict.chain,
        verdict.root,
        (),
    )
    package.add_file("README.txt", render_readme(manifest, fingerprint).encode())
    manifest = replace(manifest, files=package.files())
    payload = encode_manifest(manifest)
    package.sign_off(
        EXPORT_NAME, encode_envelope(payload, signer.sign(payload, EXPORT_TYPE), EXPORT_TYPE)
    )
    return manifest
