"""The whole conversion, against independent oracles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from bigearthnet.archive import patch
from bigearthnet.archive.records import Reject
from bigearthnet.errors import OptionError, OutputError, SourceError, StoreError
from converter.conversion import ConvertOptions, Summary, convert
from converter.events import Advanced, Event, Finishing, Planned, Scanned, Started
from converter.finish import write_rejects
from tests.archives import ARRAYS, Archive, read_files, write_lists
from tests.conftest import SHARD_SIZE, SmallArchive
from tests.forms import convert_here


@pytest.fixture
def raw(small: SmallArchive, tmp_path: Path) -> Archive:
    """A copy of the small archive that may be damaged."""
    return small.archive.copy(tmp_path / "raw")


def rows_of(store: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store / "patches.parquet").to_pylist()
    return rows


def check_pixels(store: Path, archive: Archive) -> None:
    """Compare every pixel of a store with what rasterio reads of the archive."""
    group: Any = zarr.open_group(store / "images.zarr", mode="r")
    names = [row["patch_id"] for row in rows_of(store)]
    for array, bands in ARRAYS.items():
        found = group[array][...]
        expected = np.stack([archive.read_array(name, array) for name in names])
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, expected)
        assert found.shape[1] == len(bands)


def shards_of(store: Path) -> dict[str, tuple[int, int]]:
    """Identify each shard file: a rewritten one is another inode."""
    found = {}
    for array in ARRAYS:
        for path in (store / "images.zarr" / array / "c").rglob("*"):
            if path.is_file():
                status = path.stat()
                found[path.relative_to(store).as_posix()] = (status.st_ino, status.st_mtime_ns)
    return found


# -- The real patches ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_store(real: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert the real patches as a user does: in a process of its own, with the official lists and a local cluster."""
    path = tmp_path_factory.mktemp("real-store") / "store"
    command: list[str | Path] = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "converter",
        "convert",
        real.root,
        path,
        "--workers",
        "1",
        "--json",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["n_patches"], summary["n_rejected"], summary["n_classes"]) == (6, 0, 10)
    assert summary["split_counts"] == {"train": 4, "test": 1, "other": 1}
    return path


def test_every_pixel_of_the_real_patches_is_what_rasterio_reads(real: Archive, real_store: Path) -> None:
    assert len(real.names) == 6
    check_pixels(real_store, real)


def test_labels_places_and_times_of_the_real_patches_are_those_of_their_json(real: Archive, real_store: Path) -> None:
    rows = {row["patch_id"]: row for row in rows_of(real_store)}
    assert sorted(rows) == real.names
    for name, row in rows.items():
        note = real.read_note(name)
        assert row["labels"] == note["labels"]
        assert note["projection"].endswith(f'AUTHORITY["EPSG","{row["epsg"]}"]]')
        assert (row["x_ul"], row["y_ul"]) == (note["coordinates"]["ulx"], note["coordinates"]["uly"])
        assert f"{row['s2_time']:%Y-%m-%d %H:%M:%S %Z}" == f"{note['acquisition_date']} UTC"
        assert f"_T{row['tile']}_" in note["tile_source"]
        *_, column, number = name.split("_")
        assert (row["satellite"], row["column"], row["row"]) == (name[:3], int(column), int(number))


def test_the_official_lists_describe_the_real_patches(real_store: Path) -> None:
    columns = ("split", "recommended", "country", "season", "contains_seasonal_snow", "contains_cloud_or_shadow")
    found = {row["patch_id"]: (*(row[column] for column in columns), row["s1_name"]) for row in rows_of(real_store)}
    assert found == {
        "S2A_MSIL2A_20170613T101031_87_48": (
            *("test", True, "Austria", "Summer", False, False),
            "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48",
        ),
        "S2A_MSIL2A_20170617T113321_36_85": (
            *("train", True, "Ireland", "Summer", False, False),
            "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_36_85",
        ),
        "S2A_MSIL2A_20170617T113321_4_55": (
            *("train", True, "Ireland", "Summer", False, False),
            "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_4_55",
        ),
        "S2A_MSIL2A_20171221T112501_56_35": (
            *("train", True, "Portugal", "Winter", False, False),
            "S1A_IW_GRDH_1SDV_20171221T064238_29SND_56_35",
        ),
        "S2B_MSIL2A_20170924T93020_69_24": (
            *("train", True, "Finland", "Fall", False, False),
            "S1A_IW_GRDH_1SDV_20170925T043256_35VPK_69_24",
        ),
        "S2B_MSIL2A_20180204T94161_57_38": (
            *(None, False, "Finland", "Winter", True, False),
            "S1A_IW_GRDH_1SDV_20180204T043253_35VPK_57_38",
        ),
    }


