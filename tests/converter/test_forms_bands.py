"""Stores of chosen bands and of several sensors: what is read, what is stored, and what the store says of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr

from bigearthnet.archive.records import Sources
from bigearthnet.errors import OptionError, SourceError, StoreError
from bigearthnet.store.summary import describe_store
from converter.commands.descriptions import describe_info
from converter.conversion import ConvertOptions, plan_conversion
from tests.archives import read_files
from tests.conftest import RunCli
from tests.forms import (
    ARRAYS_V2,
    SIZES,
    Pairs,
    V2Archive,
    convert_here,
    extract_pairs,
    open_here,
    write_v2,
    write_v2_lists,
)

Options = Callable[..., ConvertOptions]

S2_BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> V2Archive:
    """Nine patches of v2.0. Read only: copy what is to be changed."""
    return write_v2(tmp_path_factory.mktemp("v2") / "archive")


@pytest.fixture(scope="module")
def options(archive: V2Archive, tmp_path_factory: pytest.TempPathFactory) -> Options:
    lists = write_v2_lists(tmp_path_factory.mktemp("lists"), archive)
    defaults: dict[str, Any] = {"lists": lists, "shard_size": 4}
    return lambda **changes: ConvertOptions(**(defaults | changes))


@pytest.fixture(scope="module")
def store(archive: V2Archive, options: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that v2.0 has."""
    path = tmp_path_factory.mktemp("store") / "store"
    convert_here(archive.sources, path, options())
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """The six real pairs of v1.0. Read only: copy what is to be changed."""
    return extract_pairs(tmp_path_factory.mktemp("pairs"))


def names_of(store: Path) -> list[str]:
    names: list[str] = pq.read_table(store / "patches.parquet")["patch_id"].to_pylist()
    return names


def bands_of(store: Path) -> dict[str, list[str]]:
    return {array["name"]: array["bands"] for array in describe_store(store)["arrays"]}


def keep_bands(archive: V2Archive, bands: Sequence[str]) -> None:
    """Delete every raster of other bands."""
    for name in archive.names:
        for band in SIZES:
            if band not in bands:
                archive.tif(name, band).unlink()


# -- Choosing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (("rgb",), {"s2_10m": ["B02", "B03", "B04"]}),
        (("B04", "B03", "B02"), {"s2_10m": ["B02", "B03", "B04"]}),
        (("rgbn",), {"s2_10m": ["B02", "B03", "B04", "B08"]}),
        (("10m",), {"s2_10m": ["B02", "B03", "B04", "B08"]}),
        (("20m", "b01"), {"s2_20m": ["B05", "B06", "B07", "B8A", "B11", "B12"], "s2_60m": ["B01"]}),
        (("60m",), {"s2_60m": ["B01", "B09"]}),
        (("s1",), {"s1_10m": ["VV", "VH"]}),
        (("RGB", "VH", "B02"), {"s2_10m": ["B02", "B03", "B04"], "s1_10m": ["VH"]}),
        (("s2",), {"s2_10m": ["B02", "B03", "B04", "B08"], "s2_20m": list(S2_BANDS[4:10]), "s2_60m": ["B01", "B09"]}),
    ],
)
def test_only_the_files_of_chosen_bands_are_needed_and_only_they_are_stored(
    chosen: tuple[str, ...],
    expected: dict[str, list[str]],
    archive: V2Archive,
    options: Options,
    store: Path,
    tmp_path: Path,
) -> None:
    raw = archive.copy(tmp_path / "raw")
    keep_bands(raw, [band for bands in expected.values() for band in bands])
    convert_here(Sources(raw.s2, raw.s1), tmp_path / "store", options(bands=chosen))
    assert bands_of(tmp_path / "store") == expected
    assert names_of(tmp_path / "store") == names_of(store)
    some: Any = zarr.open_group(tmp_path / "store" / "images.zarr", mode="r")
    every: Any = zarr.open_group(store / "images.zarr", mode="r")
    for array, bands in expected.items():
        columns = [ARRAYS_V2[array].index(band) for band in bands]
        np.testing.assert_array_equal(some[array][...], every[array][...][:, columns])
    attributes: Any = dict(some.attrs)
    assert list(attributes["statistics"]) == [band for bands in expected.values() for band in bands]
    whole: Any = every.attrs["statistics"]
    assert attributes["statistics"] == {band: whole[band] for band in attributes["statistics"]}


