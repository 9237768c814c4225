"""What a boot may conclude: well, back to the release before (once), or nothing at all."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgekit.core import trust
from edgekit.core.appliance import Appliance, CanaryCheck, encode_appliance
from edgekit.core.host_layout import HostLayout
from edgekit.errors import (
    AuditUnavailableError,
    BusyError,
    ConfigError,
    HostError,
    RollbackError,
)
from edgekit.operations import boot_check
from edgekit.operations.audit import tail_audit
from edgekit.operations.boot_check import (
    BootReport,
    Patience,
    check_after_boot,
    give_labels,
    load_boot_report,
    load_fallbacks,
)
from edgekit.operations.rollback import rollback
from edgekit.operations.unfinished import INSTALL, Unfinished, begin_marker
from edgekit.system.files import exclusive_lock
from edgekit.system.services import AUDIT_WRITER, GATEWAY, UnitState
from edgekit.system.trust_store import TrustStore
from tests.gateway.conftest import make_appliance
from tests.support.sets import RootBuilder, quiet, signer

ENGINE = "edgekit-engine@main.service"
RUNS = UnitState("active", "running", "success", 0, 0)
GAVE_UP = UnitState("failed", "failed", "exit-code", 4, 52)
QUICK = Patience(settle_s=5, poll_s=0.0, tries=2)
CANARY = CanaryCheck("demo", "capital of France?", "Paris")


class Api(ThreadingHTTPServer):
    """The appliance's API as `health` sees it; `answers` is what it says, or a status."""

    answers: str | int = "Paris."


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Api)
        self.rfile.read(int(self.headers["Content-Length"]))
        body: dict[str, Any] = {"error": "no"}
        status = 200
        if isinstance(server.answers, int):
            status = server.answers
        else:
            body = {"choices": [{"message": {"content": server.answers}}],
                    "usage": {"completion_tokens": 2}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Site:
    """Two releases on disk, the newer one serving, under a manager that does what it is told."""

    layout: HostLayout
    api: Api
    old: str = ""
    new: str = ""
    states: dict[str, UnitState] = field(
        default_factory=lambda: {AUDIT_WRITER: RUNS, GATEWAY: RUNS, ENGINE: RUNS}
    )
    started: list[str] = field(default_factory=list)
    reloads: int = 0
    answers_of: dict[str, str | int] = field(default_factory=dict)

    # ---- the manager
    def start(self, appliance: Appliance) -> None:
        self.started.append(appliance.generation)
        self.states[ENGINE] = RUNS
        self.api.answers = self.answers_of.get(appliance.generation, "Paris.")

    def stop(self) -> None:
        return

    def reload(self) -> None:
        self.reloads += 1

    def inspect(self, units: list[str]) -> dict[str, UnitState]:
        return {unit: self.states[unit] for unit in units}

    def complaint(self, unit: str) -> str:
        return f"{unit} complains"

    # ---- the site
    def add(self, sequence: int, previous: str) -> str:
        root, payload = RootBuilder(), trust.release_payload(
            name="demo", version=f"1.{sequence}.0", epoch=1, sequence=sequence,
            created=trust.COMPILED_IN, min_edgekit="0.1", expires="2036-01-01T00:00:00Z",
            files={"manifest.json": b"{}"})
        signatures = [s for name in ("ann", "ben") for s in signer(name).sign(payload)]
        data = trust.encode_envelope(payload, signatures)
        name = trust.verify_release(root.trusted(), data).generation
        folder = self.layout.generation(name)
        folder.mkdir(parents=True)
        appliance = make_appliance(Path("/run/x"), self.api.server_port, engine_socket="/run/x/s")
        engine = replace(appliance.engines[0], canaries=(CANARY,))
        appliance = replace(appliance, generation=name, engines=(engine,))
        (folder / "appliance.json").write_bytes(encode_appliance(appliance))
        (folder / "release.json").write_bytes(data)
        (folder / "root.json").write_bytes(root.data())
        (folder / "receipt.json").write_text(json.dumps({"previous": previous}), "utf-8")
        return name

    def check(self) -> BootReport:
        report = check_after_boot(self.layout, self, QUICK)
        assert report is not None
        return report

    def serves(self) -> str:
        return self.layout.current.readlink().name

    def records(self) -> list[str]:
        kinds = [record["type"] for record in tail_audit(self.layout.audit, 50)]
        return [kind for kind in kinds if kind.startswith("fallback")]


@pytest.fixture
def site(tmp_path: Path, api: Api) -> Site:
    layout = HostLayout(tmp_path / "h")
    for folder in (layout.configuration, layout.audit.parent, layout.trust, layout.run):
        folder.mkdir(parents=True)
    layout.local_key.write_text("ek_x", "utf-8")
    TrustStore(layout.trust).save_root(RootBuilder().trusted())
    site = Site(layout, api)
    site.old = site.add(1, "")
    site.new = site.add(2, site.old)
    layout.current.symlink_to(f"generations/{site.new}")
    return site


def test_a_release_that_answers_stays(site: Site) -> None:
    report = site.check()
    assert (report.verdict, report.serves, site.started) == ("passed", site.new, [])
    assert load_boot_report(site.layout) == report


Labelled = tuple[int, list[OSError]]
REFUSED = OSError(errno.EIO, "Input/output error", "/opt/x")


def label_as(monkeypatch: pytest.MonkeyPatch, results: dict[str, Labelled]) -> None:
    """What labelling each release comes to."""
    monkeypatch.setattr(boot_check, "label_generation", lambda _layout, name: results[name])


@pytest.mark.parametrize(
    ("older", "newer", "reloads"),
    [
        ((0, []), (0, []), 0),
        ((0, []), (2, []), 1),
        ((2, []), (2, []), 1),  # a release to go back to needs its labels, too
        ((0, [REFUSED]), (2, []), 1),
        ((2, []), (0, [REFUSED]), 1),
        ((1, [REFUSED]), (0, []), 1),
        ((0, [REFUSED]), (0, [REFUSED]), 0),
    ],
)
def test_labels_are_given_again_and_the_manager_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, older: Labelled, newer: Labelled, reloads: int
) -> None:
    label_as(monkeypatch, {site.old: older, site.new: newer})
    assert site.check().verdict == "passed"
    assert site.reloads == reloads


