"""A real browser for the pages that the project writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = 390
"""Width of a common phone, in CSS pixels."""
DESKTOP = 1280
_EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Visit:
    """An open page, and what it did since."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings on the console, and uncaught exceptions."""
    requests: list[str] = field(default_factory=list)
    """Addresses of all requests, the first of which is the page's own; what is inside the page (data:) is none."""

    def list_faults(self, n_requests: int | None = 1) -> list[str]:
        """List what no page may have, for whoever opens it.

        Args:
            n_requests: Requests expected, that of the page among them; None for any number.
        """
        faults = [f"complained: {text}" for text in self.complaints]
        if n_requests is not None and len(self.requests) != n_requests:
            faults.append(f"{len(self.requests)} requests, not {n_requests}: {', '.join(self.requests)}")
        pictures = "elements => elements.filter(one => !(one.complete && one.naturalWidth)).map(one => one.outerHTML)"
        faults += [f"did not load: {text[:200]}" for text in self.page.eval_on_selector_all("img", pictures)]
        silent = "elements => elements.filter(one => !one.getAttribute('alt')?.trim()).map(one => one.outerHTML)"
        faults += [f"has no alt text: {text[:200]}" for text in self.page.eval_on_selector_all("img", silent)]
        drawings = """elements => elements.filter(one => one.getAttribute('aria-hidden') !== 'true'
            && !one.getAttribute('aria-label')?.trim()).map(one => one.outerHTML)"""
        faults += [f"has no label: {text[:200]}" for text in self.page.eval_on_selector_all("svg", drawings)]
        excess = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if excess > 0:
            faults.append(f"is {excess} pixels wider than the window")
        return faults


Visitor = Callable[..., Visit]
"""Opens an address or a file: `visit(page, width=PHONE, dark=True)`."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. Of a module and not of all tests: until it ends, asyncio is busy in this thread."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, _EXECUTABLES)), None)
    if found is None:
        pytest.skip(f"there is no browser on the PATH: {', '.join(_EXECUTABLES)}")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--disable-gpu", "--disable-quic"])
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visitor]:
    """Open pages, each in a browser profile of its own; all are closed after the test."""
    contexts = []

    def open_page(address: str | Path, *, width: int = DESKTOP, dark: bool = False) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        contexts.append(context)
        visit = Visit(context.new_page())
        visit.page.on("request", lambda request: _note_request(visit, request.url))
        visit.page.on("console", lambda message: _note_message(visit, message.type, message.text))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        visit.page.goto(url, wait_until="networkidle")
        return visit

    yield open_page
    for context in contexts:
        context.close()


def _note_request(visit: Visit, url: str) -> None:
    if not url.startswith("data:"):
        visit.requests.append(url)


def _note_message(visit: Visit, kind: str, text: str) -> None:
    if kind in {"error", "warning"}:
        visit.complaints.append(f"{kind}: {text}")
