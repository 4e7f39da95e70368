"""Predictions as a Parquet table. No framework."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bigearthnet.archive.folders import RawPatch
from bigearthnet.errors import OutputError, RunError
from bigearthnet.files import check_new, decode_json, read_regular, write_new
from trainer.source.store import Selection

_DESCRIBING: Final = ("patch_id", "country", "season")

_KINDS: Final = {
    "index": pa.int32(),
    **dict.fromkeys(_DESCRIBING, pa.string()),
    "labels": pa.list_(pa.string()),
    "predicted": pa.list_(pa.string()),
}
"""Types of the columns, but for the probabilities, whose length is the number of classes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """What a model says of some patches."""

    classes: tuple[str, ...]
    """In the order of the probabilities."""
    probabilities: NDArray[np.float32]
    """Shape (patch, class)."""
    thresholds: NDArray[np.float64]
    """Of each class; it is predicted where its probability is at least this."""

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Say which classes are predicted, shape (patch, class)."""
        return np.asarray(self.probabilities >= self.thresholds)


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions(Scores):
    """What a model says of the patches of a selection."""

    selection: Selection
    truth: NDArray[np.float32] | None
    """Multi-hot, shape (patch, class); None if the store has other classes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RawPredictions(Scores):
    """What a model says of patches that are in no store."""

    patches: tuple[RawPatch, ...]
    n_bad: int
    """Patches that could not be read and are not among these."""


def check_table(path: Path) -> None:
    """Make sure that a table can be written, before hours are spent on it.

    Raises:
        OutputError: It is already there, or its folder is not.
    """
    check_new([path])
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it, or choose another name")


def write_predictions(path: Path, predictions: Predictions, *, overwrite: bool = False) -> None:
    """Write index, patch_id, country, season, labels, predicted and probabilities of every patch.

    The class names, in the order of the probabilities, and the thresholds are in the file's key-value metadata.

    Raises:
        OutputError: The file is already there and `overwrite` is not set, or it cannot be written.
    """
    columns = {"index": pa.array(predictions.selection.indices)}
    columns |= dict(zip(_DESCRIBING, describe_patches(predictions.selection).columns, strict=True))
    if predictions.truth is not None:
        columns["labels"] = _list_names(predictions.truth > 0, predictions.classes)
    _write_scores(path, columns, predictions, overwrite=overwrite)


def write_raw_predictions(path: Path, predictions: RawPredictions) -> None:
    """Write patch_id, path, predicted and probabilities of every patch, and the same metadata, to a new file."""
    columns = {
        "patch_id": pa.array([patch.patch_id for patch in predictions.patches], pa.string()),
        "path": pa.array([str(patch.path) for patch in predictions.patches], pa.string()),
    }
    _write_scores(path, columns, predictions, overwrite=False)


def _write_scores(path: Path, columns: dict[str, Any], scores: Scores, *, overwrite: bool) -> None:
    columns["predicted"] = _list_names(scores.predicted, scores.classes)
    flat = pa.array(scores.probabilities.ravel())
    columns["probabilities"] = pa.FixedSizeListArray.from_arrays(flat, len(scores.classes))
    note = {"classes": scores.classes, "thresholds": scores.thresholds.tolist()}
    table = pa.table(columns, metadata={name: json.dumps(value) for name, value in note.items()})
    with write_new(path, overwrite=overwrite) as temporary:
        pq.write_table(table, temporary)


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictionTable(Scores):
    """Predictions of the patches of a store, as they were written."""

    indices: NDArray[np.int32]
    """Positions in the store, shape (patch,)."""
    patch_ids: tuple[str, ...]
    countries: tuple[str | None, ...]
    seasons: tuple[str | None, ...]
    truth: NDArray[np.bool_] | None
    """Shape (patch, class); None if the table has no labels."""


def read_predictions(path: Path) -> PredictionTable:
    """Read what `write_predictions` wrote.

    Raises:
        RunError: There is no such file, or it is damaged.
    """
    try:
        table = pq.read_table(pa.BufferReader(read_regular(path)))
        note = {name.decode(): value for name, value in (table.schema.metadata or {}).items()}
        classes = decode_json(note["classes"], tuple[str, ...])
        thresholds = np.array(decode_json(note["thresholds"], list[float]), np.float64)
        kinds = {name: kind for name, kind in _KINDS.items() if name != "labels" or name in table.column_names}
        kinds["probabilities"] = pa.list_(pa.float32(), len(classes))
        actual = {name: table[name].type for name in kinds}
        if actual != kinds or len(thresholds) != len(classes):
            raise ValueError(f"expected columns {kinds} and as many thresholds, found {actual}")
        if any(table[name].null_count for name in kinds if name not in ("country", "season")):
            raise ValueError("expected no nulls")
        patch_ids, countries, seasons = (tuple(table[name].to_pylist()) for name in _DESCRIBING)
        return PredictionTable(
            indices=table["index"].to_numpy(),
            patch_ids=patch_ids,
            countries=countries,
            seasons=seasons,
            classes=classes,
            thresholds=thresholds,
            probabilities=table["probabilities"].combine_chunks().flatten().to_numpy().reshape(-1, len(classes)),
            truth=_read_names(table["labels"], classes) if "labels" in table.column_names else None,
        )
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as a table of predictions ({error}); write it again") from error


def describe_patches(selection: Selection) -> Any:
    """Read patch_id, country and season of the patches of a selection, as an Arrow table in its order."""
    table = pq.read_table(selection.store.table, columns=list(_DESCRIBING))
    return table.take(pa.array(selection.rows))


def _read_names(column: Any, classes: tuple[str, ...]) -> NDArray[np.bool_]:
    """Turn lists of class names into zeros and ones, shape (patch, class)."""
    lists = column.combine_chunks()
    places = pc.index_in(lists.flatten(), pa.array(classes, pa.string()))
    if places.null_count:
        raise ValueError("expected labels of its classes")
    truth = np.zeros((len(lists), len(classes)), bool)
    truth[pc.list_parent_indices(lists).to_numpy(), places.to_numpy()] = True
    return truth


def _list_names(chosen: NDArray[np.bool_], classes: Sequence[str]) -> Any:
    offsets = np.concatenate([[0], np.cumsum(chosen.sum(1))]).astype(np.int32)
    names = pa.array(classes, pa.string()).take(pa.array(np.nonzero(chosen)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)
