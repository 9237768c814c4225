"""The keys of the audit log that are given away: the public half to all, a MAC key to one."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from edgekit.core.audit_record import check_event
from edgekit.core.host_layout import HostLayout
from edgekit.errors import HostError
from edgekit.operations.audit import Brought, tail_audit, verify_audit
from edgekit.operations.audit_key import hand_over_mac_key, publish_audit_key
from edgekit.system.audit_files import load_audit_signer
from edgekit.system.audit_log import open_audit_log


@pytest.fixture
def host(tmp_path: Path) -> HostLayout:
    layout = HostLayout(tmp_path / "host")
    layout.configuration.mkdir(parents=True)
    open_audit_log(layout.audit).close()
    return layout


def test_the_public_half_is_published_for_everyone(host: HostLayout) -> None:
    fingerprint = publish_audit_key(host)
    assert load_audit_signer(host.audit_public_key).fingerprint == fingerprint
    before = host.audit_public_key.stat()
    assert stat.S_IMODE(before.st_mode) == 0o644
    assert publish_audit_key(host) == fingerprint
    assert host.audit_public_key.stat().st_mtime_ns == before.st_mtime_ns


def test_a_mac_key_that_was_handed_over_checks_every_record_elsewhere(
    host: HostLayout, tmp_path: Path
) -> None:
    key = hand_over_mac_key(host, tmp_path / "mac.key")
    assert key.epoch == 0
    assert stat.S_IMODE((tmp_path / "mac.key").stat().st_mode) == 0o600
    record = next(r for r in tail_audit(host.audit, 9) if r["type"] == "key_handover")
    assert record["to"] == str(tmp_path / "mac.key")
    assert key.key.hex() not in json.dumps(record)
    log = open_audit_log(host.audit)
    log.append_batch([check_event({"type": "request", "request_id": "r1"})])
    log.close()
    publish_audit_key(host)
    summary = verify_audit(host.audit, Brought(host.audit_public_key, (tmp_path / "mac.key",)))
    assert summary.verdict.sealed_from == 1


def test_a_file_is_never_overwritten_by_a_key(host: HostLayout, tmp_path: Path) -> None:
    (tmp_path / "mac.key").write_text("precious")
    with pytest.raises(HostError, match="there already"):
        hand_over_mac_key(host, tmp_path / "mac.key")
    assert (tmp_path / "mac.key").read_text() == "precious"
