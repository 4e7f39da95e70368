"""How far scores and probabilities can be trusted: bootstrap intervals, calibration and temperature. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.score.metrics import mean_present, weigh_average_precision

Array = NDArray[np.float64]

N_DRAWS: Final = 200
_BOUNDS: Final = (2.5, 97.5)
"""Percentiles: 95 of 100 draws lie between them."""
_N_BINS: Final = 15
"""Of equal width, as in Guo et al., "On Calibration of Modern Neural Networks", 2017."""
_MIN_PROBABILITY: Final = 1e-7
_MAX_TEMPERATURE: Final = 20.0
_N_HALVINGS: Final = 40


@dataclass(frozen=True)
class Intervals:
    """Where average precision would lie, had other patches of the same kind been measured."""

    classes: Array
    """Lower and upper bound of each class, shape (class, bound); NaN for a class that no patch has."""
    macro: Array
    """Of the mean over classes, shape (bound,)."""


def draw_intervals(truth: NDArray[Any], scores: NDArray[Any], n_draws: int = N_DRAWS, seed: int = 0) -> Intervals:
    """Draw patches again and again, and see how far average precision varies.

    Each draw has as many of each patch as a Poisson distribution of mean 1 says: Chamandy et al., "Estimating
    Uncertainty for Massive Data Streams", 2012.

    Args:
        truth: Zeros and ones, shape (patch, class).
        scores: Any monotone measure of belief, shape (patch, class).
        n_draws: How often.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    draws = weigh_average_precision(truth, scores, random.poisson(1.0, (n_draws, len(truth))).astype(np.uint8))
    present = np.flatnonzero(np.asarray(truth).any(0))
    classes = np.full((truth.shape[1], 2), np.nan)
    if len(present):
        classes[present] = np.nanpercentile(draws[:, present], _BOUNDS, axis=0).T
    means = [mean_present(draw) for draw in draws]
    return Intervals(classes, np.nanpercentile(means, _BOUNDS) if len(present) else np.full(2, np.nan))


def trace_reliability(truth: NDArray[Any], probabilities: NDArray[Any]) -> tuple[Array, Array, NDArray[np.int64]]:
    """Compare probabilities with how often they come true, over all patches and classes.

    Returns:
        Of each bin of probabilities in which there are any: their mean, the share that is true, and how many there are.
    """
    flat, true = np.asarray(probabilities, np.float64).ravel(), np.asarray(truth, np.float64).ravel()
    bins = np.minimum((flat * _N_BINS).astype(np.int64), _N_BINS - 1)
    counts, sums, hits = (np.bincount(bins, weights, _N_BINS) for weights in (None, flat, true))
    used = counts > 0
    return sums[used] / counts[used], hits[used] / counts[used], counts[used].astype(np.int64)


def calibration_error(truth: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Compute the expected calibration error: the mean distance between the two that `trace_reliability` returns."""
    expected, observed, counts = trace_reliability(truth, probabilities)
    return float(np.average(np.abs(expected - observed), weights=counts))


def fit_temperature(truth: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Find the number by which all logits are best divided: the cross-entropy is smallest then.

    Args:
        truth: Zeros and ones, shape (patch, class), of a split that is not reported on.
        probabilities: Shape (patch, class).

    Returns:
        Above 1 where the model is too sure of itself.
    """
    true, logits = np.asarray(truth, np.float64), _find_logits(probabilities)
    low, high = 1 / _MAX_TEMPERATURE, _MAX_TEMPERATURE  # of its inverse, in which the cross-entropy is convex
    for _ in range(_N_HALVINGS):
        inverse = np.sqrt(low * high)
        slope = ((sigmoid(logits * inverse) - true) * logits).sum()
        low, high = (inverse, high) if slope < 0 else (low, inverse)
    return float(1 / np.sqrt(low * high))


def apply_temperature(probabilities: NDArray[Any], temperature: float) -> Array:
    """Divide the logits of some probabilities by a temperature."""
    return sigmoid(_find_logits(probabilities) / temperature)


def _find_logits(probabilities: NDArray[Any]) -> Array:
    likely = np.clip(np.asarray(probabilities, np.float64), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return np.asarray(np.log(likely / (1 - likely)))


def sigmoid(logits: NDArray[Any]) -> Array:
    """Turn logits into probabilities; of any size, for a network that nobody trained gives thousands."""
    return np.asarray(np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64))))
