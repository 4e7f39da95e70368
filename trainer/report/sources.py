"""What a report is made of: everything in the folder of a training, and the store if it is within reach."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bigearthnet.errors import BigEarthNetError, RunError
from bigearthnet.files import convert_values, read_json
from trainer.run.folder import RunFolder, RunRecord, locate_evaluation
from trainer.score.evaluation import Evaluation
from trainer.score.metrics import macro_average_precision
from trainer.score.predictions import PredictionTable, read_predictions
from trainer.source.store import Store, open_store

SHOWN_SPLITS: Final = ("test", "validation", "train")
"""In the order in which a report prefers them."""
_SAME: Final = 1e-6
"""Relative difference by which a score may change on its way through float32."""


@dataclass(frozen=True, eq=False)
class RunSources:
    """What is known of a training."""

    folder: RunFolder
    record: RunRecord
    log: list[dict[str, float]]
    """A record for each epoch that is over."""
    result: Mapping[str, Any] | None
    """None while the training is not finished."""
    evaluations: Mapping[str, Mapping[str, Any]]
    """The metrics of each split that was measured, the preferred one first."""
    split: str | None
    """The split that is shown in detail; None if none was measured."""
    predictions: PredictionTable | None
    """Those of this split."""
    store: Store | None
    """None if it cannot be read."""
    notes: tuple[str, ...]
    """What is missing, or to be known before the figures are read: a sentence each."""


def read_sources(folder: RunFolder, store: Store | None, split: str | None) -> RunSources:
    """Read everything that a report is made of.

    Args:
        folder: Of the training.
        store: The one that it was trained on; None to look where it was then.
        split: The split to show in detail; None for the first of `SHOWN_SPLITS` that was measured.

    Raises:
        RunError: The folder holds no training, the split was not measured, or files do not belong together.
    """
    record = folder.read_record()
    evaluations = _read_evaluations(folder, record)
    if split is not None and split not in evaluations:
        raise RunError(
            f"{folder.path}: the split {split!r} was not measured, only {', '.join(evaluations) or 'none'}; "
            f"run: {_name_command(folder)} --split {split}"
        )
    split = split or next(iter(evaluations), None)
    predictions = None if split is None else _read_predictions(folder, split, evaluations[split])
    notes = []
    if store is None:
        try:
            store = _check_store(open_store(record.store), record)
        except BigEarthNetError as error:
            notes.append(f"No pictures: {error}. If the store is elsewhere, say where.")
    else:
        _check_store(store, record)
    log, result = folder.read_log(), folder.read_result()
    return RunSources(
        folder=folder,
        record=record,
        log=log,
        result=result,
        evaluations=evaluations,
        split=split,
        predictions=predictions,
        store=store,
        notes=(*_describe_progress(folder, record, log, result, evaluations), *_describe_data(record), *notes),
    )


def _read_evaluations(folder: RunFolder, record: RunRecord) -> dict[str, Mapping[str, Any]]:
    evaluations: dict[str, Mapping[str, Any]] = {}
    for split in SHOWN_SPLITS:
        path = locate_evaluation(folder.path, split).metrics
        if not path.is_file():
            continue
        advice = f"run: {_name_command(folder)} --split {split}"
        try:
            evaluations[split] = read_json(path, dict[str, Any])
            owner = convert_values(evaluations[split], Evaluation).run
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: damaged, or of another version ({error}); {advice}") from error
        if owner != record.digest:
            raise RunError(f"{path}: belongs to another training ({owner}) than this one ({record.digest}); {advice}")
    return evaluations


def _read_predictions(folder: RunFolder, split: str, evaluation: Mapping[str, Any]) -> PredictionTable:
    """Read the predictions of a split, and check that its metrics were computed from them."""
    path = locate_evaluation(folder.path, split).predictions
    predictions = read_predictions(path)
    if set(predictions.classes) != evaluation["classes"].keys():
        raise RunError(
            f"{path}: has other classes than the metrics beside it; run: {_name_command(folder)} --split {split}"
        )
    expected = evaluation["ranking"]["macro"]["average_precision"]
    truth = predictions.truth
    score = math.nan if truth is None else macro_average_precision(truth, predictions.probabilities)
    if not np.isclose(score, math.nan if expected is None else expected, rtol=_SAME, atol=0, equal_nan=True):
        said = "nothing" if expected is None else f"{expected:.6f}"
        raise RunError(
            f"{path}: its macro average precision is {score:.6f}, but the metrics beside it say {said}; "
            f"run: {_name_command(folder)} --split {split}"
        )
    return predictions


def _check_store(store: Store, record: RunRecord) -> Store:
    if store.fingerprint != record.fingerprint:
        raise RunError(
            f"{store.name}: is another store (fingerprint {store.fingerprint}) than that of the training "
            f"({record.fingerprint})"
        )
    return store


def _describe_progress(
    folder: RunFolder,
    record: RunRecord,
    log: list[dict[str, float]],
    result: Mapping[str, Any] | None,
    evaluations: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Say what is not there yet, and which command makes it."""
    notes = []
    evaluate = _name_command(folder)
    if result is None:
        notes.append(
            f"The training is not finished: {len(log)} of at most {record.recipe.epochs} epochs are over. "
            f"To go on, run: {record.command or 'ben-train fit'}"
        )
    if not evaluations:
        notes.append(f"Nothing was measured yet. For scores, classes, errors and pictures, run: {evaluate}")
    elif "test" not in evaluations:
        notes.append(f"The test split was not measured yet. Run: {evaluate}")
    model = folder.hash_model()
    stale = [split for split, measured in evaluations.items() if model is not None and measured.get("model") != model]
    if stale:
        notes.append(
            f"The model has changed since the split {', '.join(stale)} was measured. Run: "
            + " && ".join(f"{evaluate} --split {split}" for split in stale)
        )
    return notes


def _name_command(folder: RunFolder) -> str:
    """Name the command that measures a training."""
    return f"ben-train evaluate {shlex.quote(str(folder.path))}"


def _describe_data(record: RunRecord) -> list[str]:
    counts = record.provenance.get("counts") or {}
    if counts.get("converted", 0) < counts.get("expected", 0):
        return [
            f"The store holds {counts['converted']:,} of the {counts['expected']:,} patches of "
            f"{record.provenance.get('dataset')}, so no figure here compares with a published one."
        ]
    return []