# -- One archive, one store ------------------------------------------------------------------------------------------


def test_every_pixel_of_a_store_of_several_shards_is_what_rasterio_reads(small: SmallArchive, store: Path) -> None:
    check_pixels(store, small.archive)


def test_a_store_holds_what_it_must_and_nothing_else(store: Path) -> None:
    assert sorted(path.name for path in store.iterdir()) == [
        *("croissant.json", "images.zarr", "manifest.json", "patches.parquet")
    ]
    shards = sorted(path for path in read_files(store) if "/s2_" in path and "/c/" in path)
    assert shards == sorted(f"images.zarr/{array}/c/{shard}/0/0/0" for array in ARRAYS for shard in range(6))


def test_rows_lie_in_order_of_split_with_the_rest_at_the_end(small: SmallArchive, store: Path) -> None:
    rows = rows_of(store)
    assert [row["index"] for row in rows] == list(range(22))
    names = [row["patch_id"] for row in rows]
    assert set(names[:9]) == set(small.train)
    assert set(names[9:14]) == set(small.validation)
    assert set(names[14:18]) == set(small.test)
    assert set(names[18:]) == set(small.others)
    found = {row["patch_id"]: (row["split"], row["recommended"]) for row in rows[18:]}
    assert found == {
        small.snow: (None, False),
        small.cloud: ("validation", False),
        small.no_19: ("train", False),
        small.unlisted: (None, False),
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_a_byte(
    workers: int, small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    convert(small.archive.root, tmp_path / "store", small.options(workers=workers))
    assert read_files(tmp_path / "store") == read_files(store)


def test_the_order_of_listing_does_not_change_a_byte(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_scandir = os.scandir
    reordered = []

    class Reversed:
        def __init__(self, path: Any = ".") -> None:
            with real_scandir(path) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name[::-1])
            reordered.append(path)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self._entries

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> Any:
            return iter(self._entries)

    monkeypatch.setattr(os, "scandir", Reversed)
    convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler))
    assert reordered
    monkeypatch.undo()
    assert read_files(tmp_path / "store") == read_files(store)


def test_an_archive_copied_in_another_order_under_another_name_gives_the_same_bytes(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    other = small.archive.copy(tmp_path / "another name", sorted(small.names, key=lambda name: name[::-1]))
    (other.root / ".DS_Store").touch()
    (other.root / "readme.txt").touch()
    convert(other.root, tmp_path / "store", small.options(scheduler=scheduler))
    assert read_files(tmp_path / "store") == read_files(store)


def test_recompressed_archives_and_the_slow_reader_give_the_same_bytes(
    small: SmallArchive, raw: Archive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    kinds: list[dict[str, Any]] = [
        {"compress": "deflate"},
        {"compress": "lzw", "predictor": 2},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"compress": "deflate", "ENDIANNESS": "BIG"},
        {"BIGTIFF": "YES"},
    ]
    for number, name in enumerate(small.names):
        for band in [band for bands in ARRAYS.values() for band in bands]:
            raw.rewrite_tif(name, band, **kinds[number % len(kinds)])
    convert(raw.root, tmp_path / "recompressed", small.options(scheduler=scheduler))
    assert read_files(tmp_path / "recompressed") == read_files(store)
    convert(small.archive.root, tmp_path / "slow", small.options(scheduler=scheduler, reader="rasterio"))
    assert read_files(tmp_path / "slow") == read_files(store)


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_every_codec_keeps_every_pixel(codec: Any, small: SmallArchive, scheduler: str, tmp_path: Path) -> None:
    summary = convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler, codec=codec))
    check_pixels(tmp_path / "store", small.archive)
    assert summary.stored_bytes == sum(
        len(content) for path, content in read_files(tmp_path / "store").items() if "/s2_" in path and "/c/" in path
    )


@pytest.mark.parametrize("shard_size", [1, 22, 1000])
def test_every_shard_size_keeps_every_pixel(
    shard_size: int, small: SmallArchive, scheduler: str, tmp_path: Path
) -> None:
    convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler, shard_size=shard_size))
    check_pixels(tmp_path / "store", small.archive)


