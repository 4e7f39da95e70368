"""Whatever is made from a sample says that it is synthetic, and nothing that is made from a real archive does."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigearthnet.archive.catalogue import read_archive
from bigearthnet.archive.records import Sources
from bigearthnet.names import SYNTHETIC_FILE, SYNTHETIC_NOTE
from bigearthnet.store.manifest import read_attributes
from converter.report import ReportOptions, write_report
from converter.verify.verification import VerifyOptions, verify
from tests.archives import read_files
from tests.browser import PHONE, Visitor
from tests.conftest import RunCli, SmallArchive
from tests.forms import Pairs, convert_here, extract_pairs
from tests.samples import Samples

STORES = ("sample-store", "pairs-store", "v2-store")
MARK = (0x8A, 0x15, 0x38)


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    """Real patches of both sensors."""
    return extract_pairs(tmp_path / "pairs")


def is_marked(picture: Image.Image) -> bool:
    """Tell whether the lower edge has the colour of the mark, and white writing in its middle and nowhere else."""
    strip = np.asarray(picture.convert("RGB")).astype(int)[-8:-2]
    is_mark = np.asarray(np.abs(strip - MARK).max(axis=-1) < 24)
    is_letter = np.asarray((strip > 180).all(axis=-1))
    edge = picture.width // 5
    return bool(is_mark[:, :edge].all() and is_mark[:, -edge:].all() and is_letter[:, edge:-edge].sum() > 30)


def list_files(folder: Path) -> list[Image.Image]:
    return [Image.open(io.BytesIO(path.read_bytes())) for path in folder.iterdir()]


def list_pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'<img src="data:image/\w+;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def test_every_folder_that_a_conversion_is_given_has_a_note(samples: Samples) -> None:
    notes = sorted(str(path.parent.relative_to(samples.root)) for path in samples.root.rglob(SYNTHETIC_FILE))
    assert notes == [
        "data/sample",
        "data/sample-pairs/BigEarthNet-S1-v1.0",
        "data/sample-pairs/BigEarthNet-v1.0",
        "data/sample-v2/BigEarthNet-S1",
        "data/sample-v2/BigEarthNet-S2",
        "data/sample-v2/Reference_Maps",
    ]
    text = (samples.root / notes[0] / SYNTHETIC_FILE).read_text()
    assert text.startswith("This is not BigEarthNet")
    assert "Never report results" in text


def test_real_patches_alone_are_not_called_synthetic(run_cli: RunCli, tmp_path: Path) -> None:
    assert run_cli("sample", tmp_path / "archive", "--patches", "6").code == 0
    assert len(list((tmp_path / "archive").iterdir())) == 6
    assert not (tmp_path / "archive" / SYNTHETIC_FILE).exists()


@pytest.mark.parametrize("store", STORES)
def test_the_store_of_a_sample_says_so(store: str, samples: Samples) -> None:
    assert read_attributes(samples.root / "data" / store)["synthetic"] is True


def test_the_store_of_a_real_archive_says_it_nowhere(store: Path, run_cli: RunCli, tmp_path: Path) -> None:
    for name, content in read_files(store).items():
        assert b"synthetic" not in content.lower(), name
    assert "synthetic" not in run_cli("info", store).out.lower()
    write_report(store, tmp_path / "page.html", ReportOptions(sample=2))
    page = (tmp_path / "page.html").read_text()
    assert "synthetic" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower()
    assert not any(map(is_marked, list_pictures(page)))
    assert run_cli("preview", store, "--random", "2", "--sheet", tmp_path / "sheet.png").code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert "synthetic" not in str(sheet.info).lower()
        assert not (np.asarray(sheet) == MARK).all(axis=-1).any()


@pytest.mark.parametrize("sensor", ["s2", "s1"])
def test_one_folder_of_a_sample_makes_a_store_synthetic(sensor: str, pairs: Pairs, tmp_path: Path) -> None:
    assert not read_archive(pairs.sources.roots, lists=pairs.lists).is_synthetic
    ({"s2": pairs.s2, "s1": pairs.s1}[sensor].root / SYNTHETIC_FILE).touch()
    convert_here(pairs.sources, tmp_path / "store", pairs.options())
    assert read_attributes(tmp_path / "store")["synthetic"] is True


def test_verification_names_a_store_that_says_otherwise_than_its_archive(
    pairs: Pairs, scheduler: str, tmp_path: Path
) -> None:
    def look(store: str) -> list[str]:
        options = VerifyOptions(against=Sources(pairs.s2.root), lists=pairs.lists, scheduler=scheduler)
        return [str(fault) for fault in verify(tmp_path / store, options).faults]

    note = pairs.s2.root / SYNTHETIC_FILE
    convert_here(pairs.s2.root, tmp_path / "real", pairs.options())
    note.touch()
    convert_here(pairs.s2.root, tmp_path / "sample", pairs.options())
    assert look("sample") == []
    (fault,) = look("real")
    assert "it is a synthetic sample, and the store says otherwise" in fault
    note.unlink()
    assert look("real") == []
    (fault,) = look("sample")
    assert f"it is a real archive, without {SYNTHETIC_FILE}, and the store says otherwise" in fault


def test_an_unfinished_store_is_not_continued_as_the_other_kind(
    small: SmallArchive, tmp_path: Path, run_cli: RunCli
) -> None:
    archive = small.archive.copy(tmp_path / "archive")
    archive.tif(small.train[0], "B03").unlink()
    command = ["convert", archive.root, tmp_path / "store", "--lists", small.lists, "--workers", "1"]
    assert "1 bad patch" in run_cli(*command).error
    (archive.root / SYNTHETIC_FILE).touch()
    assert "synthetic" in run_cli(*command).error


@pytest.mark.parametrize("store", STORES)
def test_info_says_it_first(store: str, samples: Samples, run_cli: RunCli) -> None:
    path = samples.root / "data" / store
    assert run_cli("info", path).out.startswith(SYNTHETIC_NOTE)
    assert json.loads(run_cli("info", path, "--json").out)["attributes"]["synthetic"] is True


def test_catalogues_read_it_in_name_description_and_keywords(samples: Samples, store: Path) -> None:
    described = json.loads((samples.root / "data/sample-store/croissant.json").read_text())
    assert described["name"] == "Synthetic sample in the form of BigEarthNet v1.0"
    assert described["description"].startswith(SYNTHETIC_NOTE)
    assert "synthetic" in described["keywords"]
    assert json.loads((store / "croissant.json").read_text())["name"] == "BigEarthNet v1.0"


@pytest.mark.parametrize("store", STORES)
def test_the_page_about_a_store_says_it_above_its_title_and_on_every_picture(
    store: str, samples: Samples, tmp_path: Path
) -> None:
    write_report(samples.root / "data" / store, tmp_path / "page.html", ReportOptions(sample=2))
    page = (tmp_path / "page.html").read_text()
    assert f"<title>Synthetic: {store}" in page
    assert page.index(SYNTHETIC_NOTE) < page.index("<h1>")
    pictures = list_pictures(page)
    assert len(pictures) > 10
    assert all(map(is_marked, pictures))


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_says_it_wherever_one_has_scrolled_to(
    dark: bool, samples: Samples, tmp_path: Path, visit: Visitor
) -> None:
    write_report(samples.root / "data/sample-store", tmp_path / "page.html", ReportOptions(sample=2))
    opened = visit(tmp_path / "page.html", width=PHONE, dark=dark)
    assert [*opened.list_faults(), *opened.list_barriers()] == []
    opened.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    box = opened.page.locator(".synthetic").bounding_box()
    assert box is not None
    assert (box["y"], box["height"] < 200) == (0, True)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("sample-store", ("rgb", "B01")),
        ("sample", ("rgb",)),
        ("sample-v2/BigEarthNet-S2", ("false-colour",)),
        ("sample-v2/BigEarthNet-S1", ("s1",)),
        ("sample-v2/Reference_Maps", ("map",)),
    ],
)
@pytest.mark.parametrize("scale", ["1", "2"])
def test_sheets_and_pictures_say_it(
    source: str, what: tuple[str, ...], scale: str, samples: Samples, run_cli: RunCli, tmp_path: Path
) -> None:
    options = [option for name in what for option in ("--what", name)]
    command = ["preview", samples.root / "data" / source, "--random", "4", "--scale", scale, *options]
    assert run_cli(*command, "--sheet", tmp_path / "sheet.png").code == 0
    assert run_cli(*command, "--out", tmp_path / "pictures").code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.info["Description"].startswith(SYNTHETIC_NOTE)
        pixels = np.asarray(sheet)
    marks = (pixels == MARK).all(axis=-1).sum()
    assert marks > 4 * len(what) * (120 * int(scale)) * 6
    pictures = list_files(tmp_path / "pictures")
    assert len(pictures) == 4 * len(what)
    for picture in pictures:
        assert picture.size == (120 * int(scale), 120 * int(scale))
        assert picture.info["Description"].startswith(SYNTHETIC_NOTE)
        assert is_marked(picture)


@pytest.mark.parametrize("part", ["sample", "sample-v2/BigEarthNet-S2", "sample-v2/Reference_Maps"])
def test_a_single_patch_folder_says_it(part: str, samples: Samples, run_cli: RunCli, tmp_path: Path) -> None:
    root = samples.root / "data" / part
    folder = next(path.parent for path in root.rglob("*.tif"))
    assert run_cli("preview", folder, "--out", tmp_path / "pictures").code == 0
    (picture,) = list_files(tmp_path / "pictures")
    assert picture.info["Description"].startswith(SYNTHETIC_NOTE)
    assert is_marked(picture)
