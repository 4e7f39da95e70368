"""Mistakes between classes and by patch, against counting one by one and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from trainer.report.mistakes import count_mistakes, rank_patches
from trainer.report.sections import list_baselines
from trainer.score.predictions import PredictionTable


@pytest.fixture
def truth() -> Any:
    """Labels of 300 patches; no patch has the class 4."""
    truth = np.random.default_rng(3).random((300, 6)) < [0.5, 0.3, 0.1, 0.02, 0, 0.7]
    truth[:, 4] = False
    return truth


@pytest.fixture
def scores(truth: Any) -> Any:
    return np.random.default_rng(4).random(truth.shape).astype(np.float32) * 0.6 + truth * 0.3


def test_mistakes_are_those_counted_one_by_one(truth: Any, scores: Any) -> None:
    predicted = scores > 0.5
    found = count_mistakes(truth, predicted)
    for row in range(6):
        having = truth[:, row]
        assert found.support[row] == having.sum()
        for column in range(6):
            assert found.added[row, column] == sum(having & predicted[:, column] & ~truth[:, column])
            assert found.missed[row, column] == sum(having & truth[:, column] & ~predicted[:, column])
    false_negatives = oracle.multilabel_confusion_matrix(truth, predicted)[:, 1, 0]
    assert np.diag(found.missed).tolist() == false_negatives.tolist()
    assert not np.diag(found.added).any()
    shares = found.share(found.missed)
    assert np.isnan(shares[4]).all()
    np.testing.assert_allclose(shares[0], found.missed[0] / truth[:, 0].sum())


def test_a_mix_up_is_more_frequent_than_chance() -> None:
    """Class 1 is predicted in place of class 0, class 2 at random."""
    truth = np.zeros((1000, 3), bool)
    truth[:500, 0] = True
    predicted = np.zeros((1000, 3), bool)
    predicted[:400, 0] = predicted[400:500, 1] = True
    predicted[::10, 2] = True
    first, *others = count_mistakes(truth, predicted).mix_ups
    assert (first.missed, first.predicted, first.n_patches, first.n_missed) == (0, 1, 100, 100)
    assert first.n_expected == pytest.approx(100 * 100 / 1000)
    assert others == []  # exactly as often as by chance


def test_the_best_and_worst_patches_are_those_of_scikit_learn(truth: Any, scores: Any) -> None:
    best, worst, losses = rank_patches(truth, scores, 5)
    expected = [oracle.log_loss(t, s, labels=[0, 1]) for t, s in zip(truth, scores, strict=True)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert best[0] == np.argmin(expected)
    assert worst[0] == np.argmax(expected)
    for places, order in ((best, 1), (worst, -1)):
        assert len(places) == 5
        assert len({tuple(truth[place]) for place in places}) == 5
        assert losses[places].tolist() == sorted(losses[places], key=lambda loss: order * loss)


@pytest.mark.parametrize("n_patches", [1, 2, 3, 7])
def test_no_patch_is_both_best_and_worst(n_patches: int) -> None:
    truth, scores = np.eye(n_patches, 8, dtype=bool), np.linspace(0.1, 0.9, n_patches * 8).reshape(n_patches, 8)
    best, worst, _ = rank_patches(truth, scores, 6)
    assert len(worst) >= 1
    assert not set(best) & set(worst)


@pytest.mark.parametrize("digits", [1, 3])
def test_the_baselines_are_those_of_a_constant_prediction(truth: Any, digits: int) -> None:
    truth[: 300 // digits, 1] = truth[: 300 // digits, 0]  # with one digit: two classes of one frequency
    constant = np.broadcast_to(truth.mean(0), truth.shape)
    table = PredictionTable(
        indices=np.arange(300, dtype=np.int32),
        patch_ids=(),
        countries=(),
        seasons=(),
        classes=tuple("abcdef"),
        thresholds=np.full(6, 0.5),
        probabilities=constant.astype(np.float32),
        truth=truth,
    )
    found = list_baselines(table)
    present = truth.any(0)
    assert found["micro"] == pytest.approx(oracle.average_precision_score(truth, constant, average="micro"))
    assert found["macro"] == pytest.approx(
        oracle.average_precision_score(truth[:, present], constant[:, present], average="macro")
    )
