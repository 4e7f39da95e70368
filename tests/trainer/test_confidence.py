"""Intervals, calibration and temperature, against scikit-learn and against what is known of made-up models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainer.report.words import comment
from trainer.score.confidence import (
    apply_temperature,
    calibration_error,
    draw_intervals,
    fit_temperature,
    trace_reliability,
)
from trainer.score.metrics import average_precision, cross_entropy, weigh_average_precision

oracle = pytest.importorskip("sklearn.metrics")
calibration = pytest.importorskip("sklearn.calibration")


def _draw(n_patches: int, seed: int = 3, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Make patches of five classes whose probabilities are true, but for a temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal([-4, -2, 0, 1, -3], 1.5, (n_patches, 5))
    truth = (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return truth, (1 / (1 + np.exp(-logits * temperature))).astype(np.float32)


@pytest.mark.parametrize("ties", [False, True])
def test_weighed_average_precision_is_that_of_scikit_learn(ties: bool) -> None:
    truth, scores = _draw(300)
    truth[:, 4] = 0
    scores = np.round(scores, 1) if ties else scores
    weights = np.random.default_rng(1).poisson(1.0, (4, len(truth)))
    weighed = weigh_average_precision(truth, scores, weights)
    assert np.isnan(weighed[:, 4]).all()
    for number, weight in enumerate(weights):
        for place in range(4):
            expected = oracle.average_precision_score(truth[:, place], scores[:, place], sample_weight=weight)
            assert weighed[number, place] == pytest.approx(expected, abs=1e-9)


def test_intervals_hold_the_score_and_shrink_with_more_patches() -> None:
    widths = []
    for n_patches in (200, 3200):
        truth, scores = _draw(n_patches)
        intervals = draw_intervals(truth, scores)
        point = average_precision(truth, scores)
        assert ((intervals.classes[:, 0] < point) & (point < intervals.classes[:, 1])).all()
        assert intervals.macro[0] < point.mean() < intervals.macro[1]
        widths.append(np.diff(intervals.classes)[:, 0])
    assert (widths[1] < widths[0] / 2).all()  # by a quarter, in the mean


def test_intervals_hold_what_many_patches_have_as_often_as_they_say() -> None:
    truth, scores = _draw(100_000, seed=0)
    known = average_precision(truth, scores)[2]
    held = 0
    for seed in range(1, 61):
        low, high = draw_intervals(*_draw(300, seed)).classes[2]
        held += low < known < high
    assert held >= 51  # of 60; 57 are expected


def test_reliability_is_that_of_scikit_learn() -> None:
    truth, probabilities = _draw(2_000)
    expected, observed, counts = trace_reliability(truth, probabilities)
    true, predicted = calibration.calibration_curve(truth.ravel(), probabilities.ravel(), n_bins=15)
    np.testing.assert_allclose(observed, true)
    np.testing.assert_allclose(expected, predicted)
    assert counts.sum() == truth.size
    assert calibration_error(truth, probabilities) == pytest.approx(
        (np.abs(true - predicted) * counts).sum() / truth.size
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_temperature_is_found_again_and_mends_the_probabilities(temperature: float) -> None:
    truth, probabilities = _draw(50_000, temperature=temperature)
    fitted = fit_temperature(truth, probabilities)
    assert fitted == pytest.approx(temperature, rel=0.03)
    mended = apply_temperature(probabilities, fitted)
    assert calibration_error(truth, mended) < 0.01
    assert cross_entropy(truth, mended) <= cross_entropy(truth, probabilities)
    assert [
        cross_entropy(truth, mended) <= cross_entropy(truth, apply_temperature(mended, t)) for t in (0.97, 1.03)
    ] == [
        True,
        True,
    ]


def test_a_report_says_what_to_beware_of() -> None:
    scores = {"precision": 0.2, "recall": 0.8, "threshold": 0.07}
    evaluation: dict[str, Any] = {
        "classes": {
            "Bogs": {"support": 12.0, "average_precision": 0.4, "at_tuned": scores},
            "Pastures": {"support": 9000.0, "average_precision": 0.4, "at_tuned": scores | {"precision": 0.7}},
            "Dunes": {"support": 0.0, "average_precision": None, "at_tuned": dict.fromkeys(scores)},
        },
        "at_tuned": {},
        "intervals": {"classes": {"Bogs": [0.1, 0.7], "Pastures": [0.38, 0.42], "Dunes": [None, None]}},
        "calibration": {"error": 0.08, "temperature": 1.6, "error_at_temperature": 0.01},
    }
    doubt, flood, word = comment(evaluation)
    assert "Bogs (12 patches: 0.40, from 0.10 to 0.70)" in doubt
    assert "Pastures" not in doubt + flood
    assert "Bogs (4.0 times as often as it is there, threshold 0.07)" in flood
    assert "too sure of itself: with all logits divided by 1.60, as fitted on validation, it is 0.010" in word
    del evaluation["classes"]["Bogs"], evaluation["calibration"]
    assert comment(evaluation) == []