def test_a_store_can_be_moved(small: SmallArchive, store: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(store, tmp_path / "somewhere" / "else"))
    check_pixels(moved, small.archive)


def test_the_statistics_are_those_that_numpy_takes_over_the_training_rows(small: SmallArchive, store: Path) -> None:
    group: Any = zarr.open_group(store / "images.zarr", mode="r")
    statistics: Any = group.attrs["statistics"]
    rows = rows_of(store)
    train = [row["index"] for row in rows if row["split"] == "train" and row["recommended"]]
    assert len(train) == len(small.train)
    for array, bands in ARRAYS.items():
        for number, band in enumerate(bands):
            pixels = group[array][...][train, number]
            found = statistics[band]
            assert found["count"] == pixels.size
            assert (found["min"], found["max"]) == (pixels.min(), pixels.max())
            assert found["mean"] == pytest.approx(pixels.mean(dtype=np.float64), rel=1e-12)
            assert found["std"] == pytest.approx(pixels.std(dtype=np.float64), rel=1e-9)


def test_zero_pixels_are_counted_over_the_10_m_bands(small: SmallArchive, store: Path) -> None:
    expected = {name: int((small.archive.read_array(name, "s2_10m") == 0).sum()) for name in small.names}
    assert len(set(expected.values())) > 10
    assert {row["patch_id"]: row["zero_pixels"] for row in rows_of(store)} == expected


def test_the_store_says_what_it_was_made_from(small: SmallArchive, store: Path) -> None:
    attributes: Any = dict(zarr.open_group(store / "images.zarr", mode="r").attrs)
    counts = attributes["counts"]
    assert (counts["found"], counts["converted"], counts["rejected"]) == (22, 22, 0)
    assert counts["expected"] == 590_326
    assert attributes["splits"] == {"train": [0, 9], "validation": [9, 14], "test": [14, 18]}
    assert (len(attributes["labels_43"]), len(attributes["labels_19"])) == (43, 19)
    assert attributes["options"]["codec"] == "lz4"
    assert attributes["options"]["shard_size"] == SHARD_SIZE


# -- Events and summary ----------------------------------------------------------------------------------------------


def test_events_tell_the_story_in_order_and_the_summary_adds_it_up(
    small: SmallArchive, scheduler: str, tmp_path: Path
) -> None:
    events: list[Event] = []
    (path := tmp_path / "store").mkdir()
    summary = convert(small.archive.root, path, small.options(scheduler=scheduler), events.append)
    kinds = [type(event) for event in events]
    assert kinds == [Scanned, Planned, Started, *[Advanced] * 6, Finishing]
    (planned,) = (event for event in events if isinstance(event, Planned))
    assert planned.plan.n_patches == 22
    archive = planned.archive
    assert (archive.dataset, archive.n_missing, archive.n_unlisted, archive.n_stray) == ("v1", 0, 1, 0)
    (started,) = (event for event in events if isinstance(event, Started))
    assert (started.n_workers, started.n_done, started.n_total) == (2, 0, 22)
    advances = [event for event in events if isinstance(event, Advanced)]
    steps = np.diff([0, *(event.n_done for event in advances)]).tolist()
    assert sorted(steps) == [2, 4, 4, 4, 4, 4]
    assert (advances[-1].n_done, advances[-1].n_rejected, advances[-1].n_total) == (22, 0, 22)
    assert (summary.n_patches, summary.n_rejected, summary.n_converted_now) == (22, 0, 22)
    assert summary.split_counts == {"train": 9, "validation": 5, "test": 4, "other": 4}
    labels = {label for name in small.names for label in small.archive.read_note(name)["labels"]}
    assert summary.n_classes == len(labels)
    assert summary.pixel_bytes == 22 * 2 * sum(size**2 * n for size, n in ((120, 4), (60, 6), (20, 2)))
    assert json.loads(json.dumps(summary.to_json()))["store"] == str(path)


