"""Multi-label metrics over a whole split: NumPy, vectorised over classes. The definitions are scikit-learn's.

Its functions would take longer. Seconds of the processor by `python -m benchmarks.metrics`, best of 5 rounds, 2-core
shared VM, 120,000 patches of 19 classes: average precision of each class 0.15 here and 0.34 there; AUROC 0.18 and 0.36;
F1, F2, precision and recall by three means 0.03 and 0.73; average precision by patch, of a tenth of them, 0.01 and 4.9.

A class that no patch of the split has, has no average precision, no recall and no F-score; it is NaN here, and the
means over classes leave it out (scikit-learn would count it as 0). Means over patches leave out patches without label.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

THRESHOLD: Final = 0.5
"""A class is predicted where its probability is at least this, unless a threshold was tuned."""

_ROUNDING: Final = 1e-9
"""By how much a share times a count may miss the count it means."""
_MIN_PROBABILITY: Final = 1e-7
"""Probabilities are clipped to this for the cross-entropy, as Keras does."""


def average_precision(truth: NDArray[Any], scores: NDArray[Any]) -> Array:
    """Compute the average precision of every class: sum over distinct scores of (gain in recall) x precision.

    Args:
        truth: Zeros and ones, shape (patch, class).
        scores: Any monotone measure of belief, shape (patch, class).

    Returns:
        Shape (class,); NaN for a class that no patch has.
    """
    hits, n_reached, n_true = _rank(truth, scores)
    return _divide((hits * n_true / n_reached).sum(1), hits.sum(1))


def weigh_average_precision(truth: NDArray[Any], scores: NDArray[Any], weights: NDArray[Any]) -> Array:
    """Compute the average precision of every class for several weightings of the patches.

    Args:
        truth: Zeros and ones, shape (patch, class).
        scores: Any monotone measure of belief, shape (patch, class).
        weights: Shape (weighting, patch); a weight of 2 is a patch that is there twice.

    Returns:
        Shape (weighting, class); NaN for a class that no patch of any weight has.
    """
    order = _sort(scores)
    hits, n_reached, _ = _rank(truth, scores, order)
    out = np.empty((len(weights), len(hits)))
    for place, (ranked, hit, reached) in enumerate(zip(order, hits > 0, n_reached, strict=True)):
        places = np.flatnonzero(hit)
        ends = reached[places] - 1  # the last patch with the score of each
        true_ends = np.searchsorted(places, ends, "right") - 1
        for number, weight in enumerate(weights):
            ordered = np.asarray(weight, np.float64)[ranked]
            true = ordered[places]
            precision = _divide(np.cumsum(true)[true_ends], np.cumsum(ordered)[ends], empty=0.0)
            out[number, place] = _divide((true * precision).sum(), true.sum())
    return out


def trace_precision(truth: NDArray[Any], scores: NDArray[Any], recalls: NDArray[np.float64]) -> Array:
    """Compute the precision of every class at the highest threshold that reaches each recall.

    That is a staircase, and the area under it is the average precision. So the mean over classes is a curve whose area
    is the macro average precision.

    Args:
        truth: Zeros and ones, shape (patch, class).
        scores: Any monotone measure of belief, shape (patch, class).
        recalls: Above 0 and up to 1, shape (recall,).

    Returns:
        Shape (recall, class); NaN for a class that no patch has.
    """
    hits, n_reached, n_true = _rank(truth, scores)
    out = np.full((len(recalls), len(hits)), np.nan)
    for place in np.flatnonzero(hits.any(1)):
        wanted = np.ceil(recalls * n_true[place, -1] - _ROUNDING)
        first = np.searchsorted(n_true[place], wanted)
        out[:, place] = n_true[place, first] / n_reached[place, first]
    return out


def area_under_roc(truth: NDArray[Any], scores: NDArray[Any]) -> Array:
    """Compute the area under the ROC curve of every class.

    It is the share of pairs of a patch with the class and one without in which the former has the higher score; pairs
    of equal scores count half.

    Args:
        truth: Zeros and ones, shape (patch, class).
        scores: Shape (patch, class).

    Returns:
        Shape (class,); NaN for a class that no patch or every patch has.
    """
    hits, n_reached, n_true = _rank(truth, scores)
    all_true, all_false = hits.sum(1, keepdims=True), (1 - hits).sum(1, keepdims=True)
    won = (hits * (all_false - (n_reached - n_true))).sum(1)
    lost = ((1 - hits) * (all_true - n_true)).sum(1)
    n_pairs = (all_true * all_false)[:, 0]
    return _divide((won + n_pairs - lost) / 2, n_pairs)


def tune_thresholds(truth: NDArray[Any], scores: NDArray[Any]) -> Array:
    """Choose for every class the threshold with the best F1, the highest of several.

    Args:
        truth: Zeros and ones, shape (patch, class), of a split that is not reported on.
        scores: Probabilities, shape (patch, class).

    Returns:
        Shape (class,); a class is predicted where its score is at least this. 0.5 for a class that no patch has.
    """
    hits, n_reached, n_true = _rank(truth, scores)
    best = np.argmax(n_true / (n_reached + hits.sum(1, keepdims=True)), axis=1)  # half of F1
    ordered = -np.sort(-np.asarray(scores, np.float64), axis=0)
    return np.where(hits.any(1), ordered[best, np.arange(len(best))], THRESHOLD)


def cross_entropy(truth: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Compute the mean binary cross-entropy over patches and classes."""
    return float(_lose(truth, probabilities).mean())


