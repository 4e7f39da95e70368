"""The documents as a site: it builds without a warning, lacks nothing, and needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

import trainer
from converter.commands.cli import COMMANDS as CONVERTER_COMMANDS
from tests.browser import DESKTOP, PHONE, Visitor
from tests.documents import PAGES, ROOT
from trainer.commands.cli import COMMANDS as TRAINER_COMMANDS

MISSING: Final = [name for name in ("mkdocs", "material", "mkdocstrings_handlers", "mmdr") if find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not installed; make test-site does it")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    pages = {path.name for path in site.glob("*.html")}
    assert {"index.html", *(page.replace(".md", ".html") for page in PAGES)} <= pages
    assert "pages.py" not in {path.name for path in site.iterdir()}


def test_every_command_and_every_exported_name_is_in_the_reference(site: Path) -> None:
    for program, commands in (("ben-convert", CONVERTER_COMMANDS), ("ben-train", TRAINER_COMMANDS)):
        page = (site / f"reference/{program}.html").read_text()
        assert re.findall(r'<h2 id="([^"]+)"', page) == list(commands)
    pages = "".join((site / f"reference/{name}.html").read_text() for name in ("trainer", "errors"))
    anchors = {anchor.rpartition(".")[2] for anchor in re.findall(r'<h[23] id="([^"]+)"', pages)}
    assert set(trainer.__all__) <= anchors


def test_no_page_names_a_file_of_another_server(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert (
            re.findall(r'<(?:script|link|img|iframe)[^>]* (?:src|href)="(?:https?:)?//[^>]*>', path.read_text()) == []
        )


@pytest.mark.parametrize(("width", "dark"), [(DESKTOP, False), (PHONE, True)])
@pytest.mark.parametrize("page", ["index.html", "architecture.html", "training.html", "reference/trainer.html"])
def test_a_page_opens_as_a_file_without_complaint(
    page: str, width: int, dark: bool, site: Path, visit: Visitor
) -> None:
    opened = visit(site / page, width=width, dark=dark)
    assert [request for request in opened.requests if not request.startswith("file:")] == []
    assert [fault for fault in opened.list_faults(n_requests=None) if "has no label: <svg" not in fault] == []


def test_the_search_finds_words_in_a_page_that_was_opened_as_a_file(site: Path, visit: Visitor) -> None:
    page = visit(site / "index.html").page
    page.keyboard.press("s")
    page.locator(".md-search__input:focus").wait_for()
    page.keyboard.type("mapped shards")
    page.locator(".md-search-result__item a[href*='streaming.html']").first.wait_for()
