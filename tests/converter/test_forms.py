"""BigEarthNet v2.0: nested folders, metadata in Parquet, nodata 0, reference maps, and every way they can disagree."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.typing import NDArray
from rasterio import Affine

from bigearthnet.archive.records import Sources
from bigearthnet.errors import SourceError
from bigearthnet.labels import to_labels_19
from converter.commands.display import describe_plan
from converter.conversion import ConvertOptions, convert, plan_conversion
from tests.archives import read_files
from tests.conftest import RunCli
from tests.forms import (
    ARRAYS_V2,
    FLAGGED_METADATA,
    METADATA,
    SCHEMA,
    SEASONS,
    SIZES,
    V2Archive,
    convert_here,
    extract_pairs,
    open_here,
    write_rows,
    write_v2,
    write_v2_lists,
    write_v2_metadata,
)

SKIP: dict[str, Any] = {"on_bad": "skip", "max_bad": 1.0}

Options = Callable[..., ConvertOptions]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> V2Archive:
    """Nine patches. Read only: copy what is to be changed."""
    return write_v2(tmp_path_factory.mktemp("v2") / "archive")


@pytest.fixture(scope="module")
def options(archive: V2Archive, tmp_path_factory: pytest.TempPathFactory) -> Options:
    lists = write_v2_lists(tmp_path_factory.mktemp("lists"), archive)
    defaults: dict[str, Any] = {"lists": lists, "shard_size": 4}
    return lambda **changes: ConvertOptions(**(defaults | changes))


@pytest.fixture(scope="module")
def store(archive: V2Archive, options: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store"
    summary = convert_here(archive.sources, path, options())
    assert (summary.n_patches, summary.n_rejected, summary.n_classes) == (9, 0, 8)
    assert summary.split_counts == {"train": 5, "validation": 1, "test": 1, "other": 2}
    return path


@pytest.fixture
def raw(archive: V2Archive, tmp_path: Path) -> V2Archive:
    """A copy of the archive that may be damaged."""
    return archive.copy(tmp_path / "raw")


def rows_of(store: Path) -> dict[str, dict[str, Any]]:
    return {row["patch_id"]: row for row in pq.read_table(store / "patches.parquet").to_pylist()}


def array_of(store: Path, name: str) -> NDArray[Any]:
    return np.asarray(zarr.open_group(store / "images.zarr", mode="r")[name])


def attributes_of(store: Path) -> Any:
    return dict(zarr.open_group(store / "images.zarr", mode="r").attrs)


def rejects_of(store: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store / "rejected.parquet").to_pylist()
    return rows


def check_pixels(store: Path, archive: V2Archive) -> None:
    """Compare every pixel of a store with what rasterio reads of the archive."""
    rows = rows_of(store)
    for array in ARRAYS_V2:
        found = array_of(store, array)
        expected = np.stack([archive.read_array(name, array) for name in rows])
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


# -- What is published -----------------------------------------------------------------------------------------------


def test_every_pixel_of_every_array_is_what_rasterio_reads(archive: V2Archive, store: Path) -> None:
    check_pixels(store, archive)
    assert array_of(store, "s1_10m").dtype == np.float32
    assert array_of(store, "reference_map").shape == (9, 120, 120)
    assert (array_of(store, "s2_10m") == 0).any(), "nodata is a pixel like all others"


def test_rows_say_what_the_metadata_says(archive: V2Archive, store: Path) -> None:
    rows = rows_of(store)
    assert set(rows) == set(archive.names)
    same = [
        *("labels", "split", "country", "s1_name", "s2v1_name"),
        *("contains_seasonal_snow", "contains_cloud_or_shadow"),
    ]
    for name, row in rows.items():
        listed = archive.row(name)
        assert {key: row[key] for key in same} == {key: listed[key] for key in same}
        assert row["labels_19"] == list(to_labels_19(listed["labels"]))
        assert row["has_s1"] is True


def test_rows_say_what_names_and_rasters_say(archive: V2Archive, store: Path) -> None:
    for number, name in enumerate(archive.names):
        row = rows_of(store)[name]
        *_, tile, column, line = name.split("_")
        assert (row["satellite"], row["tile"]) == (name[:3], tile[1:])
        assert (row["column"], row["row"]) == (int(column), int(line))
        assert (row["epsg"], row["x_ul"], row["y_ul"]) == (32633 + number % 2, 300_000 + 1_200 * number, 5_400_000)
        assert f"{row['s2_time']:%Y%m%dT%H%M%S %Z}" == f"{name.split('_')[2]} UTC"
        assert f"{row['s1_time']:%Y%m%dT%H%M%S}" == row["s1_name"].split("_")[4]
        assert row["zero_pixels"] == (archive.read_array(name, "s2_10m") == 0).sum()


def test_the_season_is_that_of_the_same_patch_in_v1(archive: V2Archive, store: Path) -> None:
    rows = rows_of(store)
    found = [rows[name]["season"] for name in archive.names]
    assert found == [*(SEASONS[number % 4] for number in range(8)), None]


def test_snow_and_cloud_are_not_recommended_but_keep_their_split(archive: V2Archive, store: Path) -> None:
    rows = list(rows_of(store).values())
    assert [row["recommended"] for row in rows] == [True] * 7 + [False] * 2
    snow, cloud = archive.names[7:]
    found = {row["patch_id"]: row["split"] for row in rows[7:]}
    assert found == {snow: "train", cloud: "test"}
    assert attributes_of(store)["splits"] == {"train": [0, 5], "validation": [5, 6], "test": [6, 7]}


def test_the_store_names_its_dataset_and_what_was_published(store: Path) -> None:
    attributes = attributes_of(store)
    assert attributes["dataset"] == "BigEarthNet v2.0"
    assert attributes["counts"] == {"expected": 549_488, "found": 9, "converted": 9, "rejected": 0}
    assert len(attributes["labels_19"]) == 19
    assert "reBEN" in attributes["citation"]


def test_plain_files_take_the_fast_path_and_only_maps_go_to_rasterio(
    archive: V2Archive, options: Options, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bigearthnet.archive import raster

    slow = []
    read = raster._read_with_rasterio

    def note(folder: str, file: str, *args: Any) -> Any:
        slow.append(f"{folder}/{file}")
        return read(folder, file, *args)

    monkeypatch.setattr(raster, "_read_with_rasterio", note)
    convert_here(archive.sources, tmp_path / "fast", options())
    assert sorted(slow) == sorted(str(archive.tif(name, "reference_map")) for name in archive.names)
    slow.clear()
    convert_here(archive.sources, tmp_path / "slow", options(reader="rasterio"))
    assert len(slow) == len(SIZES) * len(archive.names)
    assert read_files(tmp_path / "slow") == read_files(tmp_path / "fast") == read_files(store)


def test_recompressed_files_give_the_same_bytes(raw: V2Archive, options: Options, store: Path, tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [
        {"compress": "lzw"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "zstd"},
        {"ENDIANNESS": "BIG"},
        {"compress": None, "nodata": None},
    ]
    for number, name in enumerate(raw.names):
        for band in SIZES:
            raw.rewrite(name, band, **kinds[number % 4])
    convert_here(raw.sources, tmp_path / "store", options())
    assert read_files(tmp_path / "store") == read_files(store)


def test_dask_workers_convert_v2_too(
    archive: V2Archive, options: Options, store: Path, scheduler: str, tmp_path: Path
) -> None:
    convert(archive.sources, tmp_path / "store", options(scheduler=scheduler))
    assert read_files(tmp_path / "store") == read_files(store)


def test_s2_alone_keeps_the_name_of_its_partner(archive: V2Archive, options: Options, tmp_path: Path) -> None:
    convert_here(archive.s2, tmp_path / "store", options())
    for name, row in rows_of(tmp_path / "store").items():
        assert (row["s1_name"], row["has_s1"], row["s1_time"]) == (archive.row(name)["s1_name"], False, None)
    assert "s1_10m" not in zarr.open_group(tmp_path / "store" / "images.zarr", mode="r")


def test_s1_alone_is_v2_by_its_metadata(archive: V2Archive, options: Options, store: Path, tmp_path: Path) -> None:
    convert_here(Sources(s1=archive.s1), tmp_path / "store", options())
    both, alone = rows_of(store), rows_of(tmp_path / "store")
    assert list(alone) == list(both)
    np.testing.assert_array_equal(array_of(tmp_path / "store", "s1_10m"), array_of(store, "s1_10m"))
    for name, row in alone.items():
        assert {key for key in row if row[key] != both[name][key]} == {"s2_time", "zero_pixels"}
    assert attributes_of(tmp_path / "store")["dataset"] == "BigEarthNet v2.0"


# -- Where things lie ------------------------------------------------------------------------------------------------


def test_the_metadata_may_lie_in_the_folder_or_beside_it(
    raw: V2Archive, options: Options, store: Path, tmp_path: Path
) -> None:
    for file in (METADATA, FLAGGED_METADATA):
        (raw.root / file).rename(raw.s2 / file)
    convert_here(raw.sources, tmp_path / "in", options())
    assert read_files(tmp_path / "in") == read_files(store)
    (raw.s2 / METADATA).rename(raw.root / METADATA)
    convert_here(raw.sources, tmp_path / "in and beside", options())
    assert read_files(tmp_path / "in and beside") == read_files(store)


def test_given_metadata_counts_instead_of_that_found(
    raw: V2Archive, options: Options, store: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    given = [(raw.root / METADATA).rename(elsewhere / "mine.parquet")]
    given.append((raw.root / FLAGGED_METADATA).rename(elsewhere / "others.parquet"))
    write_rows(raw.root / METADATA, [raw.rows[0] | {"country": "Nowhere"}])
    convert_here(raw.sources, tmp_path / "store", options(metadata=tuple(given)))
    assert read_files(tmp_path / "store") == read_files(store)


def test_flat_folders_and_an_enclosing_one_are_found_too(
    raw: V2Archive, options: Options, store: Path, tmp_path: Path
) -> None:
    """The official archive extracts to scenes; some users move the patches, others give the folder around."""
    for root in (raw.s1, raw.maps):
        for scene in list(root.iterdir()):
            for patch in list(scene.iterdir()):
                patch.rename(root / patch.name)
            scene.rmdir()
    (around := tmp_path / "around").mkdir()
    raw.s2.rename(around / "BigEarthNet-S2")
    files = (raw.root / METADATA, raw.root / FLAGGED_METADATA)
    convert_here(Sources(around, raw.s1, raw.maps), tmp_path / "store", options(metadata=files))
    assert read_files(tmp_path / "store") == read_files(store)


def test_v2_without_metadata_is_refused_by_the_name_of_the_file(raw: V2Archive, options: Options) -> None:
    for file in (METADATA, FLAGGED_METADATA):
        (raw.root / file).unlink()
    with pytest.raises(SourceError, match=r"BigEarthNet-S2: .*metadata\.parquet.*the option metadata"):
        plan_conversion(raw.sources, options())


# -- Which dataset it is ---------------------------------------------------------------------------------------------


def test_v2_is_known_by_its_names_even_where_v1_metadata_is_absent(archive: V2Archive, options: Options) -> None:
    for dataset in (None, "v2"):
        planned = plan_conversion(archive.sources, options(dataset=dataset))
        assert planned.archive.dataset == planned.plan.layout.dataset == "v2"


def test_v1_is_known_by_its_names_even_beside_v2_metadata(archive: V2Archive, tmp_path: Path) -> None:
    pairs = extract_pairs(tmp_path / "pairs")
    write_v2_metadata(pairs.s2.root.parent, archive.rows)
    assert plan_conversion(Sources(pairs.s2.root), pairs.options()).archive.dataset == "v1"


def test_a_dataset_that_contradicts_the_names_is_refused(archive: V2Archive, options: Options, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"BigEarthNet-S2: expected patches of BigEarthNet v1\.0, found .* v2\.0"):
        plan_conversion(archive.sources, options(dataset="v1"))
    pairs = extract_pairs(tmp_path / "pairs")
    with pytest.raises(SourceError, match=r"S2-Example: expected patches of BigEarthNet v2\.0, found .* v1\.0"):
        plan_conversion(Sources(pairs.s2.root), pairs.options(dataset="v2"))


def test_s1_alone_can_be_told_which_dataset_it_is(archive: V2Archive, options: Options) -> None:
    planned = plan_conversion(Sources(s1=archive.s1), options(dataset="v1"))
    assert planned.archive.dataset == "v1"


def test_a_folder_that_mixes_both_versions_is_refused(raw: V2Archive, options: Options) -> None:
    (raw.s2 / "S2A_MSIL2A_20170613T101031_87_48").mkdir()
    with pytest.raises(SourceError, match=r"BigEarthNet-S2: expected patches of one kind, found .*S2 v1 and .*S2 v2"):
        plan_conversion(raw.sources, options())


def test_maps_of_another_version_than_the_pixels_are_refused(
    archive: V2Archive, options: Options, tmp_path: Path
) -> None:
    pairs = extract_pairs(tmp_path / "pairs")
    with pytest.raises(SourceError, match=r"Reference_Maps: expected patches of BigEarthNet v1\.0, found .* v2\.0"):
        plan_conversion(Sources(pairs.s2.root, reference_maps=archive.maps), pairs.options())


# -- Counts that must add up -----------------------------------------------------------------------------------------


def test_a_folder_without_a_row_is_left_out_counted_and_named(
    raw: V2Archive, options: Options, store: Path, tmp_path: Path
) -> None:
    gone = raw.rows[2]
    write_v2_metadata(raw.root, [row for row in raw.rows if row is not gone])
    planned = plan_conversion(raw.sources, options())
    assert [reject.patch_id for reject in planned.archive.left_out] == [gone["patch_id"]]
    text = describe_plan(planned)
    assert "Found     9 of the 549,488 patches" in text
    assert f"1 patch in no metadata file, left out, such as {gone['patch_id']}" in text
    summary = convert_here(raw.sources, tmp_path / "store", options())
    assert (summary.n_patches, summary.n_rejected) == (8, 1)
    (reject,) = rejects_of(tmp_path / "store")
    assert reject["patch_id"] == gone["patch_id"]
    assert "no metadata" in reject["reason"]
    assert attributes_of(tmp_path / "store")["counts"] == {
        "expected": 549_488,
        "found": 9,
        "converted": 8,
        "rejected": 1,
    }
    check_pixels(tmp_path / "store", raw)


def test_the_second_metadata_file_is_needed_for_snow_and_cloud(
    raw: V2Archive, options: Options, tmp_path: Path
) -> None:
    (raw.root / FLAGGED_METADATA).unlink()
    planned = plan_conversion(raw.sources, options())
    assert {reject.patch_id for reject in planned.archive.left_out} == set(raw.names[7:])
    assert f"is {FLAGGED_METADATA} missing?" in describe_plan(planned)
    summary = convert_here(raw.sources, tmp_path / "store", options())
    assert (summary.n_patches, summary.n_rejected) == (7, 2)
    assert [reject["patch_id"] for reject in rejects_of(tmp_path / "store")] == sorted(raw.names[7:])


def test_a_row_without_a_folder_is_counted_as_missing(raw: V2Archive, options: Options, tmp_path: Path) -> None:
    name = raw.names[1]
    shutil.rmtree(raw.tif(name, "B02").parent)
    planned = plan_conversion(raw.sources, options())
    assert (planned.archive.n_missing, planned.plan.n_patches, planned.archive.left_out) == (1, 8, ())
    assert "1 listed patch not there" in describe_plan(planned)
    summary = convert_here(raw.sources, tmp_path / "store", options())
    assert (summary.n_patches, summary.n_rejected) == (8, 0)
    assert not (tmp_path / "store" / "rejected.parquet").exists()


def test_folders_and_rows_that_have_nothing_in_common_are_refused(raw: V2Archive, options: Options) -> None:
    write_v2_metadata(raw.root, [row | {"patch_id": f"{row['patch_id'][:-2]}00"} for row in raw.rows])
    with pytest.raises(SourceError, match="no patches to convert"):
        plan_conversion(raw.sources, options())


def test_left_out_and_bad_patches_add_up(raw: V2Archive, options: Options, tmp_path: Path) -> None:
    write_v2_metadata(raw.root, raw.rows[1:])
    raw.tif(raw.names[3], "B01").unlink()
    summary = convert_here(raw.sources, tmp_path / "store", options(**SKIP))
    assert (summary.n_patches, summary.n_rejected) == (7, 2)
    assert {row["patch_id"] for row in rejects_of(tmp_path / "store")} == {raw.names[0], raw.names[3]}
    counts = attributes_of(tmp_path / "store")["counts"]
    assert (counts["found"], counts["converted"], counts["rejected"]) == (9, 7, 2)
    check_pixels(tmp_path / "store", raw)


# -- Metadata that is none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"patch_id,labels\n", b"PAR1" + bytes(20) + b"PAR1"])
def test_metadata_that_is_no_parquet_is_refused_by_path(content: bytes, raw: V2Archive, options: Options) -> None:
    (raw.root / METADATA).write_bytes(content)
    with pytest.raises(SourceError, match=r"raw/metadata\.parquet: expected a Parquet file"):
        plan_conversion(raw.sources, options())


def test_metadata_that_is_not_there_is_refused_by_path(raw: V2Archive, options: Options) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.parquet: expected the official metadata, found no such file"):
        plan_conversion(raw.sources, options(metadata=(raw.root / "nowhere.parquet",)))


def test_metadata_without_a_column_is_refused_by_its_name(raw: V2Archive, options: Options) -> None:
    for column in SCHEMA.names:
        schema = pa.schema([field for field in SCHEMA if field.name != column])
        write_rows(raw.root / METADATA, [], schema)
        with pytest.raises(SourceError, match=rf"metadata\.parquet: expected the official columns, .*{column}"):
            plan_conversion(raw.sources, options())


def test_further_columns_and_other_orders_of_them_are_tolerated(
    raw: V2Archive, options: Options, store: Path, tmp_path: Path
) -> None:
    for file in (METADATA, FLAGGED_METADATA):
        table = pq.read_table(raw.root / file)
        table = table.select(table.column_names[::-1]).append_column("mine", [[1] * table.num_rows])
        pq.write_table(table.take(list(range(table.num_rows))[::-1]), raw.root / file)
    convert_here(raw.sources, tmp_path / "store", options())
    assert read_files(tmp_path / "store") == read_files(store)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"split": "val"}, "'val'"),
        ({"split": None}, "None"),
        ({"labels": []}, r"\[\]"),
        ({"labels": None}, "None"),
        ({"labels": ["Pastures", "Transitional woodland/shrub"]}, "Transitional woodland/shrub"),
    ],
)
def test_rows_that_no_official_file_has_are_refused_by_patch(
    change: dict[str, Any], found: str, raw: V2Archive, options: Options
) -> None:
    write_v2_metadata(raw.root, [raw.rows[0] | change, *raw.rows[1:]])
    with pytest.raises(SourceError, match=rf"metadata\.parquet: {raw.names[0]}: expected .*found .*{found}"):
        plan_conversion(raw.sources, options())


def test_a_patch_listed_twice_is_refused(raw: V2Archive, options: Options) -> None:
    files = (raw.root / METADATA, raw.root / METADATA)
    with pytest.raises(SourceError, match=rf"the patch {raw.names[0]} is listed twice"):
        plan_conversion(raw.sources, options(metadata=files))


# -- Rasters that are not what they must be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("band", "pixels", "profile", "reason"),
    [
        ("B02", None, {"nodata": 65_535}, r"expected nodata 0, or none, found 65535"),
        ("B01", None, {"nodata": 1, "compress": "lzw"}, r"expected nodata 0, or none, found 1"),
        ("VH", None, {"nodata": 0}, r"expected no nodata value, found 0"),
        ("reference_map", None, {"nodata": 999}, r"expected nodata 0, or none, found 999"),
        (
            *("reference_map", np.full((60, 60), 211, np.uint16), {"compress": "deflate"}),
            r"expected a GeoTIFF of 120 x 120 uint16 pixels of 10 m, found 1 band\(s\) of 60 x 60 uint16",
        ),
        (
            *("reference_map", np.full((120, 120), 211, np.uint8), {}),
            r"expected a GeoTIFF of 120 x 120 uint16 pixels of 10 m, found 1 band\(s\) of 120 x 120 uint8",
        ),
        (
            *("reference_map", None, {"transform": Affine(20, 0, 300_000, 0, -20, 5_400_000)}),
            r"expected a GeoTIFF of 120 x 120 uint16 pixels of 10 m, north up; found the transform",
        ),
        (
            *("reference_map", None, {"transform": Affine(10, 0, 300_010, 0, -10, 5_400_000)}),
            r"expected the upper-left corner \(300000, 5400000\) in EPSG:32633 .*found \(300010, 5400000\)",
        ),
        ("B8A", None, {"crs": "EPSG:32634"}, r".* in EPSG:32633 .*found .* in EPSG:32634"),
    ],
)
def test_a_raster_of_another_kind_rejects_its_patch_with_both_values(
    band: str,
    pixels: NDArray[Any] | None,
    profile: dict[str, Any],
    reason: str,
    raw: V2Archive,
    options: Options,
    tmp_path: Path,
) -> None:
    name = raw.names[0]
    raw.rewrite(name, band, pixels, **profile)
    with pytest.raises(SourceError, match=rf"\n  {name}/\S+_{band}\.tif: {reason}"):
        convert_here(raw.sources, tmp_path / "store", options(max_bad=1.0))
    summary = convert_here(raw.sources, tmp_path / "store", options(**SKIP))
    assert (summary.n_patches, summary.n_rejected) == (8, 1)
    assert [row["patch_id"] for row in rejects_of(tmp_path / "store")] == [name]
    assert name not in rows_of(tmp_path / "store")


def test_a_missing_map_rejects_its_patch(raw: V2Archive, options: Options, tmp_path: Path) -> None:
    no_file, no_folder = raw.names[0], raw.names[6]
    raw.tif(no_file, "reference_map").unlink()
    shutil.rmtree(raw.tif(no_folder, "reference_map").parent)
    convert_here(raw.sources, tmp_path / "store", options(**SKIP))
    assert rejects_of(tmp_path / "store") == sorted(
        [
            {"patch_id": no_file, "file": f"{no_file}_reference_map.tif", "reason": "the file is missing"},
            {
                "patch_id": no_folder,
                "file": no_folder,
                "reason": f"expected the folder of its reference map in {raw.maps}, found none",
            },
        ],
        key=lambda row: row["patch_id"],
    )
    check_pixels(tmp_path / "store", raw)


def test_a_missing_partner_rejects_its_patch_or_is_filled(raw: V2Archive, options: Options, tmp_path: Path) -> None:
    name = raw.names[5]
    shutil.rmtree(raw.tif(name, "VV").parent)
    convert_here(raw.sources, tmp_path / "store", options(**SKIP))
    (reject,) = rejects_of(tmp_path / "store")
    assert (reject["patch_id"], reject["file"]) == (name, raw.row(name)["s1_name"])
    assert str(raw.s1) in reject["reason"]
    convert_here(raw.sources, tmp_path / "filled", options(allow_missing_s1=True))
    row = rows_of(tmp_path / "filled")[name]
    assert (row["has_s1"], row["s1_time"]) == (False, None)
    assert np.isnan(array_of(tmp_path / "filled", "s1_10m")[row["index"]]).all()


# -- The command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.conversion.open_cluster", open_here)


@pytest.mark.usefixtures("here")
def test_the_command_line_converts_every_form_of_v2(
    archive: V2Archive, options: Options, store: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    lists = options().lists
    assert lists is not None
    folders = ["--s1", archive.s1, "--reference-maps", archive.maps]
    files = ["--metadata", archive.root / METADATA, "--metadata", archive.root / FLAGGED_METADATA]
    chosen = ["--dataset", "v2", "--lists", lists, "--shard-size", "4"]
    ended = run_cli("convert", archive.s2, tmp_path / "store", *folders, *files, *chosen, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["n_patches"] == 9
    assert "9 of the 549,488 patches of BigEarthNet v2.0" in ended.err
    assert read_files(tmp_path / "store") == read_files(store)


def test_a_dry_run_names_every_array_and_writes_nothing(
    archive: V2Archive, options: Options, run_cli: RunCli, tmp_path: Path
) -> None:
    lists = options().lists
    assert lists is not None
    ended = run_cli(
        *("convert", archive.s2, tmp_path / "store", "--s1", archive.s1, "--reference-maps", archive.maps),
        *("--lists", lists, "--dry-run"),
    )
    assert ended.code == 0, ended.err
    assert "s1_10m (VV VH); reference_map" in ended.out
    assert "5 train, 1 validation, 1 test, 2 others" in ended.out
    assert not (tmp_path / "store").exists()


def test_a_fault_of_v2_ends_in_one_message(raw: V2Archive, options: Options, run_cli: RunCli, tmp_path: Path) -> None:
    lists = options().lists
    assert lists is not None
    (raw.root / METADATA).write_bytes(b"")
    ended = run_cli("convert", raw.s2, tmp_path / "store", "--lists", lists)
    assert "metadata.parquet: expected a Parquet file" in ended.error


def test_the_archive_is_a_copy_of_what_is_published(archive: V2Archive) -> None:
    """The fixture itself: its files have the sizes of the published ones, header included."""
    name = archive.names[0]
    sizes = {"B02": 29_196, "B05": 7_572, "B01": 1_172}
    assert {band: archive.tif(name, band).stat().st_size for band in sizes} == sizes
    assert dataclasses.asdict(archive)["rows"][0]["patch_id"] == name
