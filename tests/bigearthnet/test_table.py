"""The table of patches, as DuckDB, polars, pandas, geopandas and the GeoParquet validator read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import geoparquet_validator
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio.warp
from bigearthnet_common.constants import NEW_LABELS, OLD2NEW_LABELS_DICT

from bigearthnet.store.table import count_values, read_fingerprint
from tests.conftest import SmallArchive


@pytest.fixture(scope="module")
def path(store: Path) -> Path:
    return store / "patches.parquet"


@pytest.fixture(scope="module")
def labels(small: SmallArchive) -> dict[str, list[str]]:
    """Labels of each patch, from its JSON."""
    return {name: small.archive.read_note(name)["labels"] for name in small.names}


EXPECTED_TYPES = {
    "index": pa.int32(),
    "patch_id": pa.string(),
    "labels": pa.list_(pa.string()),
    "labels_19": pa.list_(pa.string()),
    "split": pa.string(),
    "recommended": pa.bool_(),
    "country": pa.string(),
    "season": pa.string(),
    "contains_seasonal_snow": pa.bool_(),
    "contains_cloud_or_shadow": pa.bool_(),
    "s1_name": pa.string(),
    "s2_time": pa.timestamp("ms", tz="UTC"),
    "satellite": pa.string(),
    "tile": pa.string(),
    "column": pa.int16(),
    "row": pa.int16(),
    "epsg": pa.int32(),
    "x_ul": pa.float64(),
    "y_ul": pa.float64(),
    "zero_pixels": pa.int32(),
    "geometry": pa.binary(),
    "bbox": pa.struct([(corner, pa.float64()) for corner in ("xmin", "ymin", "xmax", "ymax")]),
}


def test_the_columns_have_the_names_and_types_of_the_format(path: Path) -> None:
    schema = pq.read_schema(path)
    found = {field.name: field.type for field in schema}
    for name, expected in EXPECTED_TYPES.items():
        if pa.types.is_struct(expected):
            assert {field.name: field.type for field in found[name]} == {field.name: field.type for field in expected}
        elif pa.types.is_list(expected):
            assert found[name].value_type == expected.value_type
        else:
            assert found[name] == expected


def test_the_19_class_labels_follow_from_the_43(path: Path, labels: dict[str, list[str]], small: SmallArchive) -> None:
    def expect(found: list[str]) -> set[str]:
        return {OLD2NEW_LABELS_DICT[label] for label in found} - {None}

    rows = pq.read_table(path).to_pylist()
    assert {label for row in rows for label in row["labels_19"]} <= set(NEW_LABELS)
    for row in rows:
        assert row["labels"] == labels[row["patch_id"]]
        assert set(row["labels_19"]) == expect(row["labels"])
        assert len(row["labels_19"]) == len(set(row["labels_19"]))
    (without,) = (row for row in rows if not row["labels_19"])
    assert without["patch_id"] == small.no_19


def test_unknown_values_are_null_and_not_text(path: Path, small: SmallArchive) -> None:
    row = next(row for row in pq.read_table(path).to_pylist() if row["patch_id"] == small.unlisted)
    assert [row[name] for name in ("split", "country", "season", "s1_name")] == [None] * 4
    assert row["recommended"] is False


def query(text: str) -> Any:
    return duckdb.sql(text)


def test_duckdb_reads_it(path: Path, labels: dict[str, list[str]]) -> None:
    rows = query(f"select patch_id, labels from '{path}' order by index").fetchall()
    assert dict(rows) == labels
    ((n_pastures,),) = query(f"select count(*) from '{path}' where list_contains(labels_19, 'Pastures')").fetchall()
    assert n_pastures == sum("Pastures" in found for found in labels.values())
    found = query(f"select split, count(*) from '{path}' where recommended group by all").fetchall()
    assert dict(found) == {"train": 9, "validation": 5, "test": 4}
    (kind,) = {type(value) for (value,) in query(f"select bbox.xmin from '{path}'").fetchall()}
    assert kind is float


def test_polars_reads_it(path: Path, labels: dict[str, list[str]]) -> None:
    frame = pl.read_parquet(path)
    assert dict(zip(frame["patch_id"], frame["labels"].to_list(), strict=True)) == labels
    assert frame.schema["labels"] == pl.List(pl.String)
    assert frame.schema["s2_time"] == pl.Datetime("ms", "UTC")
    lazy = pl.scan_parquet(path).filter(pl.col("labels_19").list.contains("Pastures")).collect()
    assert len(lazy) == sum("Pastures" in found for found in labels.values())


def test_pandas_reads_it(path: Path, labels: dict[str, list[str]]) -> None:
    frame = pd.read_parquet(path)
    assert dict(zip(frame["patch_id"], map(list, frame["labels"]), strict=True)) == labels
    assert list(frame["index"]) == list(range(22))
    assert str(frame["s2_time"].dtype) == "datetime64[ms, UTC]"


def test_geopandas_reads_it_with_the_places_that_rasterio_computes(path: Path, small: SmallArchive) -> None:
    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert set(frame.geometry.geom_type) == {"Polygon"}
    for row in frame.itertuples():
        note = small.archive.read_note(row.patch_id)["coordinates"]
        corners = [note["ulx"], note["lry"], note["lrx"], note["uly"]]
        west, south, east, north = corners
        x, y = rasterio.warp.transform(
            f"EPSG:{row.epsg}", "OGC:CRS84", [west, west, east, east], [north, south, south, north]
        )
        np.testing.assert_allclose(np.array(row.geometry.exterior.coords)[:4], np.transpose([x, y]), rtol=0, atol=6e-8)
    boxes = [tuple(box.values()) for box in pq.read_table(path)["bbox"].to_pylist()]
    assert boxes == [shape.bounds for shape in frame.geometry]
    areas = frame.to_crs(epsg=3035).geometry.area
    np.testing.assert_allclose(areas, 1_440_000, rtol=0.01)


def test_geopandas_can_filter_by_a_box_before_reading(path: Path) -> None:
    whole = geopandas.read_parquet(path)
    box = whole.geometry.iloc[0].buffer(0.001).bounds
    found = geopandas.read_parquet(path, bbox=box)
    assert set(found["patch_id"]) == set(
        whole[whole.intersects(whole.geometry.iloc[0].buffer(0.001).envelope)]["patch_id"]
    )
    assert 1 <= len(found) < len(whole)


@pytest.mark.parametrize("conformance_class", ["core", "covering"])
def test_the_geoparquet_validator_passes(conformance_class: str, path: Path) -> None:
    report = geoparquet_validator.check(str(path))
    outcomes = [found for found in report["outcomes"] if found["id"].startswith(f"/conf/{conformance_class}/")]
    assert [found for found in outcomes if found["status"] == "fail"] == []
    assert sum(found["status"] == "pass" for found in outcomes) >= 5
    assert report["version"] == "1.1.0"


def test_the_file_is_made_for_fast_queries(path: Path) -> None:
    metadata = pq.read_metadata(path)
    group = metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    for name in ("labels.list.element", "labels_19.list.element", "split", "country", "season", "satellite", "tile"):
        assert any("DICTIONARY" in encoding for encoding in columns[name].encodings), name
    for name in ("geometry", "patch_id", "x_ul"):
        assert not any("DICTIONARY" in encoding for encoding in columns[name].encodings), name
    assert columns["split"].has_column_index
    assert columns["bbox.xmin"].is_stats_set
    assert b"ARROW:schema" not in metadata.metadata
    assert b"pandas" not in metadata.metadata
    assert "crs" not in json.loads(metadata.metadata[b"geo"])["columns"]["geometry"]


def test_the_table_repeats_the_fingerprint_of_the_images(store: Path) -> None:
    import zarr

    attributes: Any = dict(zarr.open_group(store / "images.zarr", mode="r").attrs)
    assert len(attributes["fingerprint"]) == 32
    assert read_fingerprint(store) == attributes["fingerprint"]


def test_values_are_counted_as_they_occur(store: Path, labels: dict[str, list[str]], small: SmallArchive) -> None:
    counts = count_values(store)
    flat = [label for found in labels.values() for label in found]
    assert counts["labels"] == {label: flat.count(label) for label in flat}
    assert list(counts["labels"].values()) == sorted(counts["labels"].values(), reverse=True)
    assert counts["recommended_split"] == {"train": 9, "validation": 5, "test": 4}
    assert counts["recommended"] == {"true": 18, "false": 4}
    assert counts["country"]["null"] == 1
    assert sum(counts["season"].values()) == len(small.names)
