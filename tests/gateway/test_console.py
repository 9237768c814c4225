"""The operator's page in a real browser: it opens with a key, shows what runs, asks nobody else.

`EDGEKIT_SCREENSHOTS=DIR` keeps the pictures, for eyes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edgekit.core.api_keys import KeyRing
from edgekit.gateway.console import load_console
from edgekit.system.audit_client import Signed
from tests.gateway.conftest import Site, make_key, running_site
from tests.support.chromium import Browser, running_browser
from tests.support.fake_engine import FakeEngine


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("console")
    engine = FakeEngine(str(work / "engine.sock"))
    with running_site(work, engine, engine.socket_path) as ready:
        yield ready


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("browser")) as ready:
        yield ready


def operator(site: Site) -> str:
    """A key with every scope that the page uses."""
    key, token = make_key("chat", "admin")

    async def accept() -> None:
        site.gateway.replace_keys(KeyRing((key,)))

    site.on_loop(accept())
    return token


def sign_in(browser: Browser, site: Site, token: str, *, dark: bool = False) -> None:
    browser.open("about:blank")
    browser.open(f"{site.url}/console", dark=dark)
    browser.run("sessionStorage.clear(); location.hash = ''")
    browser.open(f"{site.url}/console?again", dark=dark)
    browser.wait("!document.getElementById('login').hidden")
    browser.run(
        f"document.getElementById('key').value = '{token}';"
        "document.getElementById('login').requestSubmit()"
    )


def keep(browser: Browser, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("EDGEKIT_SCREENSHOTS") or tmp_path)
    browser.picture(folder / f"console-{name}.png")


def test_page_opens_with_a_key_and_shows_what_runs(
    shared: Site, browser: Browser, tmp_path: Path
) -> None:
    browser.requests.clear()
    browser.problems.clear()
    sign_in(browser, shared, operator(shared))
    browser.wait("document.querySelector('.engine')")
    text = browser.run("document.body.innerText")
    for expected in ("demo-appliance", "ready", "g1", "0 of 4", "Q8_0", "512 tokens", "alice, bob"):
        assert expected in text, expected
    shared.gateway._audit.signed = Signed(4711, int((time.time() - 90) * 1e6))
    browser.wait("document.body.innerText.includes('signs all up to #4711')")
    keep(browser, "state", tmp_path)
    assert browser.problems == []
    foreign = [url for url in browser.requests if not url.startswith((shared.url, "data:"))]
    assert foreign == ["about:blank"] * len(foreign)


def test_prompt_is_answered_in_the_page(shared: Site, browser: Browser, tmp_path: Path) -> None:
    sign_in(browser, shared, operator(shared))
    browser.wait("document.querySelector('.engine')")
    browser.run("document.querySelector('[data-tab=try]').click()")
    browser.run("document.getElementById('prompt').value = 'what is edgekit?'")
    browser.run("document.getElementById('ask').click()")
    browser.wait("document.getElementById('timing').textContent.includes('tokens per second')")
    assert browser.run("document.getElementById('answer').textContent").startswith(
        "edgekit answers"
    )
    keep(browser, "try", tmp_path)
    assert shared.wait_for_record("response")["status"] == 200


def test_description_is_readable_in_the_page(
    shared: Site, browser: Browser, tmp_path: Path
) -> None:
    sign_in(browser, shared, operator(shared))
    browser.wait("document.querySelector('.engine')")
    browser.run("document.querySelector('[data-tab=api]').click()")
    browser.wait("document.querySelectorAll('.path').length > 10")
    browser.run("document.querySelector('details').open = true")
    assert "/v1/chat/completions" in browser.run("document.getElementById('paths').innerText")
    keep(browser, "api", tmp_path)


def test_wrong_key_opens_nothing(shared: Site, browser: Browser, tmp_path: Path) -> None:
    operator(shared)
    for token in ("nonsense", make_key("admin")[1]):
        sign_in(browser, shared, token)
        browser.wait("document.getElementById('login-error').textContent")
        assert browser.run("document.getElementById('state').hidden")
        assert "Q8_0" not in browser.run("document.body.innerText")
    keep(browser, "login", tmp_path)


def test_dark_and_down(shared: Site, browser: Browser, tmp_path: Path) -> None:
    token = operator(shared)
    shared.on_loop(shared.engine.stop())
    try:
        sign_in(browser, shared, token, dark=True)
        browser.wait("document.getElementById('ready').textContent === 'not ready'")
        keep(browser, "dark", tmp_path)
    finally:
        shared.on_loop(shared.engine.start())


def test_page_itself_says_nothing_and_runs_nothing_else(shared: Site) -> None:
    answer = httpx.get(f"{shared.url}/console")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2
    for word in ("demo-appliance", "Q8_0", "http://", "https://", "//cdn"):
        assert word not in answer.text.replace("http://www.w3.org/2000/svg", ""), word


def test_policy_follows_the_page() -> None:
    page, policy = load_console()
    assert page.count(b"<script>") == page.count(b"<style>") == 1
    assert "frame-ancestors 'none'" in policy
