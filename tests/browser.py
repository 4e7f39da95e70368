"""A real browser for the pages that the project writes."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = 390
"""Width of a common phone, in CSS pixels."""
DESKTOP = 1280
A4 = 695
"""Width of the print area of a page, in CSS pixels."""
_EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")


_LIST_VIOLATIONS = """() => axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.flatMap(
    rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 200)}: ${node.failureSummary}`)))"""
_LIST_CUT_TEXTS = """texts => texts.filter(text => {
    const [box, view] = [text.getBBox(), text.ownerSVGElement.viewBox.baseVal];
    return box.x < -1 || box.y < -1 || box.x + box.width > view.width + 1 || box.y + box.height > view.height + 1;
}).map(text => `${text.textContent} of ${text.ownerSVGElement.getAttribute('aria-label')}`)"""


_MEASURE_CONTRAST = """(element, [name, values]) => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const luminance = colour => {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const linear = [...canvas.getImageData(0, 0, 1, 1).data].map(one => one / 255)
            .map(one => one > 0.04045 ? ((one + 0.055) / 1.055) ** 2.4 : one / 12.92);
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    return Math.min(...values.map(value => {
        element.style.setProperty(name, value);
        const style = getComputedStyle(element);
        const [dark, light] = [luminance(style.color), luminance(style.backgroundColor)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    }));
}"""


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
        faults += [f"is cut: {text}" for text in self.page.eval_on_selector_all("svg[viewBox] text", _LIST_CUT_TEXTS)]
        return faults

    def measure_contrast(self, selector: str, name: str, values: Sequence[object]) -> float:
        """Measure the least contrast of text in an element over values of a CSS property, by the formula of WCAG 2."""
        found: float = self.page.locator(selector).first.evaluate(_MEASURE_CONTRAST, [name, values])
        return found

    def list_barriers(self) -> list[str]:
        """List what axe-core finds that keeps people from reading or using the page, such as text without contrast."""
        package = importlib.util.find_spec("axe_playwright_python")
        if package is None or package.origin is None:
            pytest.skip("axe-playwright-python is not installed, which brings axe-core")
        self.page.evaluate(Path(package.origin).with_name("axe.min.js").read_text("utf-8"))
        found: list[str] = self.page.evaluate(_LIST_VIOLATIONS)
        return found


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
