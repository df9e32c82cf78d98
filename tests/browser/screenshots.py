"""Takes the README's pictures from a running instance: `make screenshots ARGS="URL PASSWORD [--isolated] [--to DIR]"`.

Every page in light and dark, on a desk (1400 px) and on a phone (390 px), with Debian's Chromium. Needs what
tests/requirements.txt installs.
"""

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
WIDTHS = (1400, 390)
SCHEMES = ("light", "dark")
# name of the picture, and how to get there from the dashboard: a path, or the text of links to follow.
PAGES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("dashboard", "/", ()),
    ("database", "/", (".database h2 a",)),
    ("history", "/history/", ()),
    ("run", "/history/?outcome=succeeded", (".row-link",)),
    ("bundles", "/bundles/", ()),
    ("use-it", "/use-it/", ()),
    ("sites", "/sites/", ()),
    ("settings", "/settings/", ()),
)
# The same of an isolated instance that has imported something.
ISOLATED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("isolated-dashboard", "/", ()),
    ("imports", "/import/", ()),
    ("import", "/import/", ("table a[href^='/import/']",)),
    ("isolated-history", "/history/", ()),
)


def main() -> None:
    options = arguments()
    options.to.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        try:
            session = sign_in(browser, options.url, options.user, options.password)
            for scheme in SCHEMES:
                for width in WIDTHS:
                    take_all(browser, options, session, scheme, width)
        finally:
            browser.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="where the instance answers, such as http://127.0.0.1:8000")
    parser.add_argument("password")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parents[2] / "docs" / "images")
    parser.add_argument("--isolated", action="store_true", help="of an isolated instance, other pages")
    parser.add_argument("--chromium", default=CHROMIUM)
    options = parser.parse_args()
    options.url = options.url.rstrip("/")
    return options


def sign_in(browser: Browser, url: str, user: str, password: str) -> dict[str, object]:
    """The cookies of a fresh session; ends with a sentence when the login is refused."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/login/")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("main button")
    page.wait_for_load_state()
    if "/login/" in page.url or "/password/" in page.url:
        sys.exit(f"{user} could not sign in at {url}, or has to choose a new password first.")
    state: dict[str, object] = dict(context.storage_state())
    context.close()
    return state


def take_all(
    browser: Browser, options: argparse.Namespace, session: dict[str, object], scheme: str, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        storage_state=session,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page = context.new_page()
    for name, path, links in ISOLATED if options.isolated else PAGES:
        if go(page, options.url + path, links):
            page.screenshot(path=options.to / f"{name}-{scheme}-{width}.png", full_page=True)
        else:
            sys.stderr.write(f"{name} has nothing to show yet; no picture was taken.\n")
    context.close()


def go(page: Page, address: str, links: tuple[str, ...]) -> bool:
    """Open the address and follow the links; false where one of them is not there."""
    page.goto(address)
    for link in links:
        found = page.locator(link)
        if not found.count():
            return False
        page.goto(str(found.first.evaluate("element => element.href")))
    return True


if __name__ == "__main__":
    main()
