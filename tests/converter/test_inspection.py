"""Inspecting one shard: true ones are silent, and a fault names array, shard and patch."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bigearthnet.archive.patch import PatchReader
from bigearthnet.archive.records import Source
from bigearthnet.bands import choose_groups
from bigearthnet.store.layout import Layout
from bigearthnet.store.table import read_rows
from converter.verify.inspection import COMPARED, Fault, Inspector, ShardInspection, inspect_shard
from tests.conftest import SHARD_SIZE, SmallArchive

LAYOUT = Layout("v1", choose_groups(["s2"]), "lz4", SHARD_SIZE)


def make_task(store: Path, shard: int, *, n_train: int = SHARD_SIZE, compare: bool = False) -> ShardInspection:
    rows = read_rows(store)[shard * SHARD_SIZE : (shard + 1) * SHARD_SIZE]
    names = tuple(row["patch_id"] for row in rows)
    return ShardInspection(
        shard=shard,
        patch_ids=names,
        n_train=n_train,
        rows=tuple({name: row[name] for name in COMPARED} for row in rows),
        sources=tuple(Source(name, s2=name) if compare else None for name in names),
    )


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy"))


def inspector(store: Path, small: SmallArchive | None = None) -> Inspector:
    reader = None if small is None else PatchReader({"s2": str(small.archive.root)}, LAYOUT.dataset, LAYOUT.groups)
    return Inspector(str(store), LAYOUT, reader)


@pytest.mark.parametrize("shard", range(6))
def test_a_true_shard_is_silent(store: Path, small: SmallArchive, shard: int) -> None:
    report = inspect_shard(inspector(store, small), make_task(store, shard, compare=True))
    n_patches = SHARD_SIZE if shard < 5 else 2
    assert (report.shard, report.n_patches, report.n_compared, report.faults) == (shard, n_patches, n_patches, ())
    assert len(report.checksums) == 3
    assert set(report.statistics) == {"s2_10m", "s2_20m", "s2_60m"}
    assert report.statistics["s2_10m"][0].count == n_patches * 120 * 120


def test_only_training_patches_count_in_the_statistics(store: Path) -> None:
    report = inspect_shard(inspector(store), make_task(store, 2, n_train=1))
    assert report.n_compared == 0
    assert {band.count for band in report.statistics["s2_60m"]} == {20 * 20}


@pytest.mark.parametrize("array", ["s2_10m", "s2_20m", "s2_60m"])
def test_any_flipped_bit_of_a_shard_is_found(copy: Path, array: str) -> None:
    """400 bits, from pixels, checksums, index and its checksum; near both ends of the file every byte."""
    path = copy / f"images.zarr/{array}/c/5/0/0/0"
    whole = path.read_bytes()
    task = make_task(copy, 5)
    dice = random.Random(array)
    ends = [*range(40), *range(len(whole) - 80, len(whole))]
    for at in [*ends, *dice.sample(range(len(whole)), 280)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :])
        faults = inspect_shard(inspector(copy), task).faults
        assert [fault for fault in faults if fault.where == array], at


def test_the_other_arrays_of_a_damaged_shard_are_inspected_all_the_same(copy: Path) -> None:
    (copy / "images.zarr/s2_10m/c/1/0/0/0").unlink()
    path = copy / "images.zarr/s2_60m/c/1/0/0/0"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    task = make_task(copy, 1)
    report = inspect_shard(inspector(copy), task)
    assert [(fault.where, fault.shard, fault.patch_id) for fault in report.faults] == [
        ("s2_10m", 1, None),
        ("s2_60m", 1, task.patch_ids[0]),
    ]


def test_a_shard_with_more_or_fewer_patches_than_the_table_is_a_fault(copy: Path) -> None:
    full, partial = (copy / f"images.zarr/s2_60m/c/{shard}/0/0/0" for shard in (4, 5))
    content = full.read_bytes()
    full.write_bytes(partial.read_bytes())
    partial.write_bytes(content)
    (few,) = inspect_shard(inspector(copy), make_task(copy, 4)).faults
    (many,) = inspect_shard(inspector(copy), make_task(copy, 5)).faults
    assert few == Fault("s2_60m", 4, None, "expected chunks of the first 4 patches, found 2 chunks")
    assert many == Fault("s2_60m", 5, None, "expected chunks of the first 2 patches, found 4 chunks")


@pytest.mark.parametrize(
    ("column", "value"),
    [("labels", ("Airports",)), ("epsg", 32601), ("x_ul", 0.5), ("s2_time", None), ("tile", "01AAA"), ("has_s1", True)],
)
def test_a_row_that_differs_from_the_archive_is_a_fault(
    store: Path, small: SmallArchive, column: str, value: Any
) -> None:
    task = make_task(store, 0, compare=True)
    rows = ({**task.rows[0], column: value}, *task.rows[1:])
    (fault,) = inspect_shard(inspector(store, small), replace(task, rows=rows)).faults
    assert (fault.where, fault.shard, fault.patch_id) == ("patches.parquet", 0, task.patch_ids[0])
    assert fault.what.startswith(f"{column} is {value!r}, the archive has ")


def test_a_fault_reads_as_place_and_reason() -> None:
    assert str(Fault("s2_10m", 3, "S2A_X", "is bad")) == "s2_10m, shard 3, S2A_X: is bad"
    assert str(Fault("patches.parquet", None, None, "is bad")) == "patches.parquet: is bad"
    assert str(Fault("s2_10m", 0, None, "is bad")) == "s2_10m, shard 0: is bad"
