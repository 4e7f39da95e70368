"""The sections of a report as the values that its template shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.look.charts import Box, Chart, Series, draw_lines
from bigearthnet.look.page import embed_picture
from bigearthnet.look.picture import RGB, render_picture
from bigearthnet.look.sheet import mark_synthetic
from trainer.report.mistakes import rank_patches
from trainer.report.sources import RunSources
from trainer.score.confidence import trace_reliability
from trainer.score.metrics import baseline_average_precision, trace_precision
from trainer.score.predictions import PredictionTable
from trainer.source.store import Store

N_SHOWN: Final = 6
"""Best patches shown, and worst ones."""
_RECALLS: Final = np.linspace(0, 1, 201)[1:]
_FEW: Final = slice(3, None, 4)
"""Recalls for the small charts, which are 150 pixels wide: every fourth, and the last."""
_SQUARE: Final = Box(width=420, height=360, left=40, right=410, top=10, bottom=328)
_SMALL: Final = Box(width=150, height=110, left=22, right=146, top=6, bottom=92)


@dataclass(frozen=True)
class Figure:
    """A chart with its title and its legend: for each line its style, name and score."""

    title: str
    chart: Chart
    legend: tuple[tuple[str, str, float | None], ...] = ()


def draw_learning(log: Sequence[Mapping[str, float]], result: Mapping[str, Any] | None) -> list[Figure]:
    """Draw loss, validation score and learning rate by epoch."""
    if not log:
        return []
    columns = {name: np.array([record[name] for record in log]) for name in log[0]}
    epochs = columns["epoch"]

    def draw(title: str, lines: dict[str, tuple[NDArray[Any], Any]]) -> Figure:
        series = [Series(name, epochs, y, style, has_dots=style != "reference") for name, (y, style) in lines.items()]
        span = (float(epochs[0]), float(epochs[-1]))
        chart = draw_lines(f"{title} by epoch", series, x_name="epoch", x_range=span, whole=True)
        return Figure(title, chart, tuple((one.style, one.name, float(one.y[-1])) for one in series))

    scores = {
        "macro": (columns["val_macro_ap"], "first"),
        "micro": (columns["val_micro_ap"], "second"),
    }
    if result is not None:
        constant = np.full(len(log), result["baseline_macro_ap"])
        scores["label frequency"] = (constant, "reference")
    return [
        draw("Loss", {"training": (columns["loss"], "first"), "validation": (columns["val_loss"], "second")}),
        draw("Average precision on validation", scores),
        draw("Learning rate", {"at the end": (columns["learning_rate"], "first")}),
    ]


def list_classes(evaluation: Mapping[str, Any], decision: str) -> list[dict[str, Any]]:
    """List every class with its scores; those that need a threshold are of the decision `at_0.5` or `at_tuned`."""
    return [
        {
            "name": name,
            "frequency": values["support"] / evaluation["patches"],
            **{metric: value for metric, value in values.items() if not metric.startswith("at_")},
            **values[decision],
        }
        for name, values in evaluation["classes"].items()
    ]


def list_baselines(predictions: PredictionTable) -> dict[str, float]:
    """Compute what a constant prediction of every class's frequency reaches, by macro and micro mean."""
    assert predictions.truth is not None
    frequencies, n_classes = np.unique(predictions.truth.mean(0), return_counts=True)
    hits, n_classes = (frequencies * n_classes)[::-1], n_classes[::-1]  # classes of one frequency are one threshold
    micro = (hits * np.cumsum(hits) / np.cumsum(n_classes)).sum() / hits.sum() if hits.any() else np.nan
    return {"macro": baseline_average_precision(predictions.truth), "micro": float(micro)}


