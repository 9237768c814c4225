"""Retention: only what was exported goes, it is recorded first, and the rest stays provable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.main import main
from edgekit.core.events import ignore_events
from edgekit.core.host_layout import HostLayout
from edgekit.errors import AuditUnavailableError, EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.operations.audit import tail_audit, verify_audit
from edgekit.operations.audit_export import Wanted, export_audit
from edgekit.operations.audit_prune import KEPT_SEGMENTS, prune_audit
from edgekit.system.audit_files import log_segments, oldest_record, public_half_path, read_head
from edgekit.system.audit_log import open_audit_log
from tests.support.audit_logs import start_log, write_requests


@pytest.fixture
def layout(tmp_path: Path) -> HostLayout:
    layout = HostLayout(tmp_path / "host")
    written = start_log(layout.audit, segment_bytes=20_000)
    for _ in range(3):
        write_requests(written, 80)
    assert len(log_segments(layout.audit)) >= 5
    return layout


def export(layout: HostLayout, **wanted: Any) -> Path:
    out = layout.root.parent / "stick"
    return export_audit(layout, out, Wanted(**wanted), (), ignore_events).folder


def retention(layout: HostLayout) -> dict[str, Any]:
    return [r for r in tail_audit(layout.audit, 20) if r["type"] == "retention"][-1]


def verify(layout: HostLayout, *more: str) -> int:
    return main(["audit", "verify", "--root", str(layout.root), *more])


def test_what_was_not_exported_stays(layout: HostLayout) -> None:
    before = log_segments(layout.audit)
    assert prune_audit(layout, None, None).segments == 0
    second = int(before[1].name[6:22])
    export(layout, last=second + 1)  # the second segment only in part
    done = prune_audit(layout, None, None)
    assert (done.segments, done.last, done.forced) == (1, second - 1, False)
    assert log_segments(layout.audit) == before[1:]
    export(layout, first=int(before[3].name[6:22]))  # a gap: what lies between was never exported
    assert prune_audit(layout, None, None).segments == 0


def test_the_rest_is_intact_and_says_why_it_begins_there(
    layout: HostLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    half = public_half_path(layout.audit, read_head(layout.audit).log_id)
    package = export(layout)
    done = prune_audit(layout, None, None)
    assert len(log_segments(layout.audit)) == KEPT_SEGMENTS
    assert oldest_record(layout.audit) == done.kept_from
    assert verify(layout) in (ExitCode.OK, ExitCode.WARNINGS)
    said = capsys.readouterr().out
    assert f"begins with record {done.kept_from}: those before were removed after" in said
    removed = verify_audit(layout.audit).removed
    assert removed is not None
    assert (removed.last, removed.forced) == (done.last, False)
    assert main(["audit", "verify", "--log", str(package), "--pubkey", str(half)]) == ExitCode.OK
    export(layout)  # and what is left can be exported again
    assert prune_audit(layout, None, None).segments == 0


def test_a_beginning_that_nobody_recorded_is_missing(layout: HostLayout) -> None:
    segments = log_segments(layout.audit)
    segments[0].unlink()
    assert verify(layout) == ExitCode.AUDIT_MISSING
    assert verify(layout, "--from", segments[1].name[6:22]) in (ExitCode.OK, ExitCode.WARNINGS)
    assert main(["audit", "prune", "--root", str(layout.root)]) == ExitCode.AUDIT_MISSING
    assert log_segments(layout.audit) == segments[1:]


def test_more_than_was_recorded_is_missing(layout: HostLayout) -> None:
    export(layout, last=int(log_segments(layout.audit)[2].name[6:22]))
    prune_audit(layout, None, None)
    log_segments(layout.audit)[0].unlink()
    assert verify(layout) == ExitCode.AUDIT_MISSING


def test_by_force_it_is_recorded(
    layout: HostLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ("--root", str(layout.root))
    assert main(["audit", "prune", "--insecure-unexported", "", *root]) == ExitCode.FORMAT
    assert main(["audit", "prune", "--insecure-unexported", "disk full", *root]) == ExitCode.OK
    assert "exported were only records up to 0" in capsys.readouterr().err
    record = retention(layout)
    assert (record["forced"], record["reason"], record["exported_to"]) == (True, "disk full", 0)
    verify(layout)
    assert "removed unexported, by force" in capsys.readouterr().out


def test_only_what_is_older(layout: HostLayout) -> None:
    export(layout)
    begins = [json.loads(path.open().readline())["t_utc"] for path in log_segments(layout.audit)]
    assert prune_audit(layout, begins[0], None).segments == 0
    assert prune_audit(layout, begins[2] + 1, None).segments >= 2


def test_nothing_goes_that_cannot_be_recorded(layout: HostLayout) -> None:
    export(layout)
    before, log = log_segments(layout.audit), open_audit_log(layout.audit)
    try:
        with pytest.raises(AuditUnavailableError):
            prune_audit(layout, None, None)
    finally:
        log.close()
    assert [path for path in before if not path.exists()] == []


def test_cut_off_anywhere_it_is_intact_and_finished_later(
    layout: HostLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(layout)
    whole, real, fired = tmp_path / "whole", Path.unlink, 0
    shutil.copytree(layout.root, whole)
    planned = len(log_segments(layout.audit)) - KEPT_SEGMENTS
    for allowed in range(planned):
        shutil.rmtree(layout.root)
        shutil.copytree(whole, layout.root)
        left = [allowed]

        def unlink(path: Path, missing_ok: bool = False, left: list[int] = left) -> None:
            if path.suffix == ".jsonl":
                if not left[0]:
                    raise OSError(5, "Input/output error", str(path))
                left[0] -= 1
            real(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            with pytest.raises(EdgekitError):
                prune_audit(layout, None, None)
            fired += 1
        assert verify(layout) in (ExitCode.OK, ExitCode.WARNINGS)
        assert prune_audit(layout, None, None).segments == planned - allowed
        assert verify(layout) in (ExitCode.OK, ExitCode.WARNINGS)
    assert fired == planned > 2