def test_rgb_of_v1_opens_three_rasters_and_the_json(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real_open = os.open

    def note(path: Any, *args: Any, **kwargs: Any) -> int:
        opened.append(os.fspath(path))
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", note)
    convert_here(Sources(pairs.s2.root), tmp_path / "store", pairs.options(bands=("rgb",)))
    below = [path for path in opened if path.startswith(str(pairs.s2.root))]
    suffixes = ("_labels_metadata.json", "_B02.tif", "_B03.tif", "_B04.tif")
    assert sorted(below) == sorted(
        f"{pairs.s2.root}/{name}/{name}{suffix}" for name in pairs.s2.names for suffix in suffixes
    )


def test_all_is_every_band_of_the_sensors_that_are_given(archive: V2Archive, options: Options) -> None:
    for sources, arrays in (
        (Sources(archive.s2), {"s2_10m", "s2_20m", "s2_60m"}),
        (Sources(archive.s2, archive.s1), {"s2_10m", "s2_20m", "s2_60m", "s1_10m"}),
        (Sources(s1=archive.s1), {"s1_10m"}),
        (Sources(s1=archive.s1, reference_maps=archive.maps), {"s1_10m", "reference_map"}),
        (archive.sources, set(ARRAYS_V2)),
    ):
        layout = plan_conversion(sources, options()).plan.layout
        assert {group.name for group in layout.groups} == arrays


def test_a_map_that_is_given_is_stored_whatever_the_bands(archive: V2Archive, options: Options, tmp_path: Path) -> None:
    sources = Sources(archive.s2, reference_maps=archive.maps)
    convert_here(sources, tmp_path / "store", options(bands=("rgb",)))
    assert set(bands_of(tmp_path / "store")) == {"s2_10m", "reference_map"}


def test_partners_that_are_not_needed_may_be_missing(
    archive: V2Archive, options: Options, store: Path, tmp_path: Path
) -> None:
    raw = archive.copy(tmp_path / "raw")
    shutil.rmtree(raw.tif(raw.names[0], "VV").parent)
    summary = convert_here(Sources(raw.s2, raw.s1), tmp_path / "store", options(bands=("rgb",)))
    assert (summary.n_patches, summary.n_rejected) == (9, 0)


@pytest.mark.parametrize(
    ("chosen", "named"), [(("B10",), "'B10'"), (("rgb", "nir"), "'nir'"), (("",), "''"), ((), "given")]
)
def test_unknown_or_no_bands_are_refused_before_anything_is_read(chosen: tuple[str, ...], named: str) -> None:
    with pytest.raises(OptionError, match=rf"no band {named}; choose from B02") as raised:
        ConvertOptions(bands=chosen)
    if chosen:
        assert "rgbn" in str(raised.value)
        assert "B8A" in str(raised.value)


def test_bands_of_a_sensor_that_is_not_given_are_refused(archive: V2Archive, options: Options) -> None:
    with pytest.raises(OptionError, match="no archive was given that has the bands s1"):
        plan_conversion(Sources(archive.s2), options(bands=("s1",)))


def test_zero_pixels_are_counted_over_the_bands_of_10_m_that_are_stored(
    archive: V2Archive, options: Options, tmp_path: Path
) -> None:
    for chosen in ("rgb", "20m"):
        convert_here(archive.s2, tmp_path / chosen, options(bands=(chosen,)))
    rows = pq.read_table(tmp_path / "rgb" / "patches.parquet").to_pylist()
    for row in rows:
        pixels = archive.read_array(row["patch_id"], "s2_10m")[:3]
        assert row["zero_pixels"] == (pixels == 0).sum()
    assert pq.read_table(tmp_path / "20m" / "patches.parquet")["zero_pixels"].null_count == 9


def test_an_unfinished_store_of_other_bands_is_not_continued(
    archive: V2Archive, options: Options, tmp_path: Path
) -> None:
    raw = archive.copy(tmp_path / "raw")
    raw.tif(raw.names[0], "B02").unlink()
    with pytest.raises(SourceError):
        convert_here(raw.s2, tmp_path / "store", options(bands=("rgb",), max_bad=1.0))
    with pytest.raises(StoreError, match=r"bands was .*'B04'.* is .*'B08'"):
        convert_here(raw.s2, tmp_path / "store", options(bands=("rgbn",)))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.conversion.open_cluster", open_here)


@pytest.mark.usefixtures("here")
def test_the_command_line_takes_bands_as_a_list(
    archive: V2Archive, options: Options, run_cli: RunCli, tmp_path: Path
) -> None:
    lists = options().lists
    assert lists is not None
    ended = run_cli("convert", archive.s2, tmp_path / "a", "--lists", lists, "--bands", "B04, B03,b02")
    assert ended.code == 0, ended.err
    ended = run_cli("convert", archive.s2, tmp_path / "b", "--lists", lists, "--bands", "rgb")
    assert ended.code == 0, ended.err
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")
    ended = run_cli("convert", archive.s2, tmp_path / "c", "--bands", "B10")
    assert "no band 'B10'" in ended.error
    assert not (tmp_path / "c").exists()


# -- Statistics ------------------------------------------------------------------------------------------------------


def test_statistics_are_those_that_numpy_takes_over_the_training_rows(archive: V2Archive, store: Path) -> None:
    statistics: Any = zarr.open_group(store / "images.zarr", mode="r").attrs["statistics"]
    assert set(statistics) == set(SIZES) - {"reference_map"}
    train = [row["patch_id"] for row in archive.rows if row["split"] == "train" and not row["contains_seasonal_snow"]]
    assert len(train) == 5
    for array, bands in ARRAYS_V2.items():
        if array == "reference_map":
            continue
        pixels = np.stack([archive.read_array(name, array) for name in train])
        for number, band in enumerate(bands):
            expected, found = pixels[:, number].astype(np.float64), statistics[band]
            assert found["count"] == expected.size
            assert (found["min"], found["max"]) == (expected.min(), expected.max())
            assert found["mean"] == pytest.approx(expected.mean(), rel=1e-9)
            assert found["std"] == pytest.approx(expected.std(), rel=1e-9)


def test_a_store_without_training_rows_has_no_statistics_but_is_whole(
    archive: V2Archive, options: Options, tmp_path: Path
) -> None:
    raw = archive.copy(tmp_path / "raw")
    for name in raw.names[:5]:
        shutil.rmtree(raw.tif(name, "B02").parent)
    convert_here(raw.sources, tmp_path / "store", options())
    statistics: Any = zarr.open_group(tmp_path / "store" / "images.zarr", mode="r").attrs["statistics"]
    assert statistics["VV"] == {"mean": None, "std": None, "min": None, "max": None, "count": 0}
    assert "B02" in describe_info(describe_store(tmp_path / "store"))


# -- What a store says -----------------------------------------------------------------------------------------------


def test_a_store_is_described_with_every_array(store: Path) -> None:
    found = json.loads(json.dumps(describe_store(store)))
    arrays = {array["name"]: array for array in found["arrays"]}
    assert set(arrays) == set(ARRAYS_V2)
    assert arrays["s1_10m"]["dtype"] == "float32"
    assert arrays["s1_10m"]["dimensions"] == ["patch", "band_s1", "y_10m", "x_10m"]
    assert arrays["reference_map"]["dimensions"] == ["patch", "y_10m", "x_10m"]
    assert arrays["reference_map"]["shape"] == [9, 120, 120]
    assert all(array["stored_bytes"] > 0 for array in arrays.values())


def test_info_shows_a_v2_store_without_classes_it_does_not_have(store: Path) -> None:
    text = describe_info(describe_store(store))
    for expected in ("BigEarthNet v2.0", "of 549,488 published", "VV VH", "reference_map", "class of 19"):
        assert expected in text
    assert "class of 43" not in text, "labels of v2.0 are of the 19-class nomenclature"


def test_info_says_that_s1_is_in_decibels(store: Path) -> None:
    text = describe_info(describe_store(store))
    assert "reflectance x 10,000" in text
    assert "dB" in text


def test_info_sets_negative_numbers_to_the_right_as_all_others(store: Path) -> None:
    lines = describe_info(describe_store(store)).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("band "))
    table = lines[first : first + 15]
    assert [line.split()[0] for line in table[1:]] == [*S2_BANDS, "VV", "VH"]
    ends = [[found.end() for found in re.finditer(r"\S+", line)] for line in table]
    assert [column[1:] for column in ends] == [ends[0][1:]] * len(table)


