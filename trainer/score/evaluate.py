"""Measure the model of a training on a whole split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OptionError, RunError
from bigearthnet.files import hash_file, write_json
from trainer.model.networks import ModelCard, describe_model, load_model
from trainer.model.plain import PlainModel
from trainer.run.folder import RunFolder, RunRecord, describe_provenance, locate_evaluation
from trainer.score.confidence import apply_temperature, calibration_error, draw_intervals, fit_temperature
from trainer.score.match import find_labels, select_split, select_with_sensors
from trainer.score.metrics import THRESHOLD, measure_classes, measure_decisions, measure_ranking, tune_thresholds
from trainer.score.predict import open_model, predict_selection
from trainer.score.predictions import Predictions, describe_patches, write_predictions
from trainer.source.store import Selection, Store

TUNED_ON: Final = "validation"
"""The split that thresholds are tuned on, and nothing else is."""
_SLICES: Final = ("country", "season")


def evaluate(
    store: Store,
    run: Path | str,
    split: str = "test",
    *,
    where: str = "",
    join: Path | None = None,
    network: str = "",
    threads: int | None = None,
    advance: Callable[[int, int], object] = lambda *_: None,
) -> dict[str, Any]:
    """Measure the best model of a training and write RUN/evaluation/SPLIT.json and .parquet.

    Args:
        store: The one that the training was on.
        run: Folder of the training.
        split: `test`; or `validation` or `train`, of which it is the patches that the training used. Recommended
            patches only.
        where: A condition in SQL: measure only patches for which it holds. The files have a name of their own then.
        join: Where the file of further columns is now that the training joined; where it was if None.
        network: `module:function` of the recipe, if the model has layers of its module. What the run itself names is
            never imported.
        threads: Threads that decode.
        advance: Called after each batch with how many patches of a split are done, and how many there are.

    Returns:
        What is in the JSON file; None stands for what is not defined.

    Raises:
        RunError: There is no model, or it, the run and the store do not belong together.
        SelectionError: The store lacks a split.
    """
    folder = RunFolder(run)
    record = folder.read_record()
    recipe = replace(record.recipe, join=str(join)) if join else record.recipe
    _check_store(store, record, folder.path)
    _check_join(record, recipe.join)
    model_hash = folder.hash_model()  # before it is loaded: a training may still find a better one
    model = load_model(folder.model_path, network)
    card = describe_model(model)
    if dict(card.bands) != dict(record.bands) or card.classes != record.classes:
        raise RunError(
            f"{folder.model_path}: is the model of another training: it takes {', '.join(card.band_names)} and has "
            f"{len(card.classes)} classes, the run {', '.join(b for bands in record.bands.values() for b in bands)} "
            f"and {len(record.classes)}"
        )
    head = {"run": record.digest, "model": model_hash, "command": record.command, "provenance": dict(record.provenance)}

    def select(name: str, condition: str = "") -> Selection:
        return select_split(store, recipe, name, card.bands, condition, record.classes)

    measured = _Measured(store, folder, model, card, select, head)
    return _measure(measured, split, where, threads, advance)


def evaluate_plain(
    store: Store,
    model_path: Path,
    plain: PlainModel,
    out: Path,
    split: str = "test",
    *,
    where: str = "",
    network: str = "",
    threads: int | None = None,
    advance: Callable[[int, int], object] = lambda *_: None,
) -> dict[str, Any]:
    """Measure a Keras model that this package did not make; write OUT/evaluation/SPLIT.json and .parquet.

    Nobody knows which patches it was trained on: see to it that they are not those of the split.

    Args:
        store: What to measure on.
        model_path: The `.keras` file.
        plain: What it takes and gives; classes of the store.
        out: A folder that holds no training.
        split: `test`, `validation` or `train`; recommended patches only.
        where: As in `evaluate`.
        network: `module:function`, if the model has layers of its module.
        threads: Threads that decode.
        advance: As in `evaluate`.

    Raises:
        OptionError: The model does not take such bands or give such classes, or these are not classes of the store.
        RunError: There is no model, or the folder holds a training.
    """
    folder = RunFolder(out)
    if folder.has_record:
        raise RunError(f"{out}: holds a training, whose evaluation this would replace; name another folder")
    model, card = open_model(model_path, network, plain, store)
    labels = find_labels(card.classes, store)
    if labels is None:
        raise OptionError(
            f"{store.name}: has no list of the classes {'; '.join(card.classes)}; name those of the store"
        )
    head = {"model": hash_file(model_path), "provenance": dict(describe_provenance(store.attributes))}

    def select(name: str, condition: str = "") -> Selection:
        conditions = [condition] if condition else []
        return select_with_sensors(store, name, card.bands, conditions, labels=labels, classes=card.classes)

    return _measure(_Measured(store, folder, model, card, select, head), split, where, threads, advance)


@dataclass(frozen=True, eq=False)
class _Measured:
    """A model that is measured on a store."""

    store: Store
    folder: RunFolder
    model: Any
    card: ModelCard
    select: Callable[..., Selection]
    """Selects the patches of a split, and of these those that meet a condition."""
    head: Mapping[str, Any]
    """What the results say of the model."""


def _measure(
    measured: _Measured, split: str, where: str, threads: int | None, advance: Callable[[int, int], object]
) -> dict[str, Any]:
    """Measure a model on a split and write what comes out."""
    store, card = measured.store, measured.card
    chosen = {TUNED_ON: measured.select(TUNED_ON), split: measured.select(split, where)}
    probabilities = {
        name: predict_selection(measured.model, card, selection, threads=threads, advance=advance)
        for name, selection in chosen.items()
    }
    tuned = None if split == TUNED_ON else tune_thresholds(chosen[TUNED_ON].labels, probabilities[TUNED_ON])
    selection = chosen[split]
    predictions = Predictions(
        selection=selection,
        classes=card.classes,
        probabilities=probabilities[split],
        thresholds=np.full(len(card.classes), THRESHOLD) if tuned is None else tuned,
        truth=selection.labels,
    )
    intervals = draw_intervals(selection.labels, probabilities[split])
    results: dict[str, Any] = {
        **measured.head,
        "store": store.name,
        "fingerprint": store.fingerprint,
        "split": split,
        **({"where": where} if where else {}),
        "patches": len(selection),
        **measure_predictions(selection.labels, probabilities[split], card.classes, tuned),
        "slices": _measure_slices(predictions),
        "intervals": {
            "macro": intervals.macro.tolist(),
            "classes": dict(zip(card.classes, intervals.classes.tolist(), strict=True)),
        },
        "calibration": _calibrate(chosen, probabilities, split),
    }
    results = {name: _without_nan(value) for name, value in results.items()}
    files = locate_evaluation(measured.folder.path, split, where)
    write_predictions(files.predictions, predictions, overwrite=True)
    write_json(files.metrics, results)
    return results


def _calibrate(chosen: Mapping[str, Selection], probabilities: Mapping[str, Any], split: str) -> dict[str, float]:
    """Say how far probabilities can be taken at their word, and what a temperature from another split would mend."""
    truth = chosen[split].labels
    calibration = {"error": calibration_error(truth, probabilities[split])}
    if split != TUNED_ON:
        temperature = fit_temperature(chosen[TUNED_ON].labels, probabilities[TUNED_ON])
        mended = apply_temperature(probabilities[split], temperature)
        calibration |= {"temperature": temperature, "error_at_temperature": calibration_error(truth, mended)}
    return calibration


def measure_predictions(
    truth: NDArray[Any], probabilities: NDArray[Any], classes: tuple[str, ...], tuned: NDArray[np.float64] | None
) -> dict[str, Any]:
    """Compute all metrics of a split.

    Args:
        truth: Multi-hot, shape (patch, class).
        probabilities: Shape (patch, class).
        classes: Their names.
        tuned: Thresholds from another split, shape (class,); None to leave out what needs them.

    Returns:
        `ranking` needs no threshold, `at_0.5` and `at_tuned` do; each by macro, micro and sample mean. `classes` has
        all of them by class, with support. `absent_classes` are left out of the macro means.
    """
    thresholds = {"at_0.5": np.full(len(classes), THRESHOLD)} | ({} if tuned is None else {"at_tuned": tuned})
    present = truth.sum(0) > 0
    by_class: dict[str, dict[str, Any]] = {name: {} for name in classes}
    means = {}
    for title, threshold in thresholds.items():
        predicted = probabilities >= threshold
        means[title] = measure_decisions(truth, predicted)
        columns = measure_classes(truth, probabilities, predicted)
        for place, name in enumerate(classes):
            values = {metric: float(column[place]) for metric, column in columns.items()}
            by_class[name] |= {metric: values.pop(metric) for metric in ("support", "average_precision", "auroc")}
            by_class[name][title] = {"threshold": float(threshold[place]), **values}
    return {
        "absent_classes": [name for name, is_there in zip(classes, present, strict=True) if not is_there],
        "patches_without_label": int((~truth.any(1)).sum()),
        "thresholds": "0.5" if tuned is None else f"0.5, and tuned for F1 on the split {TUNED_ON}",
        "ranking": measure_ranking(truth, probabilities),
        **means,
        "classes": by_class,
    }


def _measure_slices(predictions: Predictions) -> dict[str, dict[str, Any]]:
    """Compute the main metrics by country and by season; thresholds are those of the predictions."""
    assert predictions.truth is not None
    table = describe_patches(predictions.selection)
    slices: dict[str, dict[str, Any]] = {}
    for column in _SLICES:
        values = np.array([value or "unknown" for value in table.column(column).to_pylist()])
        slices[column] = {}
        for value in np.unique(values):
            rows = values == value
            truth, probabilities = predictions.truth[rows], predictions.probabilities[rows]
            ranking = measure_ranking(truth, probabilities)
            decisions = measure_decisions(truth, predictions.predicted[rows])
            slices[column][str(value)] = {
                "patches": int(rows.sum()),
                "classes_present": int(truth.any(0).sum()),
                "macro_average_precision": ranking["macro"]["average_precision"],
                "micro_average_precision": ranking["micro"]["average_precision"],
                "macro_f1": decisions["macro"]["f1"],
                "micro_f1": decisions["micro"]["f1"],
            }
    return slices


def _check_store(store: Store, record: RunRecord, path: Path) -> None:
    """Refuse another store, whose test patches the model may have been trained on."""
    if not record.recipe.target and find_labels(record.classes, store) is None:
        counts = " and ".join(str(len(names)) for names in (store.labels_19, store.labels_43) if names)
        raise RunError(
            f"{store.name}: the model has {len(record.classes)} classes ({record.classes[0]}, ...), "
            f"which are not among the {counts} of the store"
        )
    if store.fingerprint != record.fingerprint:
        raise RunError(
            f"{store.name}: is not the store that {path} was trained on ({store.fingerprint}, not "
            f"{record.fingerprint}), so its splits may hold training patches; give the same store"
        )


def _check_join(record: RunRecord, join: str) -> None:
    """Refuse a file of further columns that is not the one of the training."""
    known = record.sources.get("join")
    if join:
        try:
            hashed = hash_file(join)
        except OSError as error:
            raise RunError(
                f"{join}: the file that the training joined cannot be read ({error}); say where it is"
            ) from error
        if hashed != known:
            raise RunError(f"{join}: is not the file that the training joined (hash {hashed}, not {known})")


def _without_nan(values: Any) -> Any:
    """Replace what is not a number, which JSON does not know, by None."""
    if isinstance(values, Mapping):
        return {name: _without_nan(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values
