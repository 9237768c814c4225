"""The auditor's key and the texts on a host: read, erased, recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.core.audit_texts import TextLabel, clear_text, load_recipient, seal_text
from edgekit.core.host_layout import HostLayout
from edgekit.errors import AuditUnavailableError, EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.operations.audit import tail_audit, verify_audit
from edgekit.operations.audit_texts import erase_texts
from edgekit.system.audit_log import append_offline, open_audit_log
from edgekit.system.audit_texts import TextStore

MINUTE_US = 60_000_000
NOW = 1_790_000_000_000_000


@pytest.fixture
def layout(tmp_path: Path) -> HostLayout:
    """A host with three requests: sealed, in clear, and one of which nothing was kept."""
    assert main(["audit", "keygen", str(tmp_path / "auditor")]) == ExitCode.OK
    layout = HostLayout(tmp_path / "host")
    key = load_recipient((tmp_path / "auditor/auditor.pub.pem").read_bytes())
    store, records = TextStore(layout.texts), []
    for number in range(3):
        request_id = f"req-{number}"
        fields = {"type": "request", "request_id": request_id, "model": "demo"}
        label = TextLabel(request_id, "prompt", NOW + number * MINUTE_US)
        text = f"secret {number}".encode()
        if number == 0:
            fields["prompt_file"] = store.write(label, seal_text(label, text, key))
        if number == 1:
            fields["prompt_file"] = store.write(label, clear_text(label, text, b"n" * 32))
        records += [fields, {"type": "response", "request_id": request_id, "status": 200}]
    append_offline(layout.audit, records)
    return layout


def run(layout: HostLayout, *arguments: str) -> int:
    return main(["audit", *arguments, "--root", str(layout.root)])


def test_texts_are_read_with_the_key(
    layout: HostLayout, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    key = str(layout.root.parent / "auditor/auditor.pem")
    assert run(layout, "text", "req-0", "--key", key) == ExitCode.OK
    assert capfdbinary.readouterr().out == b"secret 0\n"
    assert run(layout, "text", "req-0") == ExitCode.TRUST
    assert run(layout, "text", "req-1") == ExitCode.OK
    assert capfdbinary.readouterr().out == b"secret 1\n"
    assert run(layout, "text", "req-2") == ExitCode.HOST
    assert b"no texts were kept" in capfdbinary.readouterr().err
    assert run(layout, "text", "req-9") == ExitCode.HOST


def test_text_that_was_changed_is_not_shown(
    layout: HostLayout, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = TextStore(layout.texts).find("req-1", "prompt")
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b"secret", b"public"))
    assert run(layout, "text", "req-1") == ExitCode.AUDIT_ALTERED
    assert capfdbinary.readouterr().out == b""


def test_erasing_is_recorded_and_the_log_stays_intact(
    layout: HostLayout, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(layout, "erase", "--request", "req-0", "--reason", "asked for") == ExitCode.OK
    assert run(layout, "text", "req-0") == ExitCode.OK
    assert b"was erased" in capfdbinary.readouterr().err
    (record,) = [r for r in tail_audit(layout.audit, 50) if r["type"] == "text_erased"]
    assert (record["type"], record["request_ids"], record["reason"]) == (
        "text_erased", "req-0", "asked for",
    )
    assert verify_audit(layout.audit).requests == 3
    records = verify_audit(layout.audit).records
    assert run(layout, "erase", "--request", "req-0", "--reason", "again") == ExitCode.HOST
    assert verify_audit(layout.audit).records == records


def test_erasing_what_is_older(layout: HostLayout) -> None:
    store = TextStore(layout.texts)
    erased = erase_texts(layout, frozenset(), NOW + MINUTE_US, "retention")
    assert (erased.requests, erased.files) == (1, 1)
    assert [path.name for path in store.files()] == ["req-1.prompt.text"]


def test_nothing_is_erased_that_cannot_be_recorded(layout: HostLayout) -> None:
    log = open_audit_log(layout.audit)  # held by another writer, which has no socket
    try:
        with pytest.raises(AuditUnavailableError):
            erase_texts(layout, frozenset({"req-0"}), None, "asked for")
    finally:
        log.close()
    assert TextStore(layout.texts).find("req-0", "prompt") is not None


def test_key_is_private_and_never_overwritten(layout: HostLayout) -> None:
    folder = layout.root.parent / "auditor"
    assert (folder / "auditor.pem").stat().st_mode & 0o777 == 0o600
    before = (folder / "auditor.pem").read_bytes()
    assert main(["audit", "keygen", str(folder)]) == ExitCode.TRUST
    assert (folder / "auditor.pem").read_bytes() == before


def test_request_ids_are_no_paths(layout: HostLayout) -> None:
    with pytest.raises(EdgekitError):
        erase_texts(layout, frozenset({"../x"}), None, "r")
