"""One shard, without dask: what is written, what is refused, what the receipt says."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigearthnet.archive.patch import PatchReader
from bigearthnet.archive.records import Source
from bigearthnet.bands import S2_GROUPS
from bigearthnet.errors import OutputError
from converter.plan import ShardTask
from converter.receipt import Receipt, read_receipt
from converter.task import Job, convert_shard
from tests.archives import ARRAYS, Archive, read_files


def make_job(archive: Archive, store: Path, **reader: Any) -> Job:
    patch_reader = PatchReader({"s2": str(archive.root)}, "v1", S2_GROUPS, **reader)
    return Job(patch_reader, str(store), str(store / "receipts"), "none", 4)


def make_task(names: list[str], n_train: int = 2, shard: int = 3) -> ShardTask:
    return ShardTask(shard, tuple(Source(name, s2=name) for name in names), n_train, "digest")


def find_receipt(store: Path, task: ShardTask) -> Receipt | None:
    return read_receipt(store / "receipts", store, task)


@pytest.fixture
def raw(real: Archive, tmp_path: Path) -> Archive:
    """Three real patches that may be damaged."""
    return real.copy(tmp_path / "raw", real.names[:3])


def test_a_shard_holds_the_pixels_of_its_patches_in_order(raw: Archive, tmp_path: Path) -> None:
    names = raw.names[::-1]
    outcome = convert_shard(make_job(raw, tmp_path / "store"), make_task(names))
    assert (outcome.shard, outcome.n_patches, outcome.rejects) == (3, 3, ())
    for array in ARRAYS:
        content = (tmp_path / "store" / "images.zarr" / array / "c/3/0/0/0").read_bytes()
        position = 0
        for name in names:  # without a codec a chunk is the pixels and a checksum
            pixels = raw.read_array(name, array).tobytes()
            assert content[position : position + len(pixels)] == pixels
            position += len(pixels) + 4
        assert len(content) == position + 4 * 16 + 4


def test_the_receipt_says_what_the_patches_taught(raw: Archive, tmp_path: Path) -> None:
    task = make_task(raw.names)
    convert_shard(make_job(raw, tmp_path / "store"), task)
    receipt = find_receipt(tmp_path / "store", task)
    assert receipt is not None
    for name, found in zip(raw.names, receipt.facts, strict=True):
        note = raw.read_note(name)
        assert found.labels == tuple(note["labels"])
        assert (found.x_ul, found.y_ul) == (note["coordinates"]["ulx"], note["coordinates"]["uly"])
        assert (found.s2_time, found.s1_time, found.has_s1) == (note["acquisition_date"], None, False)
        assert found.zero_pixels == int((raw.read_array(name, "s2_10m") == 0).sum())
    assert list(receipt.objects) == [f"images.zarr/{array}/c/3/0/0/0" for array in ARRAYS]
    for path, entry in receipt.objects.items():
        assert (tmp_path / "store" / path).stat().st_size == entry.n_bytes
    assert len({entry.checksum for entry in receipt.objects.values()}) == 3


@pytest.mark.parametrize("n_train", [0, 1, 3])
def test_statistics_are_taken_over_the_leading_training_patches_alone(
    n_train: int, raw: Archive, tmp_path: Path
) -> None:
    task = make_task(raw.names, n_train)
    convert_shard(make_job(raw, tmp_path / "store"), task)
    receipt = find_receipt(tmp_path / "store", task)
    assert receipt is not None
    for array, bands in ARRAYS.items():
        for number, found in zip(range(len(bands)), receipt.statistics[array], strict=True):
            pixels = [raw.read_array(name, array)[number].astype(object) for name in raw.names[:n_train]]
            assert found.count == sum(band.size for band in pixels)
            assert found.total == sum(band.sum() for band in pixels)
            assert found.total_of_squares == sum((band**2).sum() for band in pixels)


def test_the_same_task_twice_and_the_slow_reader_give_the_same_bytes(raw: Archive, tmp_path: Path) -> None:
    task = make_task(raw.names)
    convert_shard(make_job(raw, tmp_path / "one"), task)
    first = read_files(tmp_path / "one")
    convert_shard(make_job(raw, tmp_path / "one"), task)
    assert read_files(tmp_path / "one") == first
    convert_shard(make_job(raw, tmp_path / "slow", name="rasterio"), task)
    assert read_files(tmp_path / "slow") == first


def test_bad_patches_are_all_named_and_nothing_is_written(raw: Archive, tmp_path: Path) -> None:
    first, second, third = raw.names
    raw.tif(first, "B02").unlink()
    raw.note(third).write_text("[]")
    outcome = convert_shard(make_job(raw, tmp_path / "store"), make_task([first, second, third]))
    assert [(reject.patch_id, reject.file) for reject in outcome.rejects] == [
        (first, f"{first}_B02.tif"),
        (third, f"{third}_labels_metadata.json"),
    ]
    assert not (tmp_path / "store").exists()


def test_a_missing_patch_folder_is_a_bad_patch(raw: Archive, tmp_path: Path) -> None:
    outcome = convert_shard(make_job(raw, tmp_path / "store"), make_task(["S2A_MSIL2A_20990101T000000_0_0"]))
    assert [reject.reason for reject in outcome.rejects] == ["the file is missing"]


def reject(raw: Archive, tmp_path: Path) -> tuple[str, str]:
    """Convert the first patch, which must be rejected, and return file and reason."""
    (found,) = convert_shard(make_job(raw, tmp_path / "store"), make_task(raw.names[:1])).rejects
    return found.file, found.reason


@pytest.mark.parametrize(
    ("corner", "change"),
    [({"ulx": 10, "lrx": 10}, "x"), ({"uly": -1, "lry": -1}, "y"), ({"ulx": 0.25, "lrx": 0.25}, "x")],
)
def test_a_json_corner_that_disagrees_with_the_tif_names_both(
    corner: dict[str, float], change: str, raw: Archive, tmp_path: Path
) -> None:
    name = raw.names[0]
    old = raw.read_note(name)["coordinates"]
    new = {key: value + corner.get(key, 0) for key, value in old.items()}
    raw.edit_note(name, coordinates=new)
    file, reason = reject(raw, tmp_path)
    assert file.startswith(name)
    assert file.endswith(".tif")
    said = f"expected the upper-left corner ({new['ulx']:.10g}, {new['uly']:.10g}) in EPSG:32633 that {name}_labels"
    assert said in reason
    assert f"found ({old['ulx']}, {old['uly']}) in EPSG:32633" in reason
    assert said.partition("(")[2].partition(")")[0] != reason.rpartition("(")[2].partition(")")[0]


def test_a_json_projection_that_disagrees_with_the_tif_names_both(raw: Archive, tmp_path: Path) -> None:
    projection = raw.read_note(raw.names[0])["projection"].replace("32633", "32634")
    raw.edit_note(raw.names[0], projection=projection)
    _, reason = reject(raw, tmp_path)
    assert "in EPSG:32634 that" in reason
    assert reason.endswith("in EPSG:32633")


def test_one_band_that_lies_elsewhere_is_named(raw: Archive, tmp_path: Path) -> None:
    name = raw.names[0]
    corner = raw.read_note(name)["coordinates"]
    transform = [60, 0, corner["ulx"] + 60, 0, -60, corner["uly"]]
    raw.rewrite_tif(name, "B09", transform=_affine(transform))
    file, reason = reject(raw, tmp_path)
    assert file == f"{name}_B09.tif"
    assert f"found ({corner['ulx'] + 60}, {corner['uly']})" in reason


def _affine(values: list[float]) -> Any:
    import rasterio

    return rasterio.Affine(*values)


@pytest.mark.parametrize("obstacle", ["images.zarr/s2_20m", "receipts"])
def test_a_store_that_cannot_be_written_is_an_error_that_names_the_file(
    obstacle: str, raw: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "store" / obstacle
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    task = make_task(raw.names)
    with pytest.raises(OutputError, match=f"{path}.*: cannot be written: .*run the same command again") as raised:
        convert_shard(make_job(raw, tmp_path / "store"), task)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    assert find_receipt(tmp_path / "store", task) is None


def test_a_full_disk_is_an_error_that_leaves_no_part_of_a_file(
    raw: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match=r"cannot be written: No space left on device. What is finished is kept"):
        convert_shard(make_job(raw, tmp_path / "store"), make_task(raw.names))
    assert read_files(tmp_path / "store") == {}


def test_only_the_bands_asked_for_are_opened(raw: Archive, tmp_path: Path) -> None:
    for band in ("B01", "B09", "B05"):
        for name in raw.names:
            raw.tif(name, band).unlink()
    job = make_job(raw, tmp_path / "store")
    groups = (S2_GROUPS[0], replace(S2_GROUPS[1], bands=("B06", "B11")))
    job = replace(job, reader=replace(job.reader, groups=groups))
    assert convert_shard(job, make_task(raw.names)).rejects == ()
    content = (tmp_path / "store/images.zarr/s2_20m/c/3/0/0/0").read_bytes()
    expected = np.stack([raw.read_band(raw.names[0], band) for band in ("B06", "B11")])
    assert content.startswith(expected.tobytes())
    assert not (tmp_path / "store/images.zarr/s2_60m").exists()
