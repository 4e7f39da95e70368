"""What comes out of a store is what went into it: rasterio and geopandas compare it with the archive and the table."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from bigearthnet.archive.records import Sources
from bigearthnet.errors import MissingPackageError, OutputError
from bigearthnet.store.query import select_patches
from converter.export.geopackage import export_footprints
from converter.export.geotiffs import export_rasters
from tests.archives import ARRAYS
from tests.conftest import RunCli, SmallArchive
from tests.forms import (
    ARRAYS_V2,
    Pairs,
    V2Archive,
    convert_here,
    extract_pairs,
    write_v2,
    write_v2_lists,
)

PLACE = ("crs", "transform", "nodata", "dtype", "width", "height", "count")


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> V2Archive:
    return write_v2(tmp_path_factory.mktemp("v2") / "archive")


@pytest.fixture(scope="module")
def lists(v2: V2Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v2_lists(tmp_path_factory.mktemp("lists"), v2)


@pytest.fixture(scope="module")
def v2_store(v2: V2Archive, lists: Path, small: SmallArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "store"
    convert_here(v2.sources, store, small.options(lists=lists))
    return store


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    return extract_pairs(tmp_path_factory.mktemp("pairs"))


def read_tif(path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    """Read the pixels, (band, row, col), and all that says where they lie and what they are."""
    with rasterio.open(path) as source:
        facts = {name: source.profile[name] for name in PLACE} | source.tags() | {"bounds": source.bounds}
        return source.read(), facts


def assert_same_raster(exported: Path, original: Path) -> None:
    pixels, facts = read_tif(exported)
    original_pixels, original_facts = read_tif(original)
    assert pixels.tobytes() == original_pixels.tobytes()
    assert facts == original_facts
    assert facts["AREA_OR_POINT"] == "Area"


def list_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_patches_of_v1_come_out_as_they_went_in(small: SmallArchive, store: Path, tmp_path: Path) -> None:
    assert export_rasters(store, select_patches(store), tmp_path / "out") == 12 * len(small.names)
    assert list_files(tmp_path / "out") == set(small.names)
    for name in small.names:
        originals = set(small.archive.folder(name).glob("*.tif"))
        assert list_files(tmp_path / "out" / name) == {path.name for path in originals}
        for original in originals:
            assert_same_raster(tmp_path / "out" / name / original.name, original)


def test_all_of_v2_comes_out_as_it_went_in(v2: V2Archive, v2_store: Path, tmp_path: Path) -> None:
    export_rasters(v2_store, select_patches(v2_store), tmp_path)
    for name in v2.names:
        originals = [v2.tif(name, band) for bands in ARRAYS_V2.values() for band in bands]
        assert list_files(tmp_path / name) == {path.name for path in originals}
        for original in originals:
            assert_same_raster(tmp_path / name / original.name, original)


def test_the_exported_files_of_v2_are_an_archive_again(
    v2: V2Archive, v2_store: Path, lists: Path, small: SmallArchive, tmp_path: Path
) -> None:
    """Their folders hold radar files too, which nothing asks for."""
    export_rasters(v2_store, select_patches(v2_store), tmp_path / "out")
    options = small.options(lists=lists, metadata=tuple(v2.root.glob("*.parquet")))
    for number, (s2, maps) in enumerate([(v2.s2, v2.maps), (tmp_path / "out", tmp_path / "out")]):
        convert_here(Sources(s2, reference_maps=maps), tmp_path / f"store {number}", options)
    shards = [
        {path.relative_to(store): path.read_bytes() for path in store.rglob("c/**/*") if path.is_file()}
        for store in (tmp_path / "store 0", tmp_path / "store 1")
    ]
    assert shards[0] == shards[1]
    assert len(shards[0]) > 4


def test_radar_comes_out_bit_by_bit_with_nan(pairs: Pairs, tmp_path: Path) -> None:
    raw = pairs.copy(tmp_path / "raw")
    s1_name = raw.s1.names[0]
    pixels = raw.s1.read_band(s1_name, "VH")
    pixels[3, 4:7] = np.nan
    raw.s1.rewrite_tif(s1_name, "VH", pixels)
    convert_here(raw.sources, tmp_path / "store", raw.options())
    export_rasters(tmp_path / "store", select_patches(tmp_path / "store"), tmp_path / "out")
    for patch_id, partner in pairs.partner_of.items():
        for band in ("VV", "VH"):
            assert_same_raster(tmp_path / "out" / patch_id / f"{partner}_{band}.tif", raw.s1.tif(partner, band))


def test_a_patch_without_partner_has_no_radar_files(pairs: Pairs, tmp_path: Path) -> None:
    raw = pairs.copy(tmp_path / "raw")
    alone, partner = next(iter(pairs.partner_of.items()))
    shutil.rmtree(raw.s1.folder(partner))
    convert_here(raw.sources, tmp_path / "store", raw.options(allow_missing_s1=True))
    export_rasters(tmp_path / "store", select_patches(tmp_path / "store"), tmp_path / "out")
    for name in raw.s2.names:
        assert len(list_files(tmp_path / "out" / name)) == (12 if name == alone else 14)


def test_a_stack_has_the_bands_of_an_array_with_their_names(v2: V2Archive, v2_store: Path, tmp_path: Path) -> None:
    name = v2.names[2]
    assert export_rasters(v2_store, select_patches(v2_store, [name]), tmp_path, stack=True) == 5
    s1_name = v2.row(name)["s1_name"]
    assert list_files(tmp_path / name) == {
        *(f"{name}_{array}.tif" for array in (*ARRAYS, "reference_map")),
        f"{s1_name}_s1_10m.tif",
    }
    for array in (*ARRAYS, "s1_10m"):
        path = tmp_path / name / f"{s1_name if array == 's1_10m' else name}_{array}.tif"
        bands = ARRAYS_V2[array]
        pixels, facts = read_tif(path)
        assert pixels.tobytes() == v2.read_array(name, array).tobytes()
        expected = read_tif(v2.tif(name, bands[0]))[1] | {"count": len(bands)}
        assert facts == expected
        with rasterio.open(path) as source:
            assert source.descriptions == bands
            assert source.colorinterp[0] == ColorInterp.gray
            assert ColorInterp.alpha not in source.colorinterp


def test_nothing_is_overwritten_and_nothing_half_written_stays(
    small: SmallArchive, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = select_patches(store, small.train[:3])
    there = tmp_path / small.train[2]
    there.mkdir()
    with pytest.raises(OutputError, match=f"{small.train[2]}: it is already there, and is not overwritten"):
        export_rasters(store, rows, tmp_path)
    with pytest.raises(OutputError, match="it is already there"):
        export_footprints(store, [0], there)
    there.rmdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written .*Not a directory"):
        export_rasters(store, rows, tmp_path / "file")
    assert list_files(tmp_path) == {"file"}


def test_footprints_are_the_table(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "patches.gpkg"
    rows = select_patches(store, where="recommended")
    assert export_footprints(store, [row["index"] for row in rows], path) == len(rows)
    found = geopandas.read_file(path)
    table = geopandas.read_parquet(store / "patches.parquet").iloc[[row["index"] for row in rows]]
    table = table.reset_index(drop=True)
    assert found.crs == "EPSG:4326"
    assert found.geometry.to_wkb().tolist() == table.geometry.to_wkb().tolist()
    assert set(found.columns) == set(table.columns)
    for name in set(table.columns) - {"geometry"}:
        expected = table[name].map("; ".join) if name in ("labels", "labels_19") else table[name]
        known = expected.notna()
        assert found[name].notna().tolist() == known.tolist()
        assert found[name][known].tolist() == expected[known].tolist(), name


def test_a_geopackage_has_one_layer_and_leaves_nothing_beside_it(store: Path, tmp_path: Path) -> None:
    export_footprints(store, [3], tmp_path / "patches.gpkg")
    assert geopandas.list_layers(tmp_path / "patches.gpkg").to_dict("records") == [
        {"name": "patches", "geometry_type": "Polygon"}
    ]
    assert list_files(tmp_path) == {"patches.gpkg"}


def test_without_pyogrio_the_error_says_what_to_install(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(MissingPackageError, match=r"pip install .*\[geo\]"):
        export_footprints(store, [0], tmp_path / "patches.gpkg")


def test_the_command_line_exports(small: SmallArchive, store: Path, run_cli: RunCli, tmp_path: Path) -> None:
    names = small.test[:2]
    ended = run_cli("export", store, *names, tmp_path / "a")
    assert (ended.code, ended.out) == (0, f"Wrote 24 files of 2 patches to {tmp_path / 'a'}\n")
    ended = run_cli("export", store, "--where", "contains_seasonal_snow", "--stack", tmp_path / "b")
    assert (ended.code, ended.out) == (0, f"Wrote 3 files of 1 patch to {tmp_path / 'b'}\n")
    ended = run_cli("export", store, tmp_path / "c.gpkg")
    assert (ended.code, ended.out) == (0, f"Wrote {len(small.names)} footprints to {tmp_path / 'c.gpkg'}\n")
    assert "nobody" in run_cli("export", store, "nobody", tmp_path / "d").error
    assert "already there" in run_cli("export", store, *names, tmp_path / "a").error
    assert not (tmp_path / "d").exists()
    for wrong in (["--format", "gpkg", tmp_path / "e"], ["--stack", tmp_path / "e.gpkg"], [], names[:1]):
        assert run_cli("export", store, *wrong).code == 2
