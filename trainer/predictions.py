"""Predictions as a Parquet table. No framework."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainer.store import Selection

_DESCRIBING: Final = ("patch_id", "country", "season")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of the patches of a selection."""

    selection: Selection
    classes: tuple[str, ...]
    """In the order of the probabilities."""
    probabilities: NDArray[np.float32]
    """Shape (patch, class)."""
    thresholds: NDArray[np.float64]
    """Of each class; it is predicted where its probability is at least this."""
    truth: NDArray[np.float32] | None
    """Multi-hot, shape (patch, class); None if the store has other classes."""

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Say which classes are predicted, shape (patch, class)."""
        return np.asarray(self.probabilities >= self.thresholds)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write index, patch_id, country, season, labels, predicted and probabilities of every patch.

    The class names, in the order of the probabilities, and the thresholds are in the file's key-value metadata.
    """
    columns = {"index": pa.array(predictions.selection.indices)}
    columns |= dict(zip(_DESCRIBING, describe_patches(predictions.selection).columns, strict=True))
    if predictions.truth is not None:
        columns["labels"] = _list_names(predictions.truth > 0, predictions.classes)
    columns["predicted"] = _list_names(predictions.predicted, predictions.classes)
    flat = pa.array(predictions.probabilities.ravel())
    columns["probabilities"] = pa.FixedSizeListArray.from_arrays(flat, len(predictions.classes))
    note = {"classes": predictions.classes, "thresholds": predictions.thresholds.tolist()}
    table = pa.table(columns, metadata={name: json.dumps(value) for name, value in note.items()})
    temporary = path.with_name(f".new-{path.name}")
    pq.write_table(table, temporary)
    temporary.replace(path)


def describe_patches(selection: Selection) -> Any:
    """Read patch_id, country and season of the patches of a selection, as an Arrow table in its order."""
    table = pq.read_table(selection.store.table, columns=list(_DESCRIBING))
    return table.take(pa.array(selection.indices))


def _list_names(chosen: NDArray[np.bool_], classes: Sequence[str]) -> Any:
    offsets = np.concatenate([[0], np.cumsum(chosen.sum(1))]).astype(np.int32)
    names = pa.array(classes, pa.string()).take(pa.array(np.nonzero(chosen)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)
