"""Previews are read back with Pillow, and compared with the pixels that rasterio reads from the archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bigearthnet.errors import OptionError, OutputError, PatchError, SelectionError, SourceError, StoreError
from bigearthnet.labels import CORINE_CODES, CORINE_COLOURS
from bigearthnet.look.album import Choice, open_album
from bigearthnet.look.picture import NEUTRAL, render_picture
from bigearthnet.look.preview import PreviewOptions, write_pictures, write_sheet
from bigearthnet.look.sheet import MAX_PIXELS
from bigearthnet.store.query import select_patches
from tests.archives import Archive
from tests.conftest import RunCli, SmallArchive
from tests.forms import Pairs, V2Archive, convert_here, extract_pairs, write_v2, write_v2_lists
from tests.tarballs import list_files, write_tarball

WHITE = [255, 255, 255]


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> V2Archive:
    return write_v2(tmp_path_factory.mktemp("v2") / "archive")


@pytest.fixture(scope="module")
def v2_store(v2: V2Archive, small: SmallArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    convert_here(v2.sources, folder / "store", small.options(lists=write_v2_lists(folder / "lists", v2)))
    return folder / "store"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    return extract_pairs(tmp_path_factory.mktemp("pairs"))


def read_png(path: Path) -> tuple[NDArray[np.uint8], str]:
    """Read the pixels of a picture, and its description."""
    with Image.open(path) as image:
        assert isinstance(image.info["Description"], str)
        return np.array(image), image.info["Description"]


def draw_from(archive: Archive, name: str) -> NDArray[np.float64]:
    """Draw true colour from what rasterio reads."""
    bands = np.stack([archive.read_band(name, band) for band in ("B04", "B03", "B02")], axis=-1)
    return np.rint(np.clip(bands / 1_600, 0, 1) * 255)


def test_a_picture_of_a_store_is_drawn_from_the_pixels_of_the_archive(
    small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    names = (small.train[2], small.snow)
    n_written = write_pictures(open_album(store, Choice(names)), PreviewOptions(("rgb",), scale=1), tmp_path)
    assert n_written == 2
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}_rgb.png" for name in names}
    for name in names:
        drawn, _ = read_png(tmp_path / f"{name}_rgb.png")
        assert np.array_equal(drawn, draw_from(small.archive, name))


def test_raw_folders_and_their_store_give_the_same_pictures(real: Archive, store: Path, tmp_path: Path) -> None:
    options = PreviewOptions(("rgb", "false-colour", "B11", "B01"), "percentile")
    for path in (real.root, real.folder(real.names[0])):
        write_pictures(open_album(path, Choice((real.names[0],))), options, tmp_path / path.name)
    for name in options.pictures:
        pictures = [
            read_png(tmp_path / folder / f"{real.names[0]}_{name}.png")[0] for folder in (real.root.name, real.names[0])
        ]
        assert np.array_equal(pictures[0], pictures[1])
        planes = {band: real.read_band(real.names[0], band) for band in ("B04", "B03", "B02", "B08", "B11", "B01")}
        drawn = render_picture(name, planes, "percentile")
        factor = 240 // len(drawn)
        assert np.array_equal(pictures[0], np.kron(drawn, np.ones((factor, factor, 1), np.uint8)))


def test_pictures_are_described_in_the_file(small: SmallArchive, store: Path, tmp_path: Path) -> None:
    (row,) = select_patches(store, [small.validation[0]])
    write_pictures(open_album(store, Choice((row["patch_id"],))), PreviewOptions(("B08",)), tmp_path)
    _, words = read_png(tmp_path / f"{row['patch_id']}_B08.png")
    facts = f"{row['s2_time']:%Y-%m-%d} · {row['country']} · validation"
    assert words.splitlines() == [*row["labels"], facts, row["patch_id"]]


def test_a_sheet_holds_every_picture_whole_inside_of_a_white_margin(
    small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    names = tuple(small.train[:7])
    path = tmp_path / "new folder" / "sheet.png"
    assert write_sheet(open_album(store, Choice(names)), PreviewOptions(("rgb", "B01"), scale=1), path) == 7
    sheet, words = read_png(path)
    for side in (sheet[:8], sheet[-8:], sheet[:, :8], sheet[:, -8:]):
        assert (side == WHITE).all()
    for name in names:
        assert name in words.splitlines()
        left, top = find_picture_in(sheet, draw_from(small.archive, name))
        caption = sheet[top + 124 : top + 150, left : left + 200]
        assert (caption < 128).all(axis=-1).any(), "there is text below it"
    assert words.startswith("7 patches: true colour | B01\n")


def find_picture_in(sheet: NDArray[np.uint8], picture: NDArray[Any]) -> tuple[int, int]:
    """Find where a picture stands on a sheet, as (left, top)."""
    tops, lefts = np.nonzero((sheet == picture[0, 0]).all(axis=-1))
    for top, left in zip(tops.tolist(), lefts.tolist(), strict=True):
        if np.array_equal(sheet[top : top + 120, left : left + 120], picture):
            return left, top
    raise AssertionError("it is not there")


def test_a_long_class_name_is_wrapped_to_the_width_of_its_picture(real: Archive, tmp_path: Path) -> None:
    name = next(name for name in real.names if any(len(label) > 80 for label in real.read_note(name)["labels"]))
    write_sheet(open_album(real.folder(name), Choice()), PreviewOptions(scale=1), tmp_path / "sheet.png")
    sheet, words = read_png(tmp_path / "sheet.png")
    assert sheet.shape[1] == 16 + 120 + 16
    assert (sheet[:, -14:] == WHITE).all()
    assert "Land principally occupied by agriculture, with significant areas of natural vegetation" in words


def test_a_map_is_explained_by_its_colours_and_shares(v2: V2Archive, v2_store: Path, tmp_path: Path) -> None:
    name = v2.names[3]
    codes = v2.read_array(name, "reference_map")
    for number, path in enumerate((v2_store, v2.maps)):
        target = tmp_path / f"{number}.png"
        write_sheet(open_album(path, Choice((name,))), PreviewOptions(("map",)), target)
        sheet, words = read_png(target)
        for code in np.unique(codes).tolist():
            colour = CORINE_COLOURS.get(code, NEUTRAL)
            assert (sheet[260:] == colour).all(axis=-1).any(), "the legend stands below the map"
            known = [label for label, its_code in CORINE_CODES.items() if its_code == code]
            share = f"{100 * np.mean(codes == code):.0f} %"
            assert f"{share} {known[0] if known else f'code {code}, not a class'}" in words.splitlines()


def test_raw_folders_of_v2_have_their_labels_from_the_metadata(v2: V2Archive, tmp_path: Path) -> None:
    row = v2.rows[-1]
    patch = v2.tif(row["patch_id"], "B02").parent
    radar = v2.tif(row["patch_id"], "VV").parent
    for number, path in enumerate((patch, radar)):
        write_sheet(open_album(path, Choice()), PreviewOptions(), tmp_path / f"{number}.png")
        words = read_png(tmp_path / f"{number}.png")[1].splitlines()
        day = ("2017-06-13", "2017-06-12")[number]
        assert words[2:] == [*row["labels"], f"{day} · {row['country']} · {row['split']}", path.name]


def test_raw_radar_patches_are_drawn(pairs: Pairs, tmp_path: Path) -> None:
    write_pictures(open_album(pairs.s1.root, Choice()), PreviewOptions(scale=1), tmp_path)
    for name in pairs.s1.names:
        planes = {band: pairs.s1.read_band(name, band) for band in ("VV", "VH")}
        drawn, words = read_png(tmp_path / f"{name}_s1.png")
        assert np.array_equal(drawn, render_picture("s1", planes))
        assert words.splitlines()[-2:] == [pairs.s1.read_note(name)["acquisition_time"][:10], name]


def test_a_draw_from_raw_folders_is_that_from_a_store_and_the_same_again(small: SmallArchive, store: Path) -> None:
    for seed in (0, 1):
        choice = Choice(n=5, seed=seed)
        assert set(open_album(small.archive.root, choice).names) == set(open_album(store, choice).names)
    draws = [open_album(small.archive.root, Choice(n=5, seed=seed)).names for seed in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
    assert len(open_album(small.archive.root, Choice(n=1_000)).names) == len(small.names)


@pytest.mark.parametrize("n", [5, None])
def test_an_archive_file_gives_what_its_folder_gives(n: int | None, small: SmallArchive, tmp_path: Path) -> None:
    raw = write_tarball(tmp_path / "raw.tar.gz", list_files(small.archive.root)[::-1])
    choice = Choice(() if n else tuple(small.names[7:4:-1]), n=n, seed=3)
    albums = [open_album(path, choice) for path in (raw, small.archive.root)]
    assert albums[0].names == albums[1].names
    assert albums[0].bands == albums[1].bands
    for position in range(len(albums[0].names)):
        ours, theirs = (album.read(position, ["B04", "B11"]) for album in albums)
        assert (ours.name, ours.labels, ours.day_of) == (theirs.name, theirs.labels, theirs.day_of)
        for band in ("B04", "B11"):
            np.testing.assert_array_equal(ours.planes[band], theirs.planes[band])


def test_a_patch_that_is_not_in_an_archive_file_is_named(small: SmallArchive, tmp_path: Path) -> None:
    raw = write_tarball(tmp_path / "raw.tar", list_files(small.archive.root))
    with pytest.raises(SelectionError, match="expected names of its patches, found S2A_nowhere"):
        open_album(raw, Choice(("S2A_nowhere",)))


def test_a_patch_without_the_bands_is_an_error_that_says_what_there_is(
    real: Archive, v2: V2Archive, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        OptionError, match=r"expected VV, VH to draw s1 from, found patches that have only B02, B03, .*B09"
    ):
        write_pictures(open_album(store, Choice(n=1)), PreviewOptions(("s1",)), tmp_path)
    with pytest.raises(OptionError, match=r"expected B04, B03, B02 to draw rgb from, found .* only VV, VH; choose"):
        write_sheet(open_album(v2.s1, Choice(n=1)), PreviewOptions(("rgb",)), tmp_path / "sheet.png")
    few = real.copy(tmp_path / "few", real.names[:1])
    few.tif(real.names[0], "B11").unlink()
    with pytest.raises(OptionError, match="expected B11"):
        write_pictures(open_album(few.root, Choice()), PreviewOptions(("B11",)), tmp_path / "out")
    assert write_pictures(open_album(few.root, Choice()), PreviewOptions(("B12",)), tmp_path / "out") == 1


def test_a_damaged_patch_is_named(real: Archive, tmp_path: Path) -> None:
    bad = real.copy(tmp_path / "bad", real.names[:2])
    path = bad.tif(real.names[1], "B03")
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(PatchError, match=f"{real.names[1]}_B03.tif.*truncated"):
        write_sheet(open_album(bad.root, Choice()), PreviewOptions(), tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_nothing_is_overwritten(real: Archive, tmp_path: Path) -> None:
    album = open_album(real.root, Choice())
    there = tmp_path / f"{real.names[3]}_rgb.png"
    there.write_text("mine")
    with pytest.raises(OutputError, match=f"{real.names[3]}_rgb.png: it is already there"):
        write_pictures(album, PreviewOptions(("rgb",)), tmp_path)
    with pytest.raises(OutputError, match="it is already there"):
        write_sheet(album, PreviewOptions(("rgb",)), there)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_sheet_that_would_be_too_large_is_refused_before_anything_is_read(real: Archive, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"at most {MAX_PIXELS // 1_000_000} million are drawn; choose fewer patches"):
        write_sheet(open_album(real.root, Choice()), PreviewOptions(scale=50), tmp_path / "sheet.png", fail)
    assert list(tmp_path.iterdir()) == []


def fail(n_done: int, n_total: int) -> None:
    raise AssertionError("a patch was drawn")


def test_what_is_no_source_is_named(real: Archive, store: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a store, an archive or a patch folder, found no such folder"):
        open_album(tmp_path / "nowhere", Choice())
    (tmp_path / "half" / ".progress").mkdir(parents=True)
    with pytest.raises(StoreError, match="expected a finished store"):
        open_album(tmp_path / "half", Choice())
    with pytest.raises(OptionError, match="a condition asks the table of a store, and these are raw patches"):
        open_album(real.root, Choice(where="true"))
    with pytest.raises(SelectionError, match="expected names of its patches, found S2A_nobody"):
        open_album(real.root, Choice(("S2A_nobody",)))


def test_the_command_line_draws(small: SmallArchive, store: Path, run_cli: RunCli, tmp_path: Path) -> None:
    ended = run_cli("preview", store, "--where", "recommended", "--random", "3", "--sheet", tmp_path / "a.png")
    assert (ended.code, ended.out) == (0, f"Wrote 3 patches to {tmp_path / 'a.png'}\n")
    names = (small.snow, small.cloud)
    ended = run_cli("preview", store, *names, "--what", "RGB", "--what", "B05", "--scale", "1", "--out", tmp_path)
    assert (ended.code, ended.out) == (0, f"Wrote 4 pictures to {tmp_path}\n")
    assert len(list(tmp_path.iterdir())) == 5
    ended = run_cli("preview", small.archive.root, "--out", tmp_path / "all")
    assert ended.out == f"Wrote 20 pictures to {tmp_path / 'all'}\n", "not the whole archive, if nothing is said"
    assert "nobody" in run_cli("preview", store, "nobody", "--out", tmp_path).error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected either --sheet FILE.png or --out DIR"),
        (["--sheet", "a.png", "--out", "b"], "expected either"),
        (["--sheet", "a.jpg"], "ends in .png, found a.jpg"),
        (["--out", "b", "--what", "ndvi"], "'ndvi' is not one of 'rgb', 'false-colour'"),
        (["--out", "b", "--scale", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage_is_exit_code_2(store: Path, run_cli: RunCli, options: list[str], message: str) -> None:
    ended = run_cli("preview", store, *options)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
