"""Many tools open a store and agree with rasterio; what docs/interoperability.md shows is what they give."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import dask.array
import duckdb
import geopandas
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.warp
import tensorstore
import xarray as xr
import zarr
from numpy.typing import NDArray

from converter.commands.cli import cli
from tests.documents import Block, find_blocks, find_commands
from tests.forms import ARRAYS_V2
from tests.samples import Samples

STORES: Final = {
    "sample-store": ("s2_10m", "s2_20m", "s2_60m"),
    **dict.fromkeys(("pairs-store", "pairs-zstd", "pairs-none"), ("s2_10m", "s2_20m", "s2_60m", "s1_10m")),
    "v2-store": ("s2_10m", "s2_20m", "s2_60m", "s1_10m", "reference_map"),
}
ROWS: Final = [0, 5, 19, -1]
"""Neighbours, others, and the last patch of a shard that is not full."""

Pixels = NDArray[Any]

# -- Pixels ----------------------------------------------------------------------------------------------------------


def read_with_xarray(images: Path, array: str) -> Pixels:
    pixels: Pixels = xr.open_zarr(images, chunks=None)[array].isel(patch=ROWS).to_numpy()
    return pixels


def read_with_xarray_lazily(images: Path, array: str) -> Pixels:
    lazy = xr.open_zarr(images, chunks={})[array]
    assert lazy.chunks is not None
    pixels: Pixels = lazy.isel(patch=ROWS).to_numpy()
    return pixels


def read_with_dask(images: Path, array: str) -> Pixels:
    pixels: Pixels = dask.array.from_zarr(  # type: ignore[no-untyped-call]
        str(images / array)
    )[ROWS].compute()
    return pixels


def read_with_zarr(images: Path, array: str) -> Pixels:
    opened: Any = zarr.open_array(images / array, mode="r")
    pixels: Pixels = opened.oindex[[*ROWS[:-1], opened.shape[0] - 1]]
    return pixels


def read_with_zarrs(images: Path, array: str) -> Pixels:
    import zarrs  # noqa: F401

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        opened: Any = zarr.open_array(images / array, mode="r")
        return np.stack([opened[row] for row in ROWS])


def read_with_tensorstore(images: Path, array: str) -> Pixels:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{images / array}/"}}
    opened = tensorstore.open(spec, read=True).result()
    return np.stack([opened[row if row >= 0 else opened.shape[0] + row].read().result() for row in ROWS])


@pytest.mark.parametrize(
    "read",
    [read_with_xarray, read_with_xarray_lazily, read_with_dask, read_with_zarr, read_with_zarrs, read_with_tensorstore],
)
@pytest.mark.parametrize("store", STORES)
def test_every_reader_gives_the_pixels_that_rasterio_gives(
    store: str, read: Callable[[Path, str], Pixels], samples: Samples
) -> None:
    images, rows = samples.images(store), samples.rows(store)
    for array in STORES[store]:
        expected = np.stack([samples.read_array(store, rows[row], array) for row in ROWS])
        found = read(images, array)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("chunks", [None, {}])
@pytest.mark.parametrize("array", ["s2_10m", "s2_20m", "s2_60m", "s1_10m"])
def test_a_patch_and_its_bands_are_found_by_name(array: str, chunks: Any, samples: Samples) -> None:
    row = samples.rows("v2-store")[11]
    band_axis = "band_s1" if array == "s1_10m" else f"band_{array.removeprefix('s2_')}"
    bands = ARRAYS_V2[array][::-1]
    named = xr.open_zarr(samples.images("v2-store"), chunks=chunks)[array].set_xindex("patch_id")
    found = named.sel(patch_id=row["patch_id"], **{band_axis: list(bands)})
    np.testing.assert_array_equal(found.to_numpy(), samples.read_array("v2-store", row, array)[::-1])
    assert int(found["epsg"]) == row["epsg"]


@pytest.mark.parametrize("chunks", [None, {}])
@pytest.mark.parametrize(("array", "times"), [("s2_20m", 2), ("s2_60m", 6)])
def test_coarse_pixels_are_brought_to_10_m_by_their_place(
    array: str, times: int, chunks: Any, samples: Samples
) -> None:
    store = xr.open_zarr(samples.images("sample-store"), chunks=chunks).isel(patch=slice(3))
    y, x = f"y_{array.removeprefix('s2_')}", f"x_{array.removeprefix('s2_')}"
    found = store[array].sel({y: store.y_10m, x: store.x_10m}, method="nearest")
    expected = np.stack([samples.read_array("sample-store", row, array) for row in samples.rows("sample-store")[:3]])
    np.testing.assert_array_equal(found.to_numpy(), expected.repeat(times, axis=-2).repeat(times, axis=-1))
    assert found.dims[-2:] == ("y_10m", "x_10m")


# -- Table -----------------------------------------------------------------------------------------------------------

COLUMNS: Final = (
    *("index", "patch_id", "labels", "labels_19", "split", "recommended", "country", "season", "s1_name", "s2v1_name"),
    *("has_s1", "s2_time", "s1_time", "tile", "column", "row", "epsg", "x_ul", "y_ul", "zero_pixels"),
)


def list_with_duckdb(table: Path) -> list[dict[str, Any]]:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    with duckdb.connect() as connection:  # through Arrow, since times as Python's own need pytz
        rows: list[dict[str, Any]] = connection.sql(f"select {names} from '{table}'").to_arrow_table().to_pylist()
    return rows


def list_with_polars(table: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(table, columns=list(COLUMNS)).to_dicts()


def list_with_pandas(table: Path) -> list[dict[str, Any]]:
    return _list_frame(pd.read_parquet(table, columns=list(COLUMNS)))


def list_with_geopandas(table: Path) -> list[dict[str, Any]]:
    return _list_frame(geopandas.read_parquet(table, columns=[*COLUMNS, "geometry"]).drop(columns="geometry"))


def _list_frame(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.to_dict("records")
    return [{str(name): _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if pd.isna(value) else value


@pytest.mark.parametrize("read", [list_with_duckdb, list_with_polars, list_with_pandas, list_with_geopandas])
@pytest.mark.parametrize("store", STORES)
def test_every_reader_gives_the_rows_that_arrow_gives(
    store: str, read: Callable[[Path], list[dict[str, Any]]], samples: Samples
) -> None:
    table = samples.table(store)
    assert read(table) == pq.read_table(table, columns=list(COLUMNS)).to_pylist()


@pytest.mark.parametrize("store", STORES)
def test_footprints_are_where_rasterio_says_the_files_are(store: str, samples: Samples) -> None:
    frame = geopandas.read_parquet(samples.table(store))
    assert frame.crs is not None
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    rows = samples.rows(store)[:12]
    expected = []
    for row in rows:
        with rasterio.open(samples.tif(store, row, "B02")) as source:
            assert source.crs.to_epsg() == row["epsg"]
            expected.append(rasterio.warp.transform_bounds(source.crs, "OGC:CRS84", *source.bounds))
    np.testing.assert_allclose(frame.geometry.bounds[: len(rows)], expected, rtol=0, atol=1e-6)  # edges bulge
    boxes = [[row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for row in rows]
    np.testing.assert_array_equal(frame.geometry.bounds[: len(rows)], boxes)


# -- What the document shows -----------------------------------------------------------------------------------------

BLOCKS = find_blocks("interoperability.md", "python")


def expect_rows(samples: Samples) -> list[tuple[Any, ...]]:
    return [(row["patch_id"], row["labels_19"]) for row in samples.rows("v2-store")]


def expect_array(store: str, array: str, n_patches: int | None = None) -> Callable[[Samples], Pixels]:
    def expect(samples: Samples) -> Pixels:
        return np.stack([samples.read_array(store, row, array) for row in samples.rows(store)[:n_patches]])

    return expect


s2_60m = expect_array("sample-store", "s2_60m")
EXPECTED: Final[dict[tuple[str, int], Callable[[Samples], Any]]] = {
    ("xarray", 0): lambda samples: expect_array("sample-store", "s2_10m", 1)(samples)[0, [2, 1, 0]],
    ("xarray", 1): lambda samples: np.kron(
        expect_array("sample-store", "s2_20m", 1)(samples)[0], np.ones((1, 2, 2), np.uint16)
    ),
    ("dask", 0): lambda samples: s2_60m(samples).mean(axis=(0, 2, 3)),
    ("dask", 1): lambda samples: s2_60m(samples).max(axis=(0, 2, 3)),
    ("zarr-python", 0): expect_array("pairs-store", "s1_10m", 4),
    ("zarrs", 0): expect_array("pairs-store", "s1_10m", 4),
    ("tensorstore", 0): expect_array("v2-store", "reference_map", 4),
    ("DuckDB, polars and pandas", 0): expect_rows,
    ("DuckDB, polars and pandas", 1): expect_rows,
    ("DuckDB, polars and pandas", 2): expect_rows,
    ("mlcroissant", 0): lambda samples: [
        (name, [label.encode() for label in labels]) for name, labels in expect_rows(samples)
    ],
    ("geopandas", 0): lambda samples: _surround([row["bbox"] for row in samples.rows("sample-store")]),
}


def _surround(boxes: list[dict[str, float]]) -> list[float]:
    return [function(box[side] for box in boxes) for function, side in zip((min, min, max, max), boxes[0], strict=True)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlcroissant's own
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_what_the_document_shows_gives_what_is_in_the_archive(block: Block, samples: Samples, in_samples: Path) -> None:
    answer, expected = block.run(), EXPECTED[block.heading, block.number](samples)
    if isinstance(answer, pd.DataFrame):
        answer = [(patch_id, list(labels)) for patch_id, labels in answer.itertuples(index=False)]
    if isinstance(answer, list):
        assert answer == expected
    else:
        np.testing.assert_allclose(np.asarray(answer), expected, rtol=1e-12)


def test_gdal_names_the_codec_that_it_lacks_or_reads_the_pixels(samples: Samples) -> None:
    row = samples.rows("sample-store")[0]
    try:
        with rasterio.open(f'ZARR:"{samples.images("sample-store")}":/s2_10m:0:0') as source:
            pixels = source.read(1)
    except rasterio.errors.RasterioIOError as error:
        assert "sharding_indexed" in str(error)  # noqa: PT017 - a newer GDAL may read it
    else:
        np.testing.assert_array_equal(pixels, samples.read_array("sample-store", row, "s2_10m")[0])


def test_gdal_opens_what_the_document_exports(samples: Samples, in_samples: Path) -> None:
    (in_samples / "footprints.gpkg").unlink(missing_ok=True)  # docs/queries.md writes one too
    for command in find_commands("interoperability.md"):
        cli(command[1:], standalone_mode=False)
    name = "S2A_MSIL2A_20170617T113321_36_85"
    row = next(row for row in samples.rows("sample-store") if row["patch_id"] == name)
    with rasterio.open(in_samples / f"stacks/{name}/{name}_s2_20m.tif") as source:
        np.testing.assert_array_equal(source.read(), samples.read_array("sample-store", row, "s2_20m"))
    assert len(geopandas.read_file(in_samples / "footprints.gpkg")) == len(samples.rows("sample-store"))
    if gdalinfo := shutil.which("gdalinfo"):  # the system's own
        shown = subprocess.run(
            [gdalinfo, "-json", "-checksum", f"stacks/{name}/{name}_s2_20m.tif"],
            cwd=in_samples,
            capture_output=True,
            check=True,
        )
        with rasterio.open(samples.tif("sample-store", row, "B05")) as source:
            assert json.loads(shown.stdout)["bands"][0]["checksum"] == source.checksum(1)


def test_every_block_of_the_document_has_an_expectation() -> None:
    assert {(block.heading, block.number) for block in BLOCKS} == EXPECTED.keys()
