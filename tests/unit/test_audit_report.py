"""The evidence report: what it says is what the log proves and holds, and it asks for nothing."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.core.audit_record import check_event
from edgekit.core.audit_report import MAX_EVENTS
from edgekit.core.host_layout import HostLayout
from edgekit.exit_codes import ExitCode
from edgekit.operations.audit import tail_audit
from edgekit.operations.audit_anchor import write_anchor
from edgekit.system.audit_files import log_segments
from tests.support.audit_logs import start_log
from tests.support.chromium import running_browser

EVIL = '<script>alert(1)</script>\u202e\x1b[2J" onload=x'


@pytest.fixture
def layout(tmp_path: Path) -> HostLayout:
    """A host with 30 requests of three keys, a refusal that stands for eight, and events."""
    layout = HostLayout(tmp_path / "host")
    written = start_log(layout.audit)
    log = written.open()

    def put(**fields: object) -> None:
        log.append_batch([check_event(fields)])

    put(type="install_commit", generation="demo-1.0.0-abc", actor="uid 0")
    for number in range(30):
        written.clock.tick(1800)
        who = {"request_id": f"r{number}", "actor": f"key{number % 3}", "model": EVIL}
        put(type="request", **who)
        put(type="response", status=500 if number == 9 else 200, tokens_in=10, tokens_out=3,
            latency_ms=100 + number, **who)
    put(type="denied", status=403, reason=EVIL, suppressed_before=7)
    put(type="break_glass", actor="uid 0", reason=EVIL)
    log.close()
    return layout


def report(layout: HostLayout, *more: str) -> tuple[int, str]:
    out = layout.root.parent / "report.html"
    status = main(["audit", "report", "--out", str(out), "--root", str(layout.root), *more])
    return status, out.read_text("utf-8")


class Words(HTMLParser):
    """The page's text, and every tag and attribute on it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data.split("\n")


def test_says_what_the_log_holds(layout: HostLayout) -> None:
    status, page = report(layout)
    assert status == ExitCode.OK
    text = " ".join(Words(page).text)
    for words in ("Intact.", "30 requests", "1 errors", "8 refused", "300 tokens in"):
        assert words in text
    assert "install commit" in text
    assert "break glass" in text
    for row in ("key0 10 1 100 30", "key1 10 0 100 30"):
        assert row in re.sub(r"\s+", " ", text)
    assert [r["type"] for r in tail_audit(layout.audit, 10)].count("report") == 1


def test_strangers_cannot_write_on_it(layout: HostLayout) -> None:
    _, page = report(layout)
    words = Words(page)
    assert "script" not in words.tags
    assert not {name for name in words.attributes if name.startswith("on")}
    assert EVIL not in page
    assert "\\u202e" in page
    assert all(char == "\n" or char.isprintable() for char in page)


def test_asks_for_nothing_and_prints(layout: HostLayout, tmp_path: Path) -> None:
    _, page = report(layout)
    address = (tmp_path / "report.html").as_uri()
    with running_browser(tmp_path) as browser:
        browser.open(address)
        assert browser.run("document.querySelectorAll('.plot rect').length") > 5
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert browser.run(wide)
        pages = browser.call("Page.printToPDF", preferCSSPageSize=True)["data"]
        assert len(pages) > 10_000
        browser.open(address, width=390)
        assert browser.run(wide)
        assert set(browser.requests) == {address}
        assert browser.problems == []
    assert "http://" not in page
    assert "https://" not in page


def test_anchors_count(layout: HostLayout, tmp_path: Path) -> None:
    done = write_anchor(layout, tmp_path / "stick")
    status, page = report(layout, "--anchor", str(tmp_path / "stick"))
    assert status == ExitCode.WARNINGS
    assert f"record {done.checkpoint.value.seq:,};" in page


def test_a_log_that_is_not_intact_is_reported_as_that(layout: HostLayout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy"
    shutil.copytree(layout.audit, elsewhere)
    path = log_segments(elsewhere)[0]
    path.write_bytes(path.read_bytes().replace(b'"tokens_out":3', b'"tokens_out":4', 1))
    status, page = report(layout, "--log", str(elsewhere))
    assert status == ExitCode.AUDIT_ALTERED
    assert "Not intact:" in page
    assert "Intact." not in page
    assert "at byte" in page


def test_many_events_are_counted(layout: HostLayout) -> None:
    written = start_log(layout.root / "other")
    log = written.open()
    log.append_batch([check_event({"type": "scrub", "n": n}) for n in range(MAX_EVENTS + 20)])
    log.close()
    _, page = report(layout, "--log", str(written.directory))
    assert "20 earlier ones are left out" in page
    assert page.count("<td>scrub</td>") == MAX_EVENTS
