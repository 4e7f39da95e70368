"""The table of predictions, written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from trainer import RunError, Store
from trainer.score.predictions import Predictions, read_predictions, write_predictions


def _predict(store: Store, *, with_truth: bool = True) -> Predictions:
    selection = store.select("test")
    random = np.random.default_rng(0)
    return Predictions(
        selection=selection,
        classes=selection.classes,
        probabilities=random.random(selection.labels.shape, np.float32),
        thresholds=random.random(len(selection.classes)),
        truth=selection.labels if with_truth else None,
    )


def test_what_is_read_is_what_was_written(store: Store, tmp_path: Path) -> None:
    written = _predict(store)
    write_predictions(tmp_path / "out.parquet", written)
    found = read_predictions(tmp_path / "out.parquet")
    assert found.classes == written.classes
    assert found.indices.tolist() == written.selection.indices.tolist()
    assert found.thresholds.tolist() == written.thresholds.tolist()
    np.testing.assert_array_equal(found.probabilities, written.probabilities)
    assert found.truth is not None
    np.testing.assert_array_equal(found.truth, written.selection.labels > 0)
    table = pq.read_table(tmp_path / "out.parquet")
    assert list(found.patch_ids) == table["patch_id"].to_pylist()
    assert list(found.countries) == table["country"].to_pylist()
    names = [[found.classes[place] for place in np.flatnonzero(row)] for row in found.predicted]
    assert names == table["predicted"].to_pylist()


def test_predictions_without_truth_stay_without(store: Store, tmp_path: Path) -> None:
    write_predictions(tmp_path / "out.parquet", _predict(store, with_truth=False))
    assert read_predictions(tmp_path / "out.parquet").truth is None


def test_another_or_damaged_file_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.parquet: cannot be read as a table of predictions"):
        read_predictions(tmp_path / "none.parquet")
    with pytest.raises(RunError, match="cannot be read as a table of predictions"):
        read_predictions(Path(store.table))
    (tmp_path / "cut.parquet").write_bytes(Path(store.table).read_bytes()[:500])
    with pytest.raises(RunError, match="cannot be read as a table of predictions"):
        read_predictions(tmp_path / "cut.parquet")
