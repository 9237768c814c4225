"""A new MAC key: the old one checks the log up to there, and a crash leaves one or the other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.core.audit_chain import Pace
from edgekit.core.audit_keys import AuditKey
from edgekit.core.audit_record import REKEY, check_event
from edgekit.core.host_layout import HostLayout
from edgekit.errors import AuditError, FormatError
from edgekit.operations.audit import Brought, tail_audit, verify_audit
from edgekit.operations.audit_key import hand_over_mac_key, publish_audit_key, replace_mac_key
from edgekit.system.audit_files import log_segments, read_head
from edgekit.system.audit_keyring import NEXT_KEY_NAME
from edgekit.system.audit_log import LogSettings, open_audit_log
from edgekit.system.audit_secrets import load_mac_key
from tests.support.audit_logs import Clock, Written, start_log

ASK = {"type": REKEY, "reason": "a test", "actor": "uid 0"}


def add(log_dir: Path, count: int = 3) -> None:
    log = open_audit_log(log_dir)
    for number in range(count):
        log.append_batch([check_event({"type": "request", "request_id": f"r{number}"})])
    log.close()


@pytest.fixture
def host(tmp_path: Path) -> HostLayout:
    layout = HostLayout(tmp_path / "host")
    layout.configuration.mkdir(parents=True)
    open_audit_log(layout.audit).close()
    return layout


def test_old_and_new_key_check_their_own_part_and_together_all(
    host: HostLayout, tmp_path: Path
) -> None:
    first = hand_over_mac_key(host, tmp_path / "first.key")
    add(host.audit)
    new = replace_mac_key(host, "the auditor left")
    assert hand_over_mac_key(host, tmp_path / "new.key").key != first.at(new.epoch).key
    add(host.audit)
    publish_audit_key(host)
    old_key, new_key = tmp_path / "first.key", tmp_path / "new.key"

    def check(*keys: Path) -> int | None:
        return verify_audit(host.audit, Brought(host.audit_public_key, keys)).verdict.sealed_from

    assert check(old_key, new_key) == 1
    assert check(old_key) is None
    records = {record["seq"]: record for record in tail_audit(host.audit, 99)}
    asked = next(record for record in records.values() if record["type"] == REKEY)
    end = records[asked["seq"] + 1]
    assert (asked["reason"], end["type"], end["rekeyed"]) == ("the auditor left", "epoch", True)
    assert check(new_key) is not None
    assert not list(host.audit.glob(f"*/{NEXT_KEY_NAME}"))


@pytest.mark.parametrize("reason", ["", "two\nlines", "x" * 201])
def test_a_reason_is_needed(host: HostLayout, reason: str) -> None:
    before = read_head(host.audit)
    with pytest.raises(FormatError):
        replace_mac_key(host, reason)
    assert read_head(host.audit) == before


def test_the_next_epoch_key_cannot_be_made_from_the_old_one(host: HostLayout) -> None:
    log_id = read_head(host.audit).log_id
    old = load_mac_key(host.audit, log_id)
    assert old is not None
    new = replace_mac_key(host, "a test")
    assert new.epoch > old.epoch
    assert old.at(new.epoch) != new


def states(folder: Path) -> Iterator[tuple[str, Path, AuditKey, AuditKey]]:
    """What a crash can leave of a rekeying, with the first key and the new one."""
    written = start_log(folder / "log", pace=Pace(300, 50))
    log = written.open()
    log.append_batch([check_event({"type": "request", "request_id": "r"})])
    log.close()
    size = written.segments()[-1].stat().st_size

    def keep(_descriptor: int) -> None:
        """When the records are written and not synced yet: the new key waits beside them."""
        if list(written.directory.glob(f"*/{NEXT_KEY_NAME}")) and not (folder / "cut").exists():
            shutil.copytree(written.directory, folder / "cut")

    log = written.open(keep)
    log.rekey(check_event(ASK))
    new = load_mac_key(written.directory, log.head.log_id)
    assert new is not None
    shutil.copytree(written.directory, folder / "done")
    log.close()
    cut = folder / "cut"
    (waiting,) = cut.glob(f"*/{NEXT_KEY_NAME}")
    data = log_segments(cut)[-1].read_bytes()
    whole = waiting.read_bytes()
    state = folder / "state"
    for name, key, end in [
        ("key half written", whole[:length], size) for length in (0, 1, len(whole) - 1)
    ] + [("records half written", whole, end) for end in range(size, len(data) + 1)]:
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(cut, state)
        log_segments(state)[-1].write_bytes(data[:end])
        (state / waiting.relative_to(cut)).write_bytes(key)
        yield f"{name}, {end - size}", state, written.first_key, new
    for name in ("kept, not forgotten", "done"):
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(folder / "done", state)
        if name != "done":
            (state / waiting.relative_to(cut)).write_bytes(whole)
        yield name, state, written.first_key, new


def test_a_crash_leaves_the_old_key_or_the_new_one(tmp_path: Path) -> None:
    seen = set()
    for name, folder, first, new in states(tmp_path):
        written = Written(folder, first, Clock(), LogSettings())
        written.clock.tick(100)
        log = written.open()
        numbers = log.append_batch([check_event({"type": "response", "request_id": "r"})])
        assert numbers, name
        kept = load_mac_key(folder, log.head.log_id)
        log.close()
        assert kept is not None
        assert not list(folder.glob(f"*/{NEXT_KEY_NAME}")), name
        rekeyed = any(b'"rekeyed":true' in line.data for line in written.lines())
        assert (kept == new) == rekeyed, name
        verdict = written.verify(keys=(first, new) if rekeyed else (first,))
        assert verdict.sealed_from == 1, name
        seen.add(rekeyed)
    assert seen == {True, False}


def test_a_rekeyed_log_is_not_checked_with_the_old_key(host: HostLayout, tmp_path: Path) -> None:
    """Had the writer gone on with the ratcheted key, who holds the old one could forge."""
    hand_over_mac_key(host, tmp_path / "first.key")
    replace_mac_key(host, "a test")
    add(host.audit)
    data = log_segments(host.audit)[-1].read_bytes()
    assert b'"rekeyed":true' in data
    publish_audit_key(host)
    log_segments(host.audit)[-1].write_bytes(data.replace(b'"rekeyed":true', b'"rekeyed":false'))
    with pytest.raises(AuditError):
        verify_audit(host.audit, Brought(host.audit_public_key, (tmp_path / "first.key",)))
