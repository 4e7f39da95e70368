"""Opening a store and selecting from it."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import trainer
from tests.manifests import edit_metadata, edit_table, seal_again, set_column
from tests.trainer.conftest import N_PATCHES, SHARD_SIZE
from trainer import BigEarthNetError, OptionError, ReadError, SelectionError, Store, StoreError, open_store

Edit = Callable[[dict[str, Any]], None]


def test_a_store_describes_itself(any_store: Store) -> None:
    assert any_store.n_patches == N_PATCHES
    assert [info.name for info in any_store.arrays] == ["s2_10m", "s2_20m", "s2_60m"]
    assert {info.shard_size for info in any_store.arrays} == {SHARD_SIZE}
    assert any_store.patch_bytes == 160_000
    assert (len(any_store.labels_43), len(any_store.labels_19)) == (43, 19)
    assert any_store.band_sets["rgb"] == ("B04", "B03", "B02")
    assert any_store.band_sets["all"] == any_store.bands
    mean, std = any_store.scale_of(["B04", "B8A"])
    assert mean.shape == std.shape == (2,)
    assert (std > 0).all()


def test_recommended_patches_of_a_split_are_the_range_that_the_store_names(any_store: Store) -> None:
    for split, (first, last) in any_store.splits.items():
        assert any_store.select(split).indices.tolist() == list(range(first, last))


@pytest.mark.parametrize("n_classes", [19, 43])
def test_labels_are_multi_hot_in_the_order_of_the_store(store: Store, n_classes: int) -> None:
    selection = store.select(recommended=False, labels=n_classes)
    column = {19: "labels_19", 43: "labels"}[n_classes]
    rows = duckdb.execute(f"SELECT {column} FROM '{store.table}' ORDER BY index").fetchall()
    expected = [[float(name in names) for name in selection.classes] for (names,) in rows]
    np.testing.assert_array_equal(selection.labels, expected)
    assert len(selection.classes) == n_classes
    assert selection.labels.any()


def test_sql_selects(store: Store) -> None:
    where = "country = 'Finland' and not list_contains(labels_19, 'Marine waters')"
    found = store.select("train", where=where)
    expected = duckdb.execute(
        f"SELECT index FROM '{store.table}' WHERE recommended AND split = 'train' AND {where} ORDER BY index"
    ).fetchall()
    assert found.indices.tolist() == [index for (index,) in expected]
    assert 0 < len(found) < len(store.select("train"))


def test_a_time_means_the_same_wherever_the_machine_stands(store: Store) -> None:
    where = "s2_time < '2017-06-13 08:00:00' or hour(s2_time) = 10"
    code = f"import trainer; print(len(trainer.open_store({store.name!r}).select(where={where!r})))"
    found = {
        zone: subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"TZ": zone}
        ).stdout
        for zone in ("UTC", "America/New_York")
    }
    assert found["America/New_York"] == found["UTC"]


def test_a_condition_stays_within_its_brackets(store: Store) -> None:
    assert (
        store.select("train", where="false or true -- all").indices.tolist() == store.select("train").indices.tolist()
    )


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"split": "trian"}, "no split 'trian'; the store has test, train, validation"),
        ({"where": "contry = 'Finland'"}, r"contry.*the columns of patches are index, patch_id, labels"),
        ({"where": "country = 'Atlantis'"}, "no patch matches.*Atlantis.*recommended=False"),
        ({"where": "country = 'Finnland' and true"}, r"no patch matches.*Did you mean 'Finland'\?$"),
        ({"where": "list_contains(labels_19, 'Arable lands')"}, r"Did you mean 'Arable land'\?$"),
        ({"classes": ("Pastures", "Coniferous forrest")}, r"Did you mean 'Coniferous forest'\?$"),
        ({"where": "true) or (true"}, "syntax error"),
        ({"where": "true; drop table x"}, "cannot select"),
        ({"labels": 20}, "19, 43 classes, not 20"),
    ],
)
def test_a_selection_that_cannot_be_made_says_why(store: Store, choice: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        store.select(**choice)


def test_selections_are_told_apart(store: Store) -> None:
    digests = {
        selection.digest
        for selection in (store.select("train"), store.select("test"), store.select(), store.select(labels=43))
    }
    assert len(digests) == 4
    assert store.select("train").digest == store.select("train", where="true").digest


def _rename_array(root: dict[str, Any]) -> None:
    """Shards of such an array would lie outside of the store, and of the cache of a remote one."""
    arrays = root["consolidated_metadata"]["metadata"]
    arrays["../../s2_10m"] = arrays.pop("s2_10m")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda root: root.pop("consolidated_metadata"), "consolidated_metadata"),
        (lambda root: root["attributes"].pop("labels_19"), "labels_19"),
        (_rename_array, r"expected a plain name of an array, found '\.\./\.\./s2_10m'"),
        (lambda root: root["consolidated_metadata"]["metadata"]["s2_10m"]["shape"].__setitem__(0, 3), "same number"),
        (lambda root: root["consolidated_metadata"]["metadata"]["s2_10m"]["shape"].__setitem__(1, 3), "s2_10m"),
    ],
)
def test_what_is_not_a_store_is_refused(copy_store: Callable[[str], Path], edit: Edit, message: str) -> None:
    folder = copy_store("lz4")
    edit_metadata(folder, edit)
    with pytest.raises(StoreError, match=message):
        open_store(folder)


def test_an_unfinished_store_is_refused(copy_store: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_store("lz4")
    (folder / "patches.parquet").unlink()
    with pytest.raises(StoreError, match=r"patches.parquet: expected a file of a finished store"):
        open_store(folder)
    with pytest.raises(StoreError, match="finished store"):
        open_store(tmp_path / "nowhere")
    (folder / "patches.parquet").write_text("nothing")
    with pytest.raises(StoreError, match=r"patches.parquet: its bytes are not those that were written"):
        open_store(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"expected a finished store \(manifest.json\), found an unfinished one"):
        open_store(folder)


def test_a_flipped_bit_in_the_table_is_refused_on_opening(copy_store: Callable[[str], Path]) -> None:
    """It might be one of a label, and the training would not notice."""
    path = copy_store("lz4") / "patches.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"patches\.parquet: its bytes are not those that were written"):
        open_store(path.parent)


def test_a_table_of_another_store_is_refused(copy_store: Callable[[str], Path]) -> None:
    folder = copy_store("lz4")
    shutil.copy(copy_store("none") / "patches.parquet", folder)
    with pytest.raises(StoreError, match=r"patches\.parquet: its bytes are not those that were written"):
        open_store(folder)


def test_a_store_of_format_1_says_that_it_must_be_converted_again(tmp_path: Path) -> None:
    attributes: Any = {"format": "bigearthnet-store", "format_version": 1, "fingerprint": "0" * 32}
    zarr.open_group(tmp_path / "images.zarr", mode="w", attributes=attributes)
    (tmp_path / "patches.parquet").touch()
    with pytest.raises(StoreError, match="found bigearthnet-store 1; convert the archive again"):
        open_store(tmp_path)


def _double(table: pa.Table) -> pa.Table:
    rows = pa.concat_tables([table, table])
    return set_column(rows, "index", list(range(len(rows))))


def _swap(table: pa.Table, name: str) -> pa.Table:
    """Exchange two values of a column that differ, the last of the rows of `train` among them."""
    values = table[name].to_pylist()
    other = next(place for place, value in enumerate(values) if value != values[59])
    values[59], values[other] = values[other], values[59]
    return set_column(table, name, values)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (_double, "expected 120 rows, found 240"),
        (lambda table: table[:5], "expected 120 rows, found 5"),
        (lambda table: table[:0], "expected 120 rows, found 0"),
        (lambda table: table.take(list(range(119, -1, -1))), "expected the number of each row as its index"),
        (lambda table: _swap(table, "index"), "index, found others in 2 rows"),
        (lambda table: set_column(table, "index", [0] * 120), "index, found others in 119 rows"),
        (lambda table: set_column(table, "index", [None] * 120), "index, found others in 120 rows"),
        (lambda table: set_column(table, "index", pa.array(range(2**32, 2**32 + 120))), "found BIGINT"),
        (lambda table: set_column(table, "index", pa.array(np.arange(120.0))), "index of type INTEGER, found DOUBLE"),
        (lambda table: set_column(table, "index", pa.array(map(str, range(120)))), "found VARCHAR"),
        (lambda table: table.drop_columns("index"), "expected a column index of type INTEGER, found none"),
        (lambda table: table.drop_columns("labels_19"), "expected a column labels_19"),
        (lambda table: set_column(table, "labels_19", [None] * 120), "expected no nulls in index"),
        (lambda table: set_column(table, "labels_19", [[None]] * 120), "expected classes that the store lists"),
        (lambda table: set_column(table, "labels_19", pa.array([1] * 120)), "labels_19 of type .*, found BIGINT"),
        (lambda table: set_column(table, "labels_19", table["labels"]), "expected classes that the store lists"),
        (lambda table: set_column(table, "labels_19", [[]] * 120), "expected labels_19 to be what labels give"),
        (lambda table: _swap(table, "labels_19"), "expected labels_19 to be what labels give"),
        (lambda table: _swap(table, "labels"), "expected labels_19 to be what labels give"),
        (lambda table: set_column(table, "labels", [["Unicorn meadows"]] * 120), "classes that the store lists"),
        (lambda table: _swap(table, "split"), "expected splits of the rows"),
        (lambda table: _swap(table, "recommended"), "expected splits of the rows"),
        (lambda table: set_column(table, "recommended", [None] * 120), "expected no nulls"),
        (lambda table: set_column(table, "recommended", pa.array([1] * 120)), "recommended of type BOOLEAN"),
        (lambda table: set_column(table, "split", ["all"] * 120), "expected splits of the rows"),
    ],
)
def test_a_table_of_other_rows_is_refused_though_its_manifest_is_true(
    copy_store: Callable[[str], Path], edit: Callable[[pa.Table], pa.Table], fault: str
) -> None:
    """As a converter with a bug in it would write it: training on it would go on, with the labels of other patches."""
    folder = copy_store("lz4")
    edit_table(folder, edit)
    with pytest.raises(StoreError, match=rf"patches\.parquet: is not the table of these arrays: .*{fault}"):
        open_store(folder)


@pytest.mark.parametrize("text", [b"has_s1", b"Pastures", b"train", b"Finland", b"patch_id"])
def test_a_table_with_text_that_is_no_utf_8_is_refused(copy_store: Callable[[str], Path], text: bytes) -> None:
    folder = copy_store("lz4")
    path = folder / "patches.parquet"
    pq.write_table(pq.read_table(path), path, compression="none", store_schema=False)
    path.write_bytes(path.read_bytes().replace(text, b"\xff" + text[1:]))
    seal_again(folder)
    with pytest.raises(BigEarthNetError):
        open_store(folder).select(where="country = 'Finland'")


@pytest.mark.parametrize(
    ("attributes", "fault"),
    [
        ({"splits": {"train": [0, 59], "validation": [59, 85], "test": [85, 105]}}, "expected splits of the rows"),
        ({"splits": {}}, "expected splits of the rows"),
        ({"labels_19": ["Pastures"]}, "expected classes that the store lists"),
        ({"labels_19": ["Pastures", "Pastures"]}, "expected each class once"),
        ({"labels_19": [str(number) for number in range(64)]}, "labels_19"),
        ({"splits": {"train": "all"}}, r"Expected `array`, got `str` - at `\$.splits"),
    ],
)
def test_root_attributes_that_are_not_those_of_the_table_are_refused(
    copy_store: Callable[[str], Path], attributes: dict[str, Any], fault: str
) -> None:
    folder = copy_store("lz4")
    edit_metadata(folder, lambda root: root["attributes"].update(attributes))
    with pytest.raises(StoreError, match=fault):
        open_store(folder)


@pytest.mark.parametrize("name", ["manifest.json", "patches.parquet", "images.zarr/zarr.json"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(copy_store: Callable[[str], Path], name: str, kind: str) -> None:
    path = copy_store("lz4") / name
    _replace_by(kind, path)
    with pytest.raises(StoreError, match=f"{path.name}"):
        open_store(path.parents[len(Path(name).parts) - 1])


def _replace_by(kind: str, path: Path) -> None:
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path may have 107 bytes
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
            os.chdir(here)


def test_a_shard_that_is_a_pipe_is_damaged(copy_store: Callable[[str], Path]) -> None:
    folder = copy_store("lz4")
    _replace_by("pipe", folder / "images.zarr/s2_60m/c/0/0/0/0")
    store = open_store(folder)
    with pytest.raises(ReadError, match=r"s2_60m, shard 0 .* it is no regular file"):
        store.open_reader("s2_60m", ("B01", "B09")).read(np.array([0]), np.zeros((1, 2, 20, 20), np.uint16), None)


def test_classes_that_the_store_does_not_list_are_refused(copy_store: Callable[[str], Path]) -> None:
    folder = copy_store("lz4")
    edit_metadata(folder, lambda root: root["attributes"]["labels_19"].__setitem__(8, "Broadleaf"))
    with pytest.raises(StoreError, match="expected classes that the store lists, found"):
        open_store(folder)


def test_bands_without_statistics_cannot_be_scaled(copy_store: Callable[[str], Path]) -> None:
    folder = copy_store("lz4")
    edit_metadata(folder, lambda root: root["attributes"]["statistics"]["B01"].update(count=0))
    with pytest.raises(OptionError, match="no statistics of B01"):
        open_store(folder).scale_of(["B02", "B01"])


def test_an_unknown_array_is_named(store: Store) -> None:
    with pytest.raises(OptionError, match="no array 's2_5m'; it has s2_10m"):
        store.describe("s2_5m")


def test_errors_survive_pickling() -> None:
    for name in trainer.__all__:
        value = getattr(trainer, name)
        if isinstance(value, type) and issubclass(value, Exception):
            copy = pickle.loads(pickle.dumps(value("why")))
            assert isinstance(copy, trainer.BigEarthNetError)
            assert str(copy) == "why"


def test_streaming_imports_no_framework(stores: dict[str, Path]) -> None:
    code = (
        "import sys, trainer\n"
        f"stream = trainer.Stream(trainer.open_store({str(stores['lz4'])!r}).select('train'))\n"
        "next(iter(stream))\n"
        "slow = {'tensorflow', 'keras', 'torch', 'zarr', 'tensorstore', 'requests', 'botocore', 'converter'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_exported_names_are_pinned() -> None:
    assert trainer.__all__ == [
        *("Batch", "BigEarthNetError", "EpochEnded", "FitDisplay", "FitOptions", "OptionError", "ReadError", "Recipe"),
        *("RemoteError", "RunError", "Selection", "SelectionError", "State", "StateError", "StepTrained", "Store"),
        *("StoreError", "Stream", "StreamOptions", "TrainingStarted", "compare", "evaluate", "fit", "list_variants"),
        *("open_store", "predict", "predict_raw"),
    ]


def test_every_error_can_be_caught_by_its_exported_name() -> None:
    from bigearthnet import errors

    for name, error in vars(errors).items():
        if name.endswith("Error"):
            assert issubclass(error, tuple(getattr(trainer, one) for one in trainer.__all__ if one.endswith("Error")))


def test_the_metadata_are_what_zarr_reads(store: Store) -> None:
    group = zarr.open_group(Path(store.name) / "images.zarr", mode="r")
    assert dict(group.attrs) == dict(store.attributes)


def test_a_path_that_looks_like_a_pattern_is_a_path(stores: dict[str, Path], store: Store, tmp_path: Path) -> None:
    """DuckDB reads all files that match a pattern; here the one that does belongs to no store."""
    shutil.copytree(stores["lz4"], tmp_path / "ben[1]")
    (tmp_path / "ben1").mkdir()
    (tmp_path / "ben1" / "patches.parquet").write_text("of another store")
    found = open_store(tmp_path / "ben[1]").select("train")
    assert found.digest == store.select("train").digest