@pytest.mark.parametrize("chosen", [("rgb",), ("s1",)])
def test_info_shows_stores_of_chosen_bands(
    chosen: tuple[str, ...], pairs: Pairs, run_cli: RunCli, tmp_path: Path
) -> None:
    convert_here(pairs.sources, tmp_path / "store", pairs.options(bands=chosen))
    ended = run_cli("info", tmp_path / "store")
    assert ended.code == 0, ended.err
    assert ("VV VH" in ended.out, "B02 B03 B04" in ended.out) == (chosen == ("s1",), chosen == ("rgb",))
    ended = run_cli("info", tmp_path / "store", "--json")
    assert set(json.loads(ended.out)["attributes"]["statistics"]) == (
        {"VV", "VH"} if chosen == ("s1",) else {"B02", "B03", "B04"}
    )


def test_xarray_opens_maps_and_s1_with_named_dimensions(archive: V2Archive, store: Path) -> None:
    with warnings.catch_warnings(action="error"):
        opened = xr.open_zarr(store / "images.zarr", chunks=None)
    names = names_of(store)
    assert opened["s1_10m"].dims == ("patch", "band_s1", "y_10m", "x_10m")
    assert opened["reference_map"].dims == ("patch", "y_10m", "x_10m")
    assert (opened["s1_10m"].dtype, opened["reference_map"].dtype) == (np.float32, np.uint16)
    assert opened["band_s1"].values.tolist() == ["VV", "VH"]
    assert opened["patch_id"].values.tolist() == names
    for number, name in enumerate(names):
        np.testing.assert_array_equal(
            opened["s1_10m"].sel(band_s1="VH")[number].values, archive.read_array(name, "s1_10m")[1]
        )
        np.testing.assert_array_equal(opened["reference_map"][number].values, archive.read_array(name, "reference_map"))


def test_xarray_reads_nan_where_a_partner_is_missing(pairs: Pairs, tmp_path: Path) -> None:
    raw = pairs.copy(tmp_path / "raw")
    gone = raw.s2.names[0]
    shutil.rmtree(raw.s1.folder(raw.partner_of[gone]))
    convert_here(raw.sources, tmp_path / "store", raw.options(allow_missing_s1=True))
    opened = xr.open_zarr(tmp_path / "store" / "images.zarr", chunks=None)
    empty = np.isnan(opened["s1_10m"].values).all(axis=(1, 2, 3))
    assert [name for name, is_empty in zip(opened["patch_id"].values, empty, strict=True) if is_empty] == [gone]
    assert np.isnan(opened["s1_10m"].values).any(axis=(1, 2, 3)).sum() == 1