def test_a_relative_path_works_although_workers_run_elsewhere(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").symlink_to(small.archive.root)
    summary = convert("raw", "store", small.options(scheduler=scheduler))
    assert isinstance(summary, Summary)
    assert read_files(tmp_path / "store") == read_files(store)


# -- Bad patches -----------------------------------------------------------------------------------------------------


def bad_and_good(store: Path) -> tuple[str, str, str]:
    """Name a training, a test and another patch."""
    names = [row["patch_id"] for row in rows_of(store)]
    return names[2], names[15], names[19]


def test_skipping_bad_patches_leaves_a_dense_store_that_accounts_for_all(
    small: SmallArchive, raw: Archive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    bad = bad_and_good(store)
    raw.tif(bad[0], "B02").write_bytes(b"nothing")
    raw.note(bad[1]).write_text("{")
    raw.tif(bad[2], "B09").unlink()
    options = small.options(scheduler=scheduler, on_bad="skip", max_bad=0.5)
    summary = convert(raw.root, tmp_path / "store", options)
    assert (summary.n_patches, summary.n_rejected) == (19, 3)
    check_pixels(tmp_path / "store", raw)
    rows = rows_of(tmp_path / "store")
    assert [row["index"] for row in rows] == list(range(19))
    assert {row["patch_id"] for row in rows} == set(small.names) - set(bad)
    attributes: Any = dict(zarr.open_group(tmp_path / "store" / "images.zarr", mode="r").attrs)
    counts = attributes["counts"]
    assert (counts["found"], counts["converted"], counts["rejected"]) == (22, 19, 3)
    for split, (first, last) in attributes["splits"].items():
        assert all(row["split"] == split and row["recommended"] for row in rows[first:last])
    assert attributes["splits"] == {"train": [0, 8], "validation": [8, 13], "test": [13, 16]}
    rejected = pq.read_table(tmp_path / "store" / "rejected.parquet").to_pylist()
    assert [(row["patch_id"], row["file"]) for row in rejected] == sorted(
        [
            (bad[0], f"{bad[0]}_B02.tif"),
            (bad[1], f"{bad[1]}_labels_metadata.json"),
            (bad[2], f"{bad[2]}_B09.tif"),
        ]
    )
    assert all(row["reason"] for row in rejected)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        *("croissant.json", "images.zarr", "manifest.json", "patches.parquet", "rejected.parquet")
    ]


def test_the_list_of_rejected_patches_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".progress").mkdir()
    write_rejects(tmp_path, [Reject("patch", "file", "why")])
    before = (tmp_path / "rejected.parquet").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_rejects(tmp_path, [Reject("patch", "file", "why"), Reject("another", "file", "why")])
    assert read_files(tmp_path) == {"rejected.parquet": before}


