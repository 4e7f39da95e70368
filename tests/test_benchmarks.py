"""The page of benchmarks says what the records hold; and the contenders read what they say."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.reading import make_patches, run_contender, write_form
from benchmarks.turns import summarize


def test_page_and_readme_are_what_the_records_hold() -> None:
    assert page.PAGE.read_text() == page.write_page()
    assert page.README.read_text() == page.write_readme(page.README.read_text())


def test_pictures_name_every_contender_and_its_rate() -> None:
    text = page.PAGE.read_text()
    for name, figure in page.draw_pictures().items():
        assert f"({page.PICTURES.name}/{name}.svg)" in text
        committed = (page.PICTURES / f"{name}.svg").read_text()
        with io.StringIO() as drawn:
            figure.savefig(drawn, format="svg")
            words = re.compile(r"<text[^>]*>([^<]*)</text>").findall(drawn.getvalue())
        assert [word for word in words if word not in committed] == []
    rates = page.load_record("reading")["tables"]["RGB, warm"]
    assert f"{summarize(rates['lz4']['patches/s'])[0]:,.0f}" in (page.PICTURES / "reading.svg").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lz4", "memory maps", "LMDB", "TFRecord", "rasterio"])
def test_contenders_of_reading_run(name: str, tmp_path: Path) -> None:
    make_patches(tmp_path, 512)
    write_form(name, tmp_path)
    for cold in (False, True):
        assert run_contender(name, tmp_path, "rgb", 0.1, cold=cold)["patches/s"] > 0
