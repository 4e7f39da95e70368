"""Receipts: they vouch for exactly one task and for whole files, or count for nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigearthnet.archive.records import PatchFacts, Source
from bigearthnet.store.manifest import Entry
from bigearthnet.store.statistics import BandStatistics
from converter.plan import ShardTask
from converter.receipt import Receipt, read_receipt, receipt_path, write_receipt

NAMES = ("S2A_MSIL2A_20170613T101031_87_48", "S2A_MSIL2A_20170617T113321_4_55")
TASK = ShardTask(3, tuple(Source(name, s2=name) for name in NAMES), 1, "digest of the task")
FACTS = PatchFacts(
    labels=("Pastures", "Sea and ocean"),
    epsg=32633,
    x_ul=404_400.0,
    y_ul=5_342_400.5,
    s2_time="2017-06-13 10:10:31",
    s1_time=None,
    tile="33UUP",
    zero_pixels=7,
    has_s1=False,
)
RECEIPT = Receipt(
    shard=3,
    digest=TASK.digest,
    objects={"images.zarr/s2_10m/c/3/0/0/0": Entry(5, "one"), "images.zarr/s2_20m/c/3/0/0/0": Entry(0, "")},
    facts=(FACTS, replace(FACTS, labels=None, tile=None, zero_pixels=None, s1_time="2017-06-13 16:50:43", has_s1=True)),
    statistics={
        "s2_10m": (BandStatistics(14_400, 269_695 * 14_400 * 65_535, 2**70, 0, 65_535), BandStatistics()),
        "s1_10m": (BandStatistics(14_400, -0.1, 1 / 3, -72.123456789, 0.1),),
    },
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that holds the objects of the receipt, and the receipt."""
    for path, entry in RECEIPT.objects.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"x" * entry.n_bytes)
    write_receipt(tmp_path / "receipts", RECEIPT)
    return tmp_path


def read(store: Path, task: ShardTask = TASK) -> Receipt | None:
    return read_receipt(store / "receipts", store, task)


def test_a_receipt_comes_back_as_it_was_written(store: Path) -> None:
    assert read(store) == RECEIPT


def test_the_file_is_json_under_the_number_of_the_shard(store: Path) -> None:
    assert receipt_path(store / "receipts", 3).name == "000003.json"
    assert json.loads((store / "receipts" / "000003.json").read_bytes())["digest"] == TASK.digest


@pytest.mark.parametrize(
    "task",
    [replace(TASK, digest="another"), replace(TASK, shard=4), replace(TASK, sources=TASK.sources[:1])],
    ids=["digest", "shard", "patches"],
)
def test_a_receipt_of_another_task_counts_for_nothing(store: Path, task: ShardTask) -> None:
    assert read(store, task) is None


def test_a_receipt_whose_object_is_gone_or_cut_short_counts_for_nothing(store: Path) -> None:
    path = store / next(iter(RECEIPT.objects))
    path.write_bytes(b"xxxx")
    assert read(store) is None
    path.write_bytes(b"xxxxxx")
    assert read(store) is None
    path.unlink()
    assert read(store) is None
    path.mkdir()
    assert read(store) is None


def test_a_receipt_cut_short_counts_for_nothing(store: Path) -> None:
    path = receipt_path(store / "receipts", 3)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert read(store) is None


@given(st.data())
def test_a_receipt_of_another_form_counts_for_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """An older version, or another tool, may have written it."""
    folder = tmp_path_factory.mktemp("receipts")
    write_receipt(folder, RECEIPT)
    path = receipt_path(folder, 3)
    content = json.loads(path.read_bytes())
    key = data.draw(st.sampled_from(sorted(content)))
    content[key] = data.draw(st.sampled_from([None, [], {}, "text", 7, [[1]], [{}], {"s2_10m": 1}, {"s2_10m": [{}]}]))
    path.write_text(json.dumps(content if data.draw(st.booleans()) else content[key]))
    assert read_receipt(folder, folder, TASK) is None