def test_a_store_that_skipped_bad_patches_is_the_same_however_it_came_about(
    small: SmallArchive, raw: Archive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    """Bad patches that are found, and a run that was broken off after they were found, end in the same bytes."""
    for name in bad_and_good(store):
        raw.tif(name, "B02").unlink()
    options = small.options(scheduler=scheduler, on_bad="skip", max_bad=0.5)
    convert(raw.root, tmp_path / "one", options)
    n_starts = 0

    def break_off(event: Event) -> None:
        nonlocal n_starts
        n_starts += isinstance(event, Started)
        if n_starts == 2 and isinstance(event, Advanced):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(raw.root, tmp_path / "two", options, break_off)
    summary = convert(raw.root, tmp_path / "two", options)
    assert summary.n_rejected == 3
    assert read_files(tmp_path / "two") == read_files(tmp_path / "one")


def test_the_fraction_of_bad_patches_is_of_all_that_were_found(
    small: SmallArchive, raw: Archive, scheduler: str, tmp_path: Path
) -> None:
    for name in small.names[:18]:
        raw.tif(name, "B01").unlink()
    options = small.options(scheduler=scheduler, on_bad="skip", max_bad=0.9)
    summary = convert(raw.root, tmp_path / "store", options)
    assert (summary.n_patches, summary.n_rejected) == (4, 18)


def test_stopping_at_bad_patches_converts_the_rest_and_goes_on_once_they_are_mended(
    small: SmallArchive, raw: Archive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    bad, *_ = bad_and_good(store)
    whole = raw.tif(bad, "B08").read_bytes()
    raw.tif(bad, "B08").write_bytes(whole[:20_000])
    path = tmp_path / "store"
    options = small.options(scheduler=scheduler, max_bad=1.0)
    with pytest.raises(SourceError, match=rf"{bad}/{bad}_B08\.tif: expected .*120 x 120 uint16.*found 20,000 bytes"):
        convert(raw.root, path, options)
    assert not (path / "manifest.json").exists()
    before = shards_of(path)
    assert sorted(before) == sorted(f"images.zarr/{array}/c/{shard}/0/0/0" for array in ARRAYS for shard in range(1, 6))
    raw.tif(bad, "B08").write_bytes(whole)
    events: list[Event] = []
    summary = convert(raw.root, path, options, events.append)
    (started,) = (event for event in events if isinstance(event, Started))
    assert started.n_done == 18
    assert (summary.n_patches, summary.n_converted_now) == (22, 4)
    after = shards_of(path)
    assert {name: after[name] for name in before} == before
    assert read_files(path) == read_files(store)


def test_every_bad_patch_is_named_in_one_run(small: SmallArchive, raw: Archive, scheduler: str, tmp_path: Path) -> None:
    for name in small.names[:12]:
        raw.tif(name, "B01").unlink()
    with pytest.raises(SourceError) as raised:
        convert(raw.root, tmp_path / "store", small.options(scheduler=scheduler, max_bad=1.0))
    message = str(raised.value)
    assert message.startswith("12 bad patches")
    assert sum(f"{name}/{name}_B01.tif: the file is missing" in message for name in small.names) == 10
    assert "and 2 more" in message


def test_too_many_bad_patches_end_the_run_early(
    small: SmallArchive, raw: Archive, scheduler: str, tmp_path: Path
) -> None:
    for name in small.names:
        raw.tif(name, "B01").unlink()
    events: list[Event] = []
    options = small.options(scheduler=scheduler, on_bad="skip", max_bad=0.1, shard_size=1)
    with pytest.raises(SourceError, match=r"^3 bad patches"):
        convert(raw.root, tmp_path / "store", options, events.append)
    assert sum(isinstance(event, Advanced) for event in events) == 3


def test_an_archive_of_nothing_but_bad_patches_is_an_error_even_if_they_may_be_skipped(
    small: SmallArchive, raw: Archive, scheduler: str, tmp_path: Path
) -> None:
    for name in small.names:
        raw.note(name).unlink()
    with pytest.raises(SourceError, match="every patch of the archive is bad"):
        convert(raw.root, tmp_path / "store", small.options(scheduler=scheduler, on_bad="skip", max_bad=1.0))
    assert not (tmp_path / "store" / "manifest.json").exists()


# -- Interruption ----------------------------------------------------------------------------------------------------


class InterruptedRunError(Exception):
    """Stands for whatever ends a run."""


def interrupt(small: SmallArchive, path: Path, scheduler: str, after: int = 3, **changes: Any) -> None:
    """Begin a conversion and break it off after some shards."""
    n_done = 0

    def listen(event: Event) -> None:
        nonlocal n_done
        n_done += isinstance(event, Advanced)
        if n_done == after:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        convert(small.archive.root, path, small.options(scheduler=scheduler, **changes), listen)
    assert not (path / "manifest.json").exists()


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    interrupt(small, path, scheduler)
    receipts = sorted((path / ".progress" / "receipts").glob("*.json"))
    assert len(receipts) >= 3
    before = shards_of(path)
    receipts[0].unlink()
    lost = int(receipts[1].stem)
    (path / f"images.zarr/s2_20m/c/{lost}/0/0/0").unlink()
    (path / f"images.zarr/s2_10m/c/{int(receipts[2].stem)}/0/0/0").write_bytes(b"cut short")
    (path / "images.zarr/s2_10m/c/5/0/0/0.123.tmp").parent.mkdir(parents=True, exist_ok=True)
    (path / "images.zarr/s2_10m/c/5/0/0/0.123.tmp").write_bytes(b"left by a crash")
    (path / "images.zarr/s2_10m/c/9/0").mkdir(parents=True)
    summary = convert(small.archive.root, path, small.options(scheduler=scheduler))
    assert read_files(path) == read_files(store)
    assert not (path / "images.zarr/s2_10m/c/9").exists()
    n_kept = sum(SHARD_SIZE if int(receipt.stem) < 5 else 2 for receipt in receipts[3:])
    assert summary.n_converted_now == 22 - n_kept
    after = shards_of(path)
    for receipt in receipts[3:]:
        name = f"images.zarr/s2_10m/c/{int(receipt.stem)}/0/0/0"
        assert after[name] == before[name]


def test_nothing_is_written_any_more_once_an_interrupted_run_has_returned(
    small: SmallArchive, scheduler: str, tmp_path: Path
) -> None:
    """A task that still runs on a shared cluster could write over the shards of the next run."""
    interrupt(small, tmp_path / "store", scheduler, after=1, shard_size=1)
    before = sorted(read_files(tmp_path / "store"))
    time.sleep(1)
    assert sorted(read_files(tmp_path / "store")) == before


@pytest.mark.parametrize("step", ["encode_table", "describe_dataset", "encode_manifest"])
def test_a_run_interrupted_while_it_finishes_goes_on_and_ends_in_the_same_bytes(
    step: str, small: SmallArchive, store: Path, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"

    def crash(*_: object, **__: object) -> None:
        raise InterruptedRunError

    monkeypatch.setattr(f"converter.finish.{step}", crash)
    with pytest.raises(InterruptedRunError):
        convert(small.archive.root, path, small.options(scheduler=scheduler))
    assert (path / "images.zarr" / "zarr.json").exists()
    assert not (path / "manifest.json").exists()
    monkeypatch.undo()
    summary = convert(small.archive.root, path, small.options(scheduler=scheduler))
    assert summary.n_converted_now == 0
    assert read_files(path) == read_files(store)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"codec": "zstd"}, "codec was lz4, is zstd"), ({"shard_size": 8}, "shard size was 4, is 8")],
)
def test_an_unfinished_store_is_not_continued_with_other_options(
    change: dict[str, Any], named: str, small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    interrupt(small, tmp_path / "store", scheduler)
    with pytest.raises(StoreError, match=f"unfinished store of another plan .*{named}.*the option overwrite"):
        convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler, **change))
    summary = convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler))
    assert summary.n_converted_now < 22
    assert read_files(tmp_path / "store") == read_files(store)


