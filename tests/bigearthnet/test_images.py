"""The Zarr side of a store, as zarr, zarrs, tensorstore and xarray read it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorstore
import xarray as xr
import zarr

from bigearthnet.store.manifest import read_attributes
from bigearthnet.store.summary import describe_parts
from tests.archives import ARRAYS
from tests.conftest import SHARD_SIZE, SmallArchive

SIZES = {"s2_10m": 120, "s2_20m": 60, "s2_60m": 20}


@pytest.fixture(scope="module")
def pixels(small: SmallArchive, store: Path) -> dict[str, Any]:
    """Every pixel of the store as rasterio reads it from the archive."""
    names = pq.read_table(store / "patches.parquet")["patch_id"].to_pylist()
    return {array: np.stack([small.archive.read_array(name, array) for name in names]) for array in ARRAYS}


@pytest.fixture(scope="module")
def opened(store: Path) -> xr.Dataset:
    dataset: xr.Dataset = xr.open_zarr(store / "images.zarr", chunks=None)
    return dataset


def test_xarray_shows_named_dimensions_and_integers(opened: xr.Dataset) -> None:
    assert set(opened.data_vars) == set(ARRAYS)
    for array in ARRAYS:
        suffix = array.removeprefix("s2_")
        assert opened[array].dims == ("patch", f"band_{suffix}", f"y_{suffix}", f"x_{suffix}")
        assert opened[array].dtype == np.uint16


def test_xarray_reads_every_pixel(opened: xr.Dataset, pixels: dict[str, Any]) -> None:
    for array in ARRAYS:
        np.testing.assert_array_equal(opened[array].values, pixels[array])


def test_xarray_finds_bands_by_name(opened: xr.Dataset, pixels: dict[str, Any]) -> None:
    for array, bands in ARRAYS.items():
        axis = f"band_{array.removeprefix('s2_')}"
        assert opened[axis].values.tolist() == list(bands)
        for number, band in enumerate(bands):
            np.testing.assert_array_equal(opened[array].sel({axis: band}).values, pixels[array][:, number])


def test_xarray_takes_what_is_known_of_each_patch_for_coordinates(opened: xr.Dataset, store: Path) -> None:
    table = pq.read_table(store / "patches.parquet")
    for name in ("patch_id", "epsg", "x_ul", "y_ul"):
        assert name in opened.coords
        assert opened[name].dims == ("patch",)
        assert opened[name].values.tolist() == table[name].to_pylist()
        assert name in opened["s2_20m"].coords
    assert opened["epsg"].dtype.kind == "i"
    assert opened["x_ul"].dtype == np.float64


def test_pixel_centres_are_told_in_metres_from_the_upper_left_corner(opened: xr.Dataset) -> None:
    for array, size in SIZES.items():
        suffix = array.removeprefix("s2_")
        for axis in ("x", "y"):
            centres = opened[f"{axis}_{suffix}"]
            assert centres.dtype == np.float32
            assert centres.attrs["units"] == "m"
            np.testing.assert_array_equal(centres.values, (np.arange(size) + 0.5) * 1_200 / size)


def test_no_attribute_makes_a_reader_turn_integers_into_floats(store: Path) -> None:
    for path in (store / "images.zarr").rglob("zarr.json"):
        for attributes in _find_attributes(json.loads(path.read_bytes())):
            assert not attributes.keys() & {"_FillValue", "missing_value", "scale_factor", "add_offset"}


def _find_attributes(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    consolidated = metadata.get("consolidated_metadata") or {"metadata": {}}
    return [metadata["attributes"], *(inner["attributes"] for inner in consolidated["metadata"].values())]


@pytest.mark.parametrize("array", ARRAYS)
def test_the_metadata_of_an_array_is_what_the_format_prescribes(array: str, store: Path) -> None:
    metadata = json.loads((store / "images.zarr" / array / "zarr.json").read_bytes())
    size, bands = SIZES[array], list(ARRAYS[array])
    assert metadata["shape"] == [22, len(bands), size, size]
    assert (metadata["data_type"], metadata["fill_value"], metadata["zarr_format"]) == ("uint16", 0, 3)
    grid = metadata["chunk_grid"]
    assert grid == {"name": "regular", "configuration": {"chunk_shape": [SHARD_SIZE, len(bands), size, size]}}
    assert metadata["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
    (sharding,) = metadata["codecs"]
    assert sharding["name"] == "sharding_indexed"
    inner = sharding["configuration"]
    assert inner["chunk_shape"] == [1, len(bands), size, size]
    assert inner["index_location"] == "end"
    blosc = {"typesize": 2, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 2 * size**2}
    assert inner["codecs"] == [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "blosc", "configuration": blosc},
        {"name": "crc32c"},
    ]
    assert inner["index_codecs"] == [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    attributes = metadata["attributes"]
    assert (attributes["bands"], attributes["quantification_value"]) == (bands, 10_000)


def test_one_file_tells_everything_to_readers_that_cannot_list(store: Path) -> None:
    metadata = json.loads((store / "images.zarr" / "zarr.json").read_bytes())
    inner = metadata["consolidated_metadata"]["metadata"]
    folders = {path.parent.name for path in (store / "images.zarr").glob("*/zarr.json")}
    assert set(inner) == folders
    for name, described in inner.items():
        alone = json.loads((store / "images.zarr" / name / "zarr.json").read_bytes())
        assert described["shape"] == alone["shape"]
        assert described["codecs"] == alone["codecs"]


def test_zarr_reads_every_pixel_with_its_own_pipeline(store: Path, pixels: dict[str, Any]) -> None:
    assert zarr.config.get("codec_pipeline.path").startswith("zarr.")
    group: Any = zarr.open_group(store / "images.zarr", mode="r")
    for array in ARRAYS:
        np.testing.assert_array_equal(group[array][...], pixels[array])


def test_zarrs_reads_every_pixel(store: Path, pixels: dict[str, Any]) -> None:
    import zarrs  # noqa: F401

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        group: Any = zarr.open_group(store / "images.zarr", mode="r")
        for array in ARRAYS:
            np.testing.assert_array_equal(group[array][...], pixels[array])
            np.testing.assert_array_equal(group[array][3:9, 1], pixels[array][3:9, 1])


def test_tensorstore_reads_every_pixel(store: Path, pixels: dict[str, Any]) -> None:
    for array in ARRAYS:
        path = f"{store}/images.zarr/{array}/"
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
        found = tensorstore.open(spec, read=True).result()
        assert found.dtype == tensorstore.uint16
        assert found.domain.labels[0] == "patch"
        np.testing.assert_array_equal(found.read().result(), pixels[array])


def test_a_flipped_bit_is_noticed_by_its_checksum(store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store / "images.zarr", tmp_path / "images.zarr")
    path = copy / "s2_60m/c/0/0/0/0"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"[Cc]hecksum"):
        zarr.open_array(copy / "s2_60m", mode="r")[:SHARD_SIZE]


def test_the_reader_that_the_summary_suggests_works_as_printed(store: Path) -> None:
    code = f"import xarray as xr; print(xr.open_zarr('{store / 'images.zarr'}', chunks=None))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "s2_10m" in ended.stdout
    assert ended.stderr == ""


# -- What a store says of itself -------------------------------------------------------------------------------------


def test_attributes_are_read_back(store: Path, small: SmallArchive) -> None:
    attributes = read_attributes(store)
    assert (attributes["format"], attributes["format_version"]) == ("bigearthnet-store", 2)
    assert attributes["counts"]["converted"] == len(small.names)


def test_arrays_are_described_with_their_sizes(store: Path) -> None:
    described = {array["name"]: array for array in describe_parts(store)[1]}
    assert list(described) == sorted(ARRAYS)
    for array, found in described.items():
        shape = [22, len(ARRAYS[array]), SIZES[array], SIZES[array]]
        assert (found["shape"], found["dtype"], found["bands"]) == (shape, "uint16", list(ARRAYS[array]))
        assert found["raw_bytes"] == 2 * np.prod(shape)
        files = [path for path in (store / "images.zarr" / array / "c").rglob("*") if path.is_file()]
        assert found["stored_bytes"] == sum(path.stat().st_size for path in files)
