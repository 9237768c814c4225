"""Exports and anchors: whole, signed, checked on another machine; every harm is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.main import main
from edgekit.core.audit_export import EXPORT_NAME
from edgekit.core.events import ignore_events
from edgekit.core.host_layout import HostLayout
from edgekit.core.siem import Origin, render_cef, render_syslog
from edgekit.errors import AuditMissingError, AuditUnavailableError, HostError
from edgekit.exit_codes import ExitCode
from edgekit.operations import audit_anchor
from edgekit.operations.audit_anchor import anchor_visitors
from edgekit.operations.audit_export import Exported, Wanted, export_audit
from edgekit.system.audit_files import log_segments, public_half_path, read_head
from edgekit.system.audit_log import open_audit_log
from edgekit.system.audit_package import finish_packages
from edgekit.system.audit_secrets import load_mac_key
from tests.support.audit_logs import Clock, Written, start_log, write_requests


@pytest.fixture
def layout(tmp_path: Path) -> HostLayout:
    """A host whose log has a few hundred records in several segments."""
    layout = HostLayout(tmp_path / "host")
    written = start_log(layout.audit, segment_bytes=20_000)
    for _ in range(3):
        write_requests(written, 80)
    return layout


def export(layout: HostLayout, out: Path, *formats: str, **wanted: Any) -> Exported:
    return export_audit(layout, out, Wanted(**wanted), formats, ignore_events)


def pubkey(layout: HostLayout) -> Path:
    return public_half_path(layout.audit, read_head(layout.audit).log_id)


def verify(folder: Path, *more: object) -> int:
    return main(["audit", "verify", "--log", str(folder), *map(str, more)])


def test_everything_is_verified_elsewhere(
    layout: HostLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = read_head(layout.audit).seq
    done = export(layout, tmp_path / "stick")
    assert done.folder.name == done.manifest.folder
    assert (done.manifest.first, done.manifest.last) == (1, last)
    half = tmp_path / "enrolled.signer.json"
    shutil.copy(pubkey(layout), half)
    shutil.rmtree(layout.root)  # on another machine there is no host
    assert verify(done.folder, "--pubkey", half) == ExitCode.OK
    assert f"signed: to record {last}" in capsys.readouterr().out
    assert verify(done.folder) == ExitCode.WARNINGS
    assert "the audit key came with the export" in capsys.readouterr().out
    lines = b"".join(path.read_bytes() for path in log_segments(done.folder)).splitlines()
    assert len(lines) == last
    assert done.signer in (done.folder / "README.txt").read_text()


def test_a_range_begins_with_its_segment(layout: HostLayout, tmp_path: Path) -> None:
    second = int(log_segments(layout.audit)[1].name[6:22])
    done = export(layout, tmp_path / "stick", first=second + 3, last=second + 9)
    assert (done.manifest.first, done.manifest.last) == (second, second + 9)
    assert verify(done.folder, "--pubkey", pubkey(layout)) == ExitCode.OK
    with pytest.raises(HostError, match="exported here before"):
        export(layout, tmp_path / "stick", first=second + 3, last=second + 9)
    with pytest.raises(AuditMissingError, match="nothing to export"):
        export(layout, tmp_path / "stick", first=10_000_000)
    assert [path.name for path in (tmp_path / "stick").iterdir()] == [done.folder.name]


def test_only_what_is_new(layout: HostLayout, tmp_path: Path) -> None:
    done = export(layout, tmp_path / "one")
    again = export(layout, tmp_path / "two", new=True)
    assert again.manifest.first > 1
    assert again.manifest.first <= done.manifest.last + 1 <= again.manifest.last
    assert verify(again.folder, "--pubkey", pubkey(layout)) == ExitCode.OK


def test_by_time(layout: HostLayout, tmp_path: Path) -> None:
    records = [json.loads(line) for path in log_segments(layout.audit)
               for line in path.read_bytes().splitlines()]
    wanted = [r["seq"] for r in records if r["t_utc"] < records[100]["t_utc"]]
    done = export(layout, tmp_path / "stick", until=records[100]["t_utc"])
    assert (done.manifest.first, done.manifest.last) == (1, wanted[-1])


def test_other_forms_hold_every_record(layout: HostLayout, tmp_path: Path) -> None:
    done = export(layout, tmp_path / "stick", "cef", "syslog")
    origin = Origin(done.manifest.host, done.manifest.log_id)
    for path in log_segments(done.folder):
        lines = path.read_text("ascii").splitlines()
        records = [json.loads(line) for line in lines]
        cef = path.with_suffix(".cef").read_text("ascii").splitlines()
        syslog = path.with_suffix(".syslog").read_bytes().splitlines()
        assert cef == [render_cef(record, origin) for record in records]
        assert syslog == [render_syslog(r, origin, x) for r, x in zip(records, lines, strict=True)]
    assert verify(done.folder, "--pubkey", pubkey(layout)) == ExitCode.OK


def test_every_harm_is_found(layout: HostLayout, tmp_path: Path) -> None:
    done = export(layout, tmp_path / "stick", "cef")
    half, whole = pubkey(layout), tmp_path / "whole"
    shutil.copytree(done.folder, whole)
    segments = [path.name for path in log_segments(done.folder)]

    def harm(name: str, change: Callable[[Path], object]) -> int:
        shutil.rmtree(done.folder)
        shutil.copytree(whole, done.folder)
        change(done.folder / name)
        return verify(done.folder, "--pubkey", half)

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    def cut(path: Path) -> None:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))

    def add(path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"{")

    assert harm(segments[0], lambda _path: None) == ExitCode.OK
    assert harm(segments[1], flip) in (ExitCode.AUDIT_ALTERED, ExitCode.AUDIT_FORMAT,
                                       ExitCode.AUDIT_MISSING)
    assert harm(segments[-1], cut) == ExitCode.AUDIT_TRUNCATED
    assert harm(segments[-1], add) == ExitCode.AUDIT_ALTERED
    assert harm(segments[1], Path.unlink) == ExitCode.AUDIT_MISSING
    assert harm(segments[-1], Path.unlink) == ExitCode.AUDIT_TRUNCATED
    assert harm(segments[0].replace(".jsonl", ".cef"), flip) == ExitCode.AUDIT_ALTERED
    assert harm(segments[0].replace(".jsonl", ".cef"), Path.unlink) == ExitCode.AUDIT_MISSING
    assert harm("README.txt", flip) == ExitCode.AUDIT_ALTERED
    assert harm(EXPORT_NAME, flip) in (ExitCode.AUDIT_CHECKPOINT, ExitCode.AUDIT_FORMAT)
    strange = start_log(tmp_path / "other")
    other = public_half_path(strange.directory, read_head(strange.directory).log_id)
    assert verify(whole, "--pubkey", other) == ExitCode.AUDIT_CHECKPOINT


def test_nothing_leaves_that_cannot_be_recorded(layout: HostLayout, tmp_path: Path) -> None:
    log = open_audit_log(layout.audit)  # held by another writer, which has no socket
    try:
        with pytest.raises(AuditUnavailableError):
            export(layout, tmp_path / "stick")
    finally:
        log.close()
    assert list((tmp_path / "stick").iterdir()) == []


def test_a_broken_log_is_not_signed(layout: HostLayout, tmp_path: Path) -> None:
    path = log_segments(layout.audit)[1]
    path.write_bytes(path.read_bytes().replace(b'"n":', b'"m":', 1))
    assert main(["audit", "export", "--out", str(tmp_path / "stick"), "--root",
                 str(layout.root)]) == ExitCode.AUDIT_ALTERED
    assert list((tmp_path / "stick").iterdir()) == []


def test_an_anchor_tells_a_log_that_was_cut(layout: HostLayout, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(layout.audit, old)
    write_more(layout)
    assert main(["audit", "anchor", "--to", str(tmp_path), "--root", str(layout.root)]) == 0
    root = ("--root", str(layout.root))
    assert main(["audit", "verify", "--anchor", str(tmp_path), *root]) == ExitCode.WARNINGS
    assert main(["audit", "verify", *root]) in (ExitCode.OK, ExitCode.WARNINGS)
    shutil.rmtree(layout.audit)
    old.rename(layout.audit)
    assert main(["audit", "verify", *root]) in (ExitCode.OK, ExitCode.WARNINGS)
    assert main(["audit", "verify", "--anchor", str(tmp_path), *root]) == ExitCode.AUDIT_TRUNCATED


def write_more(layout: HostLayout) -> None:
    head = read_head(layout.audit)
    key = load_mac_key(layout.audit, head.log_id)
    assert key is not None
    write_requests(Written(layout.audit, key, Clock(t_utc=1_800_000_000_000_000)), 5)



def test_every_other_medium_is_anchored(
    layout: HostLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    stick = tmp_path / "stick"
    (stick / "demo-1.0.0").mkdir(parents=True)
    anchor_visitors(layout, [stick / "demo-1.0.0"], said.append)
    assert not (stick / "edgekit-anchors").exists(), "the host's own disk is no visitor"
    monkeypatch.setattr(audit_anchor, "file_system_of", lambda path: path == layout.audit)
    anchor_visitors(layout, [stick / "demo-1.0.0"], said.append)
    anchors = sorted(path.name for path in (stick / "edgekit-anchors").iterdir())
    assert len(anchors) == 2
    assert sum(name.endswith(".checkpoint") for name in anchors) == 1
    assert said == []
    shutil.rmtree(stick / "edgekit-anchors")
    (stick / "edgekit-anchors").write_text("in the way")
    anchor_visitors(layout, [stick / "demo-1.0.0"], said.append)
    assert len(said) == 1
    anchor_visitors(HostLayout(tmp_path / "nothing"), [stick / "demo-1.0.0"], said.append)
    assert len(said) == 1


def test_an_export_that_was_cut_off_gets_its_name_if_it_was_recorded(tmp_path: Path) -> None:
    out, prefix = tmp_path, "edgekit-audit-0123456789ab"
    for name, files in (("1-9", ("a", "last")), ("1-10", ("a", "last")), ("1-11", ("a",))):
        (out / f"{prefix}-{name}.partial").mkdir()
        for file in files:
            (out / f"{prefix}-{name}.partial" / file).write_text("x")
    (out / "edgekit-audit-ba9876543210-1-9.partial").mkdir()  # another log's
    finish_packages(out, prefix, "last", lambda name: name == f"{prefix}-1-10")
    assert sorted(path.name for path in out.iterdir()) == [
        f"{prefix}-1-10", "edgekit-audit-ba9876543210-1-9.partial",
    ]  # fmt: skip