def test_an_unfinished_store_is_not_continued_from_another_archive(
    small: SmallArchive, raw: Archive, scheduler: str, tmp_path: Path
) -> None:
    interrupt(small, tmp_path / "store", scheduler)
    shutil.rmtree(raw.folder(small.names[5]))
    with pytest.raises(StoreError, match="patches was 22, is 21"):
        convert(raw.root, tmp_path / "store", small.options(scheduler=scheduler))


def test_overwriting_begins_an_unfinished_store_anew(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    interrupt(small, tmp_path / "store", scheduler, codec="zstd", shard_size=3)
    convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler, overwrite=True))
    assert read_files(tmp_path / "store") == read_files(store)


def test_overwriting_replaces_a_finished_store(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    convert(small.archive.root, path, small.options(scheduler=scheduler, codec="none", shard_size=1))
    with pytest.raises(OutputError, match=r"a finished store is already there.*the option overwrite"):
        convert(small.archive.root, path, small.options(scheduler=scheduler))
    convert(small.archive.root, path, small.options(scheduler=scheduler, overwrite=True))
    assert read_files(path) == read_files(store)


def test_a_store_finished_by_another_process_during_the_scan_is_not_replaced(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    path = tmp_path / "store"

    def finish_first(event: Event) -> None:
        if isinstance(event, Planned):
            shutil.copytree(store, path)

    with pytest.raises(OutputError, match="a finished store is already there"):
        convert(small.archive.root, path, small.options(scheduler=scheduler, codec="zstd"), finish_first)
    assert read_files(path) == read_files(store)


def test_two_conversions_of_one_archive_share_a_cluster_without_mixing(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    """The second begins while the first holds its results: it must not be handed them."""
    nested: list[Summary] = []

    def begin_second(event: Event) -> None:
        if isinstance(event, Advanced) and not nested:
            options = small.options(scheduler=scheduler)
            nested.append(convert(small.archive.root, tmp_path / "second", options))

    convert(small.archive.root, tmp_path / "first", small.options(scheduler=scheduler), begin_second)
    assert read_files(tmp_path / "first") == read_files(store)
    assert read_files(tmp_path / "second") == read_files(store)


# -- Options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "gzip"}, "codec must be one of lz4, zstd, none, not 'gzip'"),
        ({"shard_size": 0}, "shard size must be between 1 and 65,536 patches, not 0"),
        ({"shard_size": 65_537}, "shard size must be between 1 and 65,536 patches, not 65,537"),
        ({"workers": 0}, "at least one worker, not 0"),
        ({"workers": 2, "scheduler": "tcp://head:8786"}, "give one of them"),
        ({"max_bad": -0.1}, "max_bad is a fraction between 0 and 1, not -0.1"),
        ({"max_bad": 1.5}, "max_bad is a fraction between 0 and 1, not 1.5"),
        ({"max_bad": float("nan")}, "max_bad is a fraction between 0 and 1, not nan"),
    ],
)
def test_options_that_cannot_be_are_refused_when_they_are_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ConvertOptions(**options)


TOO_SMALL = r"expected to take [\d.]+ MB, the disk has 0 bytes free"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing is free until it is undone."""
    full = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    return monkeypatch


def test_overwriting_with_too_small_a_disk_is_refused_before_the_old_store_is_lost(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(store, tmp_path / "store"))
    with pytest.raises(OutputError, match=TOO_SMALL):
        convert(small.archive.root, path, small.options(scheduler=scheduler, overwrite=True, codec="none"))
    assert {name: content for name, content in read_files(path).items() if ".progress" not in name} == read_files(store)


def test_the_advice_for_too_small_a_disk_can_be_followed(
    small: SmallArchive, scheduler: str, tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    with pytest.raises(OutputError, match=f"{TOO_SMALL}; make room, or try the codec zstd"):
        convert(small.archive.root, path, small.options(scheduler=scheduler))
    full_disk.undo()
    convert(small.archive.root, path, small.options(scheduler=scheduler, codec="zstd"))
    check_pixels(path, small.archive)


def test_a_patch_that_no_list_names_is_converted_but_not_recommended(
    real: Archive, scheduler: str, tmp_path: Path
) -> None:
    lists = write_lists(tmp_path / "lists")
    options = ConvertOptions(lists=lists, scheduler=scheduler)
    summary = convert(real.root, tmp_path / "store", options)
    assert summary.split_counts == {"other": 6}
    attributes: Any = dict(zarr.open_group(tmp_path / "store" / "images.zarr", mode="r").attrs)
    assert attributes["statistics"]["B02"] == {"mean": None, "std": None, "min": None, "max": None, "count": 0}
    check_pixels(tmp_path / "store", real)


def test_files_that_threads_read_ahead_give_the_same_bytes_and_the_same_rejects(
    small: SmallArchive, store: Path, raw: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any disk counts as slow, from the first patch on: so threads read what the first one has left."""
    monkeypatch.setattr(patch, "_SLOW_S", -1.0)
    convert_here(raw.root, tmp_path / "whole", small.options())
    assert read_files(tmp_path / "whole") == read_files(store)
    truncated, lost, pipe, large, folder = small.train[1:6]
    raw.tif(truncated, "B04").write_bytes(raw.tif(truncated, "B04").read_bytes()[:1000])
    raw.tif(lost, "B04").unlink()
    for name in (pipe, folder):
        raw.note(name).unlink()
    os.mkfifo(raw.note(pipe))
    raw.note(folder).mkdir()
    raw.rewrite_tif(large, "B04", compress="lzw", tiled=True, blockxsize=256, blockysize=256)
    with open(raw.tif(large, "B04"), "ab") as file:
        file.write(bytes(100_000))  # which no reader minds
    stores = []
    for seconds in (-1.0, 1e9):
        monkeypatch.setattr(patch, "_SLOW_S", seconds)
        patch._find_pace.cache_clear()
        summary = convert_here(raw.root, tmp_path / f"{seconds}", small.options(on_bad="skip", max_bad=1.0))
        assert summary.n_rejected == 4
        stores.append(read_files(tmp_path / f"{seconds}"))
    assert stores[0] == stores[1]


@pytest.mark.parametrize(
    ("seconds", "is_slow"),
    [
        ([0.0002] * 50 + [1.0] + [0.0002] * 50, False),
        ([0.013] * 20, True),
        ([0.0002, 0.0002, 0.0002, 0.02] * 25, True),
    ],
    ids=["kept from running once", "a millisecond an open", "one read ahead brings three more"],
)
def test_threads_read_ahead_from_a_disk_that_is_slow_again_and_again(seconds: list[float], is_slow: bool) -> None:
    pace = patch._Pace()
    for value in seconds:
        pace.note(value)
    assert pace.is_slow is is_slow
