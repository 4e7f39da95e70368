"""What a store says of itself, and what it says when its parts do not belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bigearthnet.errors import StoreError
from bigearthnet.store.manifest import Entry
from bigearthnet.store.summary import describe_store
from converter.conversion import convert
from tests.archives import ARRAYS
from tests.conftest import SmallArchive
from tests.manifests import seal_again


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    """A copy of a finished store that may be damaged."""
    return Path(shutil.copytree(store, tmp_path / "copy"))


def test_a_store_is_described_as_json(store: Path, small: SmallArchive) -> None:
    found = json.loads(json.dumps(describe_store(store)))
    assert set(found) == {"store", "attributes", "arrays", "counts"}
    assert found["store"] == str(store)
    assert [array["name"] for array in found["arrays"]] == sorted(ARRAYS)
    assert found["counts"]["recommended_split"] == {"train": 9, "validation": 5, "test": 4}
    assert found["attributes"]["counts"]["converted"] == len(small.names)


def test_a_table_of_other_images_is_refused(copy: Path, small: SmallArchive, scheduler: str, tmp_path: Path) -> None:
    convert(small.archive.root, tmp_path / "other", small.options(scheduler=scheduler, shard_size=2))
    shutil.copy(tmp_path / "other" / "patches.parquet", copy / "patches.parquet")
    with pytest.raises(StoreError, match=r"patches\.parquet: its bytes are not those that were written"):
        describe_store(copy)


def test_a_table_without_a_fingerprint_is_refused(copy: Path) -> None:
    table = pq.read_table(copy / "patches.parquet").replace_schema_metadata(None)
    pq.write_table(table, copy / "patches.parquet")
    with pytest.raises(StoreError, match=r"patches\.parquet: its bytes are not those that were written"):
        describe_store(copy)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet", b"PAR1\0\0\0\0PAR1"])
def test_a_damaged_table_is_refused_by_name(copy: Path, content: bytes) -> None:
    (copy / "patches.parquet").write_bytes(content)
    with pytest.raises(StoreError, match=r"patches\.parquet"):
        describe_store(copy)


def test_a_table_cut_short_is_refused_by_name(copy: Path) -> None:
    path = copy / "patches.parquet"
    path.write_bytes(path.read_bytes()[:-1_000])
    with pytest.raises(StoreError, match=r"patches\.parquet"):
        describe_store(copy)


def test_an_array_that_is_gone_is_an_error(copy: Path) -> None:
    shutil.rmtree(copy / "images.zarr" / "s2_20m")
    with pytest.raises(StoreError, match="s2_20m"):
        describe_store(copy)


@pytest.mark.parametrize("kept", [{}, {"images.zarr/s2_10m/c/0/0/0/0": (0, "0" * 16)}])
def test_arrays_without_shards_are_refused(kept: dict[str, tuple[int, str]], copy: Path) -> None:
    """Their ratio of compression would be a division by zero."""
    seal_again(copy, shards={path: Entry(*entry) for path, entry in kept.items()})
    with pytest.raises(StoreError, match="expected shards of s2_10m, s2_20m, s2_60m in its manifest, found none"):
        describe_store(copy)