def test_labels_alone_judge_no_release(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    label_as(monkeypatch, {site.old: (1, []), site.new: (2, [])})
    site.states[ENGINE] = UnitState("inactive", "dead", "success", 0, 0)  # by the operator
    assert give_labels(site.layout, site) == 3
    assert (site.reloads, site.started, site.serves()) == (1, [], site.new)
    assert load_boot_report(site.layout) is None


def test_labels_that_are_refused_are_named_after_the_others_were_given(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_as(monkeypatch, {site.old: (0, [REFUSED]), site.new: (2, [])})
    with pytest.raises(HostError, match="labelling") as caught:
        give_labels(site.layout, site)
    assert (caught.value.where, caught.value.found) == ("/opt/x", "Input/output error")
    assert site.reloads == 1


def test_labels_wait_for_no_other_command(site: Site) -> None:
    with exclusive_lock(site.layout.lock, "this host"), pytest.raises(BusyError):
        give_labels(site.layout, site)


@pytest.mark.parametrize("unit", [ENGINE, GATEWAY])
def test_a_unit_that_gave_up_speaks_against_the_release(site: Site, unit: str) -> None:
    site.states[unit] = GAVE_UP
    report = site.check()
    assert (report.verdict, report.serves) == ("went back", site.old)
    assert report.reason == f"{unit} is failed: {unit} complains"
    assert site.serves() == site.old
    assert site.records() == ["fallback_begin", "fallback_commit"]


@pytest.mark.parametrize("answers", ["London.", 500, 502])
def test_a_wrong_answer_speaks_against_the_release(site: Site, answers: str | int) -> None:
    site.api.answers = answers
    assert site.check().verdict == "went back"
    assert site.serves() == site.old


def test_a_release_slower_than_the_site_allows_is_left(site: Site) -> None:
    site.layout.site_config.write_text(
        "schema = 1\n[health]\nmin_tokens_per_second = 100000\n", "utf-8")
    report = site.check()
    assert report.verdict == "failed", "the release before is as slow"
    assert "slower than this site allows" in report.reason
    assert site.started == [site.old, site.new]
    assert site.serves() == site.new


def test_nothing_is_decided_without_an_audit_writer(site: Site) -> None:
    site.states |= {AUDIT_WRITER: GAVE_UP, GATEWAY: GAVE_UP, ENGINE: GAVE_UP}
    assert site.check().verdict == "undecided"
    assert (site.serves(), site.started) == (site.new, [])


def test_an_address_that_cannot_be_reached_decides_nothing(site: Site) -> None:
    site.layout.site_config.write_text('schema = 1\n[server]\nlisten = "127.0.0.1:1"\n', "utf-8")
    report = site.check()
    assert (report.verdict, site.serves()) == ("undecided", site.new)
    assert "cannot be reached" in report.reason


def test_a_report_that_cannot_be_written_changes_nothing(site: Site) -> None:
    (site.layout.state / "boot.json").mkdir()
    assert site.check().verdict == "passed"
    assert site.started == []


def test_once_per_release_counted_across_boots(site: Site) -> None:
    site.api.answers = "London."
    assert site.check().verdict == "went back"
    site.layout.current.unlink()
    site.layout.current.symlink_to(f"generations/{site.new}")  # installed again, bad again
    site.api.answers = "London."
    report = site.check()
    assert (report.verdict, site.serves()) == ("failed", site.new)
    assert "no earlier release to go back to by itself" in report.reason
    assert site.records() == ["fallback_begin", "fallback_commit"]


def test_a_way_back_that_was_cut_off_is_walked_to_its_end(site: Site) -> None:
    site.api.answers = "London."

    def power_cut(_appliance: Appliance) -> None:
        raise KeyboardInterrupt

    start, site.start = site.start, power_cut  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        site.check()
    assert load_fallbacks(site.layout)[site.new].under_way_to == site.old
    site.start = start  # type: ignore[method-assign]
    site.layout.current.unlink()
    site.layout.current.symlink_to(f"generations/{site.new}")  # the cut came before the switch
    assert site.check().verdict == "went back"
    assert load_fallbacks(site.layout)[site.new].under_way_to == ""


def test_an_installation_cut_off_after_its_switch_goes_back_too(site: Site) -> None:
    (site.layout.generation(site.new) / "receipt.json").unlink()
    begin_marker(site.layout, Unfinished(INSTALL, "a", site.new, site.old))
    site.api.answers = "London."
    assert site.check().verdict == "went back"
    assert site.serves() == site.old


def test_when_the_release_before_is_not_well_either_the_newer_one_stays(site: Site) -> None:
    site.api.answers = "London."
    site.answers_of = {site.old: "Rome.", site.new: "London."}
    report = site.check()
    assert (report.verdict, report.serves, site.serves()) == ("failed", site.new, site.new)
    assert "is not well either" in report.reason
    assert site.records() == ["fallback_begin", "fallback_abort"]


def test_what_cannot_be_recorded_is_not_done(site: Site) -> None:
    site.api.answers = "London."
    site.layout.audit.write_text("not a folder", "utf-8")
    with pytest.raises(AuditUnavailableError):
        site.check()
    assert (site.serves(), site.started, load_fallbacks(site.layout)) == (site.new, [], {})


def test_never_below_the_newest_roots_minimum(site: Site) -> None:
    TrustStore(site.layout.trust).save_root(
        RootBuilder(version=2, minimum=(1, 2)).trusted())
    site.api.answers = "London."
    assert site.check().verdict == "failed"
    assert site.serves() == site.new


def test_not_by_hand_either(site: Site) -> None:
    TrustStore(site.layout.trust).save_root(RootBuilder(version=2, minimum=(1, 2)).trusted())
    with pytest.raises(RollbackError, match="forbids releases this old"):
        rollback(site.layout, quiet)
    assert (site.serves(), site.layout.audit.exists()) == (site.new, False)


def test_a_wrong_configuration_says_nothing_about_the_release(site: Site) -> None:
    site.layout.site_config.write_text("schema = 1\ntypo = 1\n", "utf-8")
    site.api.answers = "London."
    with pytest.raises(ConfigError):
        site.check()
    assert (site.serves(), site.started) == (site.new, [])


def test_another_command_at_work_checks_the_host_itself(site: Site) -> None:
    with exclusive_lock(site.layout.lock, "this host"):
        assert check_after_boot(site.layout, site, QUICK) is None
