"""The tests' browser sees the faults that it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import PHONE, Visitor

_DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=="
_HEAD = "<!doctype html><html lang='en'><meta charset='utf-8'><title>x</title>"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<script>console.error('oh')</script>", "complained: error: oh"),
        ("<script>console.warn('hm')</script>", "complained: warning: hm"),
        ("<script>nothing()</script>", "complained: nothing is not defined"),
        ("<link rel='stylesheet' href='other.css'>", "2 requests, not 1"),
        ("<img alt='gone' src='data:image/png;base64,AAAA'>", "did not load"),
        (f"<img src='{_DOT}'>", "has no alt text"),
        ("<svg></svg>", "has no label"),
        ("<div style='width: 400px'>wide</div>", "pixels wider than the window"),
        ("<svg aria-label='ends' viewBox='0 0 90 20'><text x='80' y='15'>2,000</text></svg>", "is cut: 2,000 of ends"),
    ],
)
def test_a_fault_is_found(body: str, fault: str, visit: Visitor, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(_HEAD + body)
    assert any(fault in found for found in visit(tmp_path / "page.html", width=PHONE).list_faults())


def test_a_page_without_fault_has_none(visit: Visitor, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"{_HEAD}<img alt='a dot' src='{_DOT}'><svg aria-label='nothing'></svg>")
    assert visit(tmp_path / "page.html", width=PHONE).list_faults() == []


def test_a_barrier_is_found(visit: Visitor, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"{_HEAD}<main><h1>Pale</h1><p style='color: #999'>pale</p></main>")
    (found,) = visit(page).list_barriers()
    assert found.startswith("color-contrast: <p style=")
    page.write_text(page.read_text().replace("#999", "#666"))
    assert visit(page).list_barriers() == []


def test_dark_is_dark(visit: Visitor, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(_HEAD)
    asked = "matchMedia('(prefers-color-scheme: dark)').matches"
    assert visit(tmp_path / "page.html", dark=True).page.evaluate(asked)
    assert not visit(tmp_path / "page.html").page.evaluate(asked)
