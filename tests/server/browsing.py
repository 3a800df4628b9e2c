"""A browser for tests of the page: Debian's chromium, by Playwright."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

PATIENCE = 120_000.0  # milliseconds for whatever is waited for
WIDE, PHONE = (1280, 900), (390, 844)


def chromium() -> str:
    """Where it is; the test is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("There is no chromium to look at the page with: apt-get install chromium.")


@contextmanager
def browsing() -> Iterator:
    """A browser, which sees only what it is told to."""
    sync = pytest.importorskip("playwright.sync_api", reason="The page is tested by playwright.")
    place = chromium()
    with sync.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=place, args=flags)
        yield browser
        browser.close()


class Tab:
    """A page of a server, and what it asked and complained of."""

    def __init__(self, browser, url: str, size: tuple[int, int] = WIDE, theme: str = "dark"):
        self.url = url
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,
            accept_downloads=True,
        )
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("websocket", lambda socket: self._asked(socket.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._said)

    def _asked(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)

    def _said(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, place: str):
        """Opens a place of the page."""
        self.page.goto(f"{self.url}/{place}", timeout=PATIENCE)
        self.page.wait_for_selector("h1")
        return self.page

    def close(self) -> None:
        """Closes it; fails if it complained, or asked anybody but the server."""
        self.context.close()
        assert not self.complaints, self.complaints
        assert self.hosts == {urlsplit(self.url).netloc}


def until(page, script: str, argument: object = None) -> None:
    """Waits until a script gives something true. (Playwright's own waiting evaluates text in the
    page, which its policy forbids.)
    """
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(script, argument):
        assert time.monotonic() < end, f"never true: {script}"
        page.wait_for_timeout(100)