def patch_cross_entropy(truth: NDArray[Any], probabilities: NDArray[Any]) -> Array:
    """Compute the mean binary cross-entropy over the classes of each patch, shape (patch,)."""
    return np.asarray(_lose(truth, probabilities).mean(1))


def macro_average_precision(truth: NDArray[Any], scores: NDArray[Any]) -> float:
    """Compute the mean average precision of the classes that occur."""
    return mean_present(average_precision(truth, scores))


def baseline_average_precision(truth: NDArray[Any]) -> float:
    """Compute the macro average precision of a constant: the mean frequency of the classes that occur."""
    frequency = np.asarray(truth, np.float64).mean(0)
    return mean_present(np.where(frequency > 0, frequency, np.nan))


def mean_present(values: Array) -> float:
    """Average what is not NaN; NaN if there is nothing."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def score_labels(truth: NDArray[Any], predicted: NDArray[Any], axis: int | None) -> dict[str, Array]:
    """Compute F1, F2 (in which recall weighs twice as much as precision), precision and recall.

    Args:
        truth: Zeros and ones, shape (patch, class).
        predicted: The same of what is predicted.
        axis: 0 for each class, 1 for each patch, None over both.

    Returns:
        Arrays of one shape, NaN where nothing is true. Where nothing is predicted, precision is 0.
    """
    true, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
    hits, n_predicted, n_true = (
        np.atleast_1d(values.sum(axis, dtype=np.float64)) for values in (true & predicted, predicted, true)
    )
    scores = {
        "f1": _divide(2 * hits, n_true + n_predicted),
        "f2": _divide(5 * hits, 4 * n_true + n_predicted),
        "precision": _divide(hits, n_predicted, empty=0.0),
        "recall": _divide(hits, n_true),
    }
    return {name: np.where(n_true > 0, values, np.nan) for name, values in scores.items()}


def measure_ranking(truth: NDArray[Any], scores: NDArray[Any]) -> dict[str, dict[str, float]]:
    """Compute what needs no threshold: average precision and AUROC by macro, micro and, of the former, sample mean."""
    flat = np.asarray(truth).reshape(-1, 1), np.asarray(scores).reshape(-1, 1)
    return {
        "macro": {
            "average_precision": macro_average_precision(truth, scores),
            "auroc": mean_present(area_under_roc(truth, scores)),
        },
        "micro": {
            "average_precision": float(average_precision(*flat)[0]),
            "auroc": float(area_under_roc(*flat)[0]),
        },
        "sample": {"average_precision": mean_present(average_precision(np.transpose(truth), np.transpose(scores)))},
    }


def measure_decisions(truth: NDArray[Any], predicted: NDArray[Any]) -> dict[str, dict[str, float]]:
    """Compute what needs predicted labels: F1, F2, precision, recall by each mean; and subset accuracy."""
    means = {"macro": 0, "micro": None, "sample": 1}
    scores = {
        name: {metric: mean_present(values) for metric, values in score_labels(truth, predicted, axis).items()}
        for name, axis in means.items()
    }
    scores["sample"]["subset_accuracy"] = float((np.asarray(truth, bool) == np.asarray(predicted, bool)).all(1).mean())
    return scores


def measure_classes(truth: NDArray[Any], scores: NDArray[Any], predicted: NDArray[Any]) -> dict[str, Array]:
    """Compute every metric of every class, each of shape (class,), NaN where it is not defined."""
    return {
        "support": np.asarray(truth, np.float64).sum(0),
        "average_precision": average_precision(truth, scores),
        "auroc": area_under_roc(truth, scores),
        **score_labels(truth, predicted, 0),
    }


def _sort(scores: NDArray[Any]) -> NDArray[np.int64]:
    """Return the patches of each class by falling score, shape (class, patch)."""
    return np.argsort(-np.ascontiguousarray(np.transpose(scores)), axis=1)


def _rank(
    truth: NDArray[Any], scores: NDArray[Any], order: NDArray[np.int64] | None = None
) -> tuple[Array, NDArray[np.int64], Array]:
    """Sort each class by falling score.

    Returns:
        Three of shape (class, patch), the last axis in that order: the truth; how many patches have such a score or a
        higher one; how many of these have the class.
    """
    order = _sort(scores) if order is None else order
    hits = np.take_along_axis(np.ascontiguousarray(np.transpose(truth), np.float64), order, 1)
    ordered = np.take_along_axis(np.ascontiguousarray(np.transpose(scores)), order, 1)
    is_last = np.ones(ordered.shape, bool)
    is_last[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
    n_patches = ordered.shape[1]
    ends = np.where(is_last, np.arange(1, n_patches + 1), n_patches)
    n_reached = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return hits, n_reached, np.take_along_axis(np.cumsum(hits, axis=1), n_reached - 1, 1)


def _lose(truth: NDArray[Any], probabilities: NDArray[Any]) -> Array:
    likely = np.clip(np.where(np.asarray(truth) > 0, probabilities, 1.0 - probabilities), _MIN_PROBABILITY, 1.0)
    return np.asarray(-np.log(likely, dtype=np.float64))


def _divide(numerator: Any, denominator: Any, empty: float = np.nan) -> Array:
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    out: Array = np.full_like(denominator, empty)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
