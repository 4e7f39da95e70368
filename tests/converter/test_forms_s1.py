"""Sentinel-1: pairs matched by name, every way in which they can fail to match, and Sentinel-1 alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import zarr
from numpy.typing import NDArray
from rasterio import Affine

from bigearthnet.archive.raster import read_band
from bigearthnet.archive.records import Sources
from bigearthnet.errors import OptionError, SourceError, StoreError
from converter.conversion import convert, plan_conversion
from tests.archives import ARRAYS, Archive, read_files, write_lists
from tests.conftest import RunCli
from tests.forms import Pairs, convert_here, extract_pairs, open_here

SKIP: dict[str, Any] = {"on_bad": "skip", "max_bad": 1.0}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """The six real pairs. Read only: copy what is to be changed."""
    return extract_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def store(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store"
    summary = convert_here(pairs.sources, path, pairs.options())
    assert (summary.n_patches, summary.n_rejected) == (6, 0)
    return path


@pytest.fixture
def raw(pairs: Pairs, tmp_path: Path) -> Pairs:
    """A copy of the pairs that may be damaged."""
    return pairs.copy(tmp_path / "raw")


def rows_of(store: Path) -> dict[str, dict[str, Any]]:
    return {row["patch_id"]: row for row in pq.read_table(store / "patches.parquet").to_pylist()}


def array_of(store: Path, name: str) -> NDArray[Any]:
    return np.asarray(zarr.open_group(store / "images.zarr", mode="r")[name])


def rejects_of(store: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store / "rejected.parquet").to_pylist()
    return rows


def read_s1(archive: Archive, name: str) -> NDArray[Any]:
    return np.stack([archive.read_band(name, band) for band in ("VV", "VH")])


def check_s1(store: Path, pairs: Pairs) -> None:
    """Compare the Sentinel-1 pixels of every row with what rasterio reads of the patch that the JSON names."""
    pixels = array_of(store, "s1_10m")
    assert pixels.dtype == np.float32
    for name, row in rows_of(store).items():
        expected = read_s1(pairs.s1, pairs.partner_of[name])
        np.testing.assert_array_equal(pixels[row["index"]].view(np.uint32), expected.view(np.uint32))


# -- The real pairs --------------------------------------------------------------------------------------------------


def test_every_pixel_of_the_real_pairs_is_what_rasterio_reads(pairs: Pairs, store: Path) -> None:
    assert len(pairs.partner_of) == 6
    assert [pairs.partner_of[name] for name in pairs.s2.names] != pairs.s1.names, "else order would do"
    check_s1(store, pairs)
    for name, row in rows_of(store).items():
        for array in ARRAYS:
            np.testing.assert_array_equal(array_of(store, array)[row["index"]], pairs.s2.read_array(name, array))


def test_rows_tell_the_partner_and_when_it_was_sensed(pairs: Pairs, store: Path) -> None:
    for name, row in rows_of(store).items():
        note = pairs.s1.read_note(pairs.partner_of[name])
        assert (row["s1_name"], row["has_s1"]) == (pairs.partner_of[name], True)
        assert f"{row['s1_time']:%Y-%m-%dT%H:%M:%S %Z}" == f"{note['acquisition_time']} UTC"
        assert f"{row['s2_time']:%Y-%m-%d %H:%M:%S}" == pairs.s2.read_note(name)["acquisition_date"]
        assert row["labels"] == pairs.s2.read_note(name)["labels"]


def test_s1_is_taken_by_the_fast_path_and_gives_the_bytes_of_the_slow_one(
    pairs: Pairs, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_here(pairs.sources, tmp_path / "slow", pairs.options(reader="rasterio"))
    assert read_files(tmp_path / "slow") == read_files(store)
    monkeypatch.setattr(
        "bigearthnet.archive.raster._read_with_rasterio", lambda *_: pytest.fail("a plain file is left to GDAL")
    )
    convert_here(pairs.sources, tmp_path / "fast", pairs.options())
    assert read_files(tmp_path / "fast") == read_files(store)


@pytest.mark.parametrize(
    "kind",
    [
        {"compress": "deflate", "predictor": 3},
        {"compress": "lzw"},
        {"tiled": True, "blockxsize": 32, "blockysize": 32},
        {"ENDIANNESS": "BIG"},
        {"nodata": float("nan")},
    ],
)
def test_recompressed_s1_gives_the_same_bytes(kind: dict[str, Any], raw: Pairs, store: Path, tmp_path: Path) -> None:
    for name in raw.s1.names:
        for band in ("VV", "VH"):
            raw.s1.rewrite_tif(name, band, **kind)
    convert_here(raw.sources, tmp_path / "store", raw.options())
    assert read_files(tmp_path / "store") == read_files(store)


def test_nan_and_infinity_in_s1_are_pixels_like_others(raw: Pairs, tmp_path: Path) -> None:
    name = raw.s1.names[0]
    pixels = raw.s1.read_band(name, "VH")
    pixels[3, 4:7] = (np.nan, np.inf, -np.inf)
    raw.s1.rewrite_tif(name, "VH", pixels)
    with np.errstate(invalid="ignore"):
        convert_here(raw.sources, tmp_path / "store", raw.options())
    check_s1(tmp_path / "store", raw)


def test_dask_workers_convert_pairs_too(pairs: Pairs, store: Path, scheduler: str, tmp_path: Path) -> None:
    convert(pairs.sources, tmp_path / "store", pairs.options(scheduler=scheduler))
    assert read_files(tmp_path / "store") == read_files(store)


def test_the_partner_is_the_one_that_the_list_names_wherever_it_lies(raw: Pairs, store: Path, tmp_path: Path) -> None:
    """An enclosing folder, a folder of another name beside it, strays and hidden files change nothing."""
    for number, name in enumerate(raw.s1.names):
        (moved := raw.s1.root / f"part {number % 2}").mkdir(exist_ok=True)
        raw.s1.folder(name).rename(moved / name)
    (raw.s1.root / "._hidden").touch()
    (raw.s1.root / "readme.txt").touch()
    planned = plan_conversion(raw.sources, raw.options())
    assert planned.archive.n_stray == 1
    convert_here(raw.sources, tmp_path / "store", raw.options())
    assert read_files(tmp_path / "store") == read_files(store)


# -- Missing partners ------------------------------------------------------------------------------------------------


def test_a_patch_without_its_partner_is_rejected_and_the_message_says_where_it_was_sought(
    raw: Pairs, tmp_path: Path
) -> None:
    name = raw.s2.names[2]
    shutil.rmtree(raw.s1.folder(raw.partner_of[name]))
    partner = next(s1 for s2, s1 in extract_pairs(tmp_path / "whole").partner_of.items() if s2 == name)
    reason = f"expected the folder of its Sentinel-1 partner in {raw.s1.root}, found none"
    with pytest.raises(SourceError) as raised:
        convert_here(raw.sources, tmp_path / "store", raw.options(max_bad=1.0))
    assert f"\n  {name}/{partner}: {reason}\n" in str(raised.value)
    summary = convert_here(raw.sources, tmp_path / "store", raw.options(**SKIP))
    assert (summary.n_patches, summary.n_rejected) == (5, 1)
    assert rejects_of(tmp_path / "store") == [{"patch_id": name, "file": partner, "reason": reason}]
    counts: Any = zarr.open_group(tmp_path / "store" / "images.zarr", mode="r").attrs["counts"]
    assert (counts["found"], counts["converted"], counts["rejected"]) == (6, 5, 1)
    check_s1(tmp_path / "store", raw)


def test_allowing_missing_partners_fills_them_with_nan_and_flags_them(raw: Pairs, store: Path, tmp_path: Path) -> None:
    names = raw.s2.names
    partner_of = raw.partner_of
    for name in (names[1], names[4]):
        shutil.rmtree(raw.s1.folder(partner_of[name]))
    summary = convert_here(raw.sources, tmp_path / "store", raw.options(allow_missing_s1=True))
    assert (summary.n_patches, summary.n_rejected) == (6, 0)
    rows = rows_of(tmp_path / "store")
    assert {name: row["has_s1"] for name, row in rows.items()} == {n: n not in (names[1], names[4]) for n in names}
    pixels = array_of(tmp_path / "store", "s1_10m")
    for name, row in rows.items():
        if row["has_s1"]:
            np.testing.assert_array_equal(pixels[row["index"]], read_s1(raw.s1, partner_of[name]))
        else:
            assert np.isnan(pixels[row["index"]]).all()
            assert row["s1_time"] is None
            assert row["s1_name"] == partner_of[name]
    for array in ARRAYS:
        np.testing.assert_array_equal(array_of(tmp_path / "store", array), array_of(store, array))
    train = np.stack([read_s1(raw.s1, partner_of[name]) for name in (names[0], names[2])])
    found: Any = zarr.open_group(tmp_path / "store" / "images.zarr", mode="r").attrs["statistics"]
    for number, band in enumerate(("VV", "VH")):
        assert found[band]["count"] == train[:, number].size
        assert found[band]["mean"] == pytest.approx(train[:, number].mean(dtype=np.float64), rel=1e-9)


def test_a_band_missing_in_a_partner_that_is_there_is_a_fault_all_the_same(raw: Pairs, tmp_path: Path) -> None:
    name = raw.s2.names[0]
    path = raw.s1.tif(raw.partner_of[name], "VH")
    path.unlink()
    convert_here(raw.sources, tmp_path / "store", raw.options(allow_missing_s1=True, **SKIP))
    assert rejects_of(tmp_path / "store") == [
        {"patch_id": name, "file": path.name, "reason": "the file is missing"},
    ]


def test_a_patch_that_no_list_pairs_is_rejected_and_may_be_allowed(raw: Pairs, tmp_path: Path) -> None:
    name = raw.s2.names[3]
    left = [(s1, s2, "Somewhere", "Summer") for s2, s1 in raw.partner_of.items() if s2 != name]
    lists = write_lists(tmp_path / "lists", left, train=raw.s2.names[:2])
    convert_here(raw.sources, tmp_path / "store", raw.options(lists=lists, **SKIP))
    assert rejects_of(tmp_path / "store") == [
        {"patch_id": name, "file": "", "reason": "expected a Sentinel-1 partner, no official list names one"}
    ]
    convert_here(raw.sources, tmp_path / "all", raw.options(lists=lists, allow_missing_s1=True))
    row = rows_of(tmp_path / "all")[name]
    assert (row["has_s1"], row["s1_name"], row["split"]) == (False, None, None)


def test_a_store_begun_without_missing_partners_is_not_continued_with_them(raw: Pairs, tmp_path: Path) -> None:
    shutil.rmtree(raw.s1.folder(raw.s1.names[0]))
    with pytest.raises(SourceError):
        convert_here(raw.sources, tmp_path / "store", raw.options(max_bad=1.0))
    with pytest.raises(StoreError, match="missing Sentinel-1 allowed was False, is True"):
        convert_here(raw.sources, tmp_path / "store", raw.options(allow_missing_s1=True))


# -- Partners that disagree ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow_missing_s1", [False, True])
def test_a_partner_that_names_another_patch_is_refused(allow_missing_s1: bool, raw: Pairs, tmp_path: Path) -> None:
    name, other = raw.s2.names[:2]
    partner = raw.partner_of[name]
    raw.s1.edit_note(partner, corresponding_s2_patch=other)
    convert_here(raw.sources, tmp_path / "store", raw.options(allow_missing_s1=allow_missing_s1, **SKIP))
    (reject,) = rejects_of(tmp_path / "store")
    assert (reject["patch_id"], reject["file"]) == (name, f"{partner}_labels_metadata.json")
    assert name in reject["reason"] or "this patch" in reject["reason"]
    assert other in reject["reason"]


def test_a_partner_whose_json_lies_elsewhere_is_refused_with_both_corners(raw: Pairs, tmp_path: Path) -> None:
    name = raw.s2.names[0]
    partner = raw.partner_of[name]
    corner = raw.s2.read_note(name)["coordinates"]
    moved = {"ulx": corner["ulx"] + 1_200, "uly": corner["uly"], "lrx": corner["lrx"] + 1_200, "lly": corner["lry"]}
    raw.s1.edit_note(partner, coordinates=moved)
    convert_here(raw.sources, tmp_path / "store", raw.options(**SKIP))
    (reject,) = rejects_of(tmp_path / "store")
    assert (reject["patch_id"], reject["file"]) == (name, f"{partner}_labels_metadata.json")
    for x_ul in (corner["ulx"], moved["ulx"]):
        assert f"({x_ul}, {corner['uly']})" in reject["reason"]


@pytest.mark.parametrize("band", ["VV", "VH"])
def test_a_partner_whose_raster_lies_elsewhere_is_refused(band: str, raw: Pairs, tmp_path: Path) -> None:
    name = raw.s2.names[0]
    path = raw.s1.tif(raw.partner_of[name], band)
    corner = raw.s2.read_note(name)["coordinates"]
    with rasterio.open(path, "r+") as target:
        target.transform = Affine(10, 0, corner["ulx"], 0, -10, corner["uly"] + 10)
    convert_here(raw.sources, tmp_path / "store", raw.options(**SKIP))
    (reject,) = rejects_of(tmp_path / "store")
    assert (reject["patch_id"], reject["file"]) == (name, path.name)
    assert f"({corner['ulx']}, {corner['uly']})" in reject["reason"]
    assert f"({corner['ulx']}, {corner['uly'] + 10})" in reject["reason"]


@pytest.mark.parametrize(
    ("profile", "dtype", "reason"),
    [
        ({"nodata": -9_999.0}, np.float32, r"expected no nodata value, found -9999"),
        ({"nodata": 0.0}, np.float32, r"expected no nodata value, found 0"),
        ({}, np.float64, r"expected .*120 x 120 float32.*found .*float64"),
        ({}, np.int16, r"expected .*120 x 120 float32.*found .*int16"),
    ],
)
def test_s1_of_another_kind_is_refused(
    profile: dict[str, Any], dtype: Any, reason: str, raw: Pairs, tmp_path: Path
) -> None:
    name = raw.s1.names[0]
    raw.s1.rewrite_tif(name, "VV", raw.s1.read_band(name, "VV").astype(dtype), **profile)
    with pytest.raises(SourceError, match=reason):
        convert_here(raw.sources, tmp_path / "store", raw.options(max_bad=1.0))


# -- The JSON of Sentinel-1 ------------------------------------------------------------------------------------------


def test_keys_of_s1_json_are_those_that_differ_from_s2_and_further_ones_are_tolerated(
    raw: Pairs, store: Path, tmp_path: Path
) -> None:
    for name in raw.s1.names:
        note = raw.s1.read_note(name)
        assert {"lly"} == set(note["coordinates"]) - {"ulx", "uly", "lrx"}
        assert {"acquisition_time", "scene_source", "corresponding_s2_patch"} < set(note)
        raw.s1.edit_note(name, scene_source=None, orbit=[1, 2], comment="mine")
    convert_here(raw.sources, tmp_path / "store", raw.options())
    assert read_files(tmp_path / "store") == read_files(store)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"corresponding_s2_patch": 7}, "'corresponding_s2_patch'.*found 7"),
        ({"acquisition_time": "2017-06-13T25:50:43"}, "'acquisition_time'.*found '2017-06-13T25:50:43'"),
        ({"acquisition_time": None}, "'acquisition_time'.*found None"),
        ({"coordinates": {"ulx": 0, "uly": 0, "lrx": 1_200}}, "'coordinates'"),
        ({"coordinates": {"ulx": 0, "uly": 0, "lrx": 1_200, "lly": 1_200}}, "1,200 m apart, found 1,200 by -1,200"),
    ],
)
def test_damaged_s1_json_is_refused_by_key(changes: dict[str, Any], reason: str, raw: Pairs, tmp_path: Path) -> None:
    name = raw.s1.names[0]
    raw.s1.edit_note(name, **changes)
    with pytest.raises(SourceError, match=rf"{name}_labels_metadata\.json: expected .*{reason}"):
        convert_here(raw.sources, tmp_path / "store", raw.options(max_bad=1.0))


# -- Sentinel-1 alone ------------------------------------------------------------------------------------------------


def test_s1_alone_makes_a_store_of_the_same_patches(pairs: Pairs, store: Path, tmp_path: Path) -> None:
    convert_here(Sources(s1=pairs.s1.root), tmp_path / "store", pairs.options())
    group = zarr.open_group(tmp_path / "store" / "images.zarr", mode="r")
    assert {name for name in group.array_keys() if name.startswith(("s1", "s2", "ref"))} == {"s1_10m"}
    check_s1(tmp_path / "store", pairs)
    both, alone = rows_of(store), rows_of(tmp_path / "store")
    assert list(alone) == list(both)
    for name, row in alone.items():
        assert (row["s2_time"], row["zero_pixels"], row["has_s1"]) == (None, None, True)
        kept = set(row) - {"s2_time", "zero_pixels", "tile", "geometry"}
        assert {key: row[key] for key in kept} == {key: both[name][key] for key in kept}
        assert row["geometry"] == both[name]["geometry"]
        assert row["labels"] == pairs.s1.read_note(pairs.partner_of[name])["labels"]


def test_s1_alone_knows_the_tile_from_its_name(pairs: Pairs, store: Path, tmp_path: Path) -> None:
    convert_here(Sources(s1=pairs.s1.root), tmp_path / "store", pairs.options())
    both, alone = rows_of(store), rows_of(tmp_path / "store")
    assert {name: row["tile"] for name, row in alone.items()} == {name: row["tile"] for name, row in both.items()}


def test_s1_in_no_list_is_one_rejected_patch(pairs: Pairs, tmp_path: Path) -> None:
    name = pairs.s2.names[0]
    left = [(s1, s2, "Somewhere", "Summer") for s2, s1 in pairs.partner_of.items() if s2 != name]
    lists = write_lists(tmp_path / "lists", left, train=pairs.s2.names[:2])
    convert_here(Sources(s1=pairs.s1.root), tmp_path / "store", pairs.options(lists=lists, **SKIP))
    (reject,) = rejects_of(tmp_path / "store")
    assert pairs.partner_of[name] in f"{reject['patch_id']} {reject['file']}"
    assert name not in rows_of(tmp_path / "store")


def test_no_archive_at_all_is_refused() -> None:
    with pytest.raises(OptionError, match="expected an archive of Sentinel-2 or Sentinel-1 patches"):
        Sources()


def test_folders_given_for_the_wrong_sensor_are_refused(pairs: Pairs, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"BigEarthNet-S1-Example: expected .*S2A.*found S1 .*mixed up"):
        plan_conversion(Sources(pairs.s1.root), pairs.options())
    with pytest.raises(SourceError, match=r"BigEarthNet-S2-Example: expected .*S1A.*found S2 "):
        plan_conversion(Sources(pairs.s2.root, pairs.s2.root), pairs.options())


def test_a_folder_of_both_sensors_is_refused(raw: Pairs) -> None:
    for name in raw.s1.names:
        shutil.copytree(raw.s1.folder(name), raw.s2.root / name)
    with pytest.raises(SourceError, match=r"expected patches of one kind, found 6 of S1 and 6 of S2 v1;"):
        plan_conversion(Sources(raw.s2.root), raw.options())


# -- The command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.conversion.open_cluster", open_here)


@pytest.mark.usefixtures("here")
def test_the_command_line_converts_pairs_and_s1_alone(
    pairs: Pairs, store: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    options = ["--lists", pairs.lists, "--shard-size", "4"]
    ended = run_cli("convert", pairs.s2.root, tmp_path / "store", "--s1", pairs.s1.root, *options)
    assert ended.code == 0, ended.err
    assert read_files(tmp_path / "store") == read_files(store)
    ended = run_cli("convert", tmp_path / "alone", "--s1", pairs.s1.root, *options, "--json")
    assert (ended.code, json.loads(ended.out)["n_patches"]) == (0, 6)


@pytest.mark.usefixtures("here")
def test_the_command_line_allows_missing_partners_only_if_asked(raw: Pairs, run_cli: RunCli, tmp_path: Path) -> None:
    shutil.rmtree(raw.s1.folder(raw.s1.names[0]))
    command = ["convert", raw.s2.root, tmp_path / "store", "--s1", raw.s1.root, "--lists", raw.lists]
    ended = run_cli(*command)
    assert ended.code == 1
    assert "expected the folder of its Sentinel-1 partner" in ended.err
    ended = run_cli(*command, "--allow-missing-s1", "--overwrite")
    assert ended.code == 0, ended.err


def test_a_store_without_an_archive_is_wrong_usage(run_cli: RunCli, tmp_path: Path) -> None:
    ended = run_cli("convert", tmp_path / "store")
    assert ended.code == 2
    assert "--s1" in ended.err


def test_read_band_is_what_the_fast_path_test_believes(pairs: Pairs) -> None:
    """The patched function is the one that a file of another form goes to."""
    assert "_read_with_rasterio" in read_band.__code__.co_names