def draw_precision(predictions: PredictionTable, evaluation: Mapping[str, Any]) -> tuple[Figure, list[Figure]]:
    """Draw precision over recall: one chart of the means, and a small one for each class that occurs."""
    assert predictions.truth is not None
    truth, scores = predictions.truth, predictions.probabilities
    traces = trace_precision(truth, scores, _RECALLS)
    present = np.flatnonzero(truth.any(0))
    micro = trace_precision(truth.reshape(-1, 1), scores.reshape(-1, 1), _RECALLS)[:, 0]
    macro = traces[:, present].mean(1) if len(present) else np.full(len(_RECALLS), np.nan)
    lines = [
        *(Series(predictions.classes[place], _RECALLS, traces[:, place], "faint", is_stair=True) for place in present),
        Series("micro", _RECALLS, micro, "second", is_stair=True),
        Series("macro", _RECALLS, macro, "first", is_stair=True),
    ]
    span: dict[str, Any] = {"x_name": "recall", "x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}
    chart = draw_lines("Precision over recall: micro and macro mean, and every class", lines, **span, box=_SQUARE)
    legend = (
        ("first", "macro", evaluation["ranking"]["macro"]["average_precision"]),
        ("second", "micro", evaluation["ranking"]["micro"]["average_precision"]),
        ("faint", "a class", None),
    )
    small = [
        Figure(
            predictions.classes[place],
            draw_lines(
                f"Precision over recall of {predictions.classes[place]}",
                [
                    Series("label frequency", np.array([0, 1]), np.full(2, truth[:, place].mean()), "reference"),
                    Series(predictions.classes[place], _RECALLS[_FEW], traces[_FEW, place], "first", is_stair=True),
                    _mark_threshold(predictions, int(place)),
                ],
                **span,
                box=_SMALL,
            ),
            (("first", "average precision", evaluation["classes"][predictions.classes[place]]["average_precision"]),),
        )
        for place in present
    ]
    return Figure("Precision over recall", chart, legend), small


def draw_reliability(predictions: PredictionTable) -> Figure:
    """Draw how often what was predicted with a probability came true."""
    assert predictions.truth is not None
    expected, observed, _ = trace_reliability(predictions.truth, predictions.probabilities)
    lines = [
        Series("perfect", np.array([0.0, 1.0]), np.array([0.0, 1.0]), "reference"),
        Series("all classes", expected, observed, "first", has_dots=True),
    ]
    span: dict[str, Any] = {"x_name": "probability", "x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}
    chart = draw_lines("Share that came true over probability", lines, **span, box=_SQUARE)
    return Figure("Reliability", chart, (("first", "all classes", None), ("reference", "perfect", None)))


def list_patches(sources: RunSources) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bool]:
    """List the patches that the model knows best and worst, and say whether there are pictures of them."""
    predictions = sources.predictions
    assert predictions is not None
    assert predictions.truth is not None
    best, worst, losses = rank_patches(predictions.truth, predictions.probabilities, N_SHOWN)
    places = np.concatenate([best, worst])
    pictures = None if sources.store is None else _draw_patches(sources.store, predictions.indices[places])
    cards = [
        {
            "patch_id": predictions.patch_ids[place],
            "country": predictions.countries[place] or "unknown country",
            "season": predictions.seasons[place] or "unknown season",
            "loss": float(losses[place]),
            "picture": None if pictures is None else pictures[number],
            "labels": _list_labels(predictions, int(place)),
        }
        for number, place in enumerate(places)
    ]
    return cards[: len(best)], cards[len(best) :], pictures is not None


def _draw_patches(store: Store, indices: NDArray[np.integer]) -> list[str] | None:
    """Draw patches in true colour; None if the store lacks a band of it, or is a part without one of them."""
    there = store.select(recommended=False)
    if "rgb" not in store.band_sets or not np.isin(indices, there.indices).all():
        return None
    rows = there.rows[np.searchsorted(there.indices, indices)]
    planes: dict[str, NDArray[Any]] = {}
    for name, bands in store.resolve_bands("rgb").items():
        info = store.describe(name)
        pixels = np.empty((len(rows), len(bands), info.n_rows, info.n_columns), info.dtype)
        store.open_reader(name, bands).read(np.asarray(rows), pixels, None)
        planes |= dict(zip(bands, pixels.swapaxes(0, 1), strict=True))
    pictures = (
        render_picture(RGB.name, {band: plane[place] for band, plane in planes.items()}) for place in range(len(rows))
    )
    synthetic = bool(store.attributes.get("synthetic"))
    return [embed_picture(mark_synthetic(one) if synthetic else one, lossless=True) for one in pictures]


def _mark_threshold(predictions: PredictionTable, place: int) -> Series:
    """Mark what is reached at the threshold of a class."""
    assert predictions.truth is not None
    true, predicted = predictions.truth[:, place], predictions.predicted[:, place]
    hits = float((true & predicted).sum())
    precision = hits / predicted.sum() if predicted.any() else np.nan
    name = f"at the threshold {predictions.thresholds[place]:.2f}"
    return Series(name, np.array([hits / true.sum()]), np.array([precision]), "second", has_dots=True)


def _list_labels(predictions: PredictionTable, place: int) -> list[dict[str, Any]]:
    """List the classes of a patch that are true or predicted, each a hit, missed or added; the most probable first."""
    assert predictions.truth is not None
    true, predicted = predictions.truth[place], predictions.probabilities[place] >= predictions.thresholds
    order = np.argsort(-predictions.probabilities[place], kind="stable")
    return [
        {
            "name": predictions.classes[column],
            "kind": ("hit" if predicted[column] else "missed") if true[column] else "added",
            "probability": float(predictions.probabilities[place, column]),
            "threshold": float(predictions.thresholds[column]),
        }
        for column in order
        if true[column] or predicted[column]
    ]
