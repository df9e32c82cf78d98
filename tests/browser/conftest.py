"""A real Chromium (Debian's) against a live server. Nothing but that server is ever asked."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from mirrors.models import User

# Playwright's sync API runs an event loop in the test's thread, where Django would refuse to touch the database.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

CHROMIUM = Path(os.environ.get("AIRGAP_CHROMIUM", "/usr/bin/chromium"))


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[..., Browser]]:
    """launch("--flag", …) -> a Chromium, closed at the end of the session if nobody did before."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_playwright() as playwright:
        browsers: list[Browser] = []

        def launched(*flags: str) -> Browser:
            # Root has no sandbox in a container.
            browsers.append(playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", *flags]))
            return browsers[-1]

        yield launched
        for browser in browsers:
            browser.close()


@pytest.fixture(scope="session")
def chromium(launch) -> Browser:
    return launch()


@pytest.fixture
def open_page(chromium, live_server, data_dir, monkeypatch):
    """open_page(user=None, browser=None, url=…, **context) -> Page. Complaints of a page and requests to other hosts
    fail the test. `url` is another name of the live server."""
    monkeypatch.setattr("mirrors.tasks.send_run", lambda run: None)
    monkeypatch.setattr("mirrors.tasks.send_bundle", lambda bundle_id: None)
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(
        user: User | None = None, browser: Browser | None = None, url: str = live_server.url, **options: object
    ) -> Page:
        context = (browser or chromium).new_context(base_url=url, **options)  # type: ignore[arg-type]
        contexts.append(context)
        if user is not None:
            client = Client()
            client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
            session = client.cookies["airgap_session"].value
            context.add_cookies([{"name": "airgap_session", "value": session, "url": url}])
        page = context.new_page()
        page.set_default_timeout(15_000)
        own = urlsplit(url).netloc
        page.on(
            "request",
            lambda asked: asked.url.startswith("http") and own not in asked.url and complaints.append(asked.url),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        return page

    make.complaints = complaints  # type: ignore[attr-defined]
    yield make
    for context in contexts:
        context.close()
    let_requests_end()
    assert complaints == []


def let_requests_end() -> None:
    """What a page that polls asked for last is answered before the tables are emptied: PostgreSQL would find the two
    waiting for each other."""
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)
