"""Our metrics against scikit-learn's, over whole random splits with ties, absent classes and empty patches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from trainer.score.metrics import (
    area_under_roc,
    average_precision,
    baseline_average_precision,
    cross_entropy,
    measure_classes,
    measure_decisions,
    measure_ranking,
    patch_cross_entropy,
    score_labels,
    trace_precision,
    tune_thresholds,
)

Case = tuple[Any, Any]


@pytest.fixture(params=["fine", "ties", "few", "constant"])
def case(request: pytest.FixtureRequest) -> Case:
    """Truth and probabilities, with two classes that no patch has and one that all have."""
    random = np.random.default_rng(7)
    n_patches = 5 if request.param == "few" else 400
    truth = (random.random((n_patches, 19)) < np.linspace(0.02, 0.6, 19)).astype(np.float32)
    truth[:, [3, 11]] = 0
    truth[:, 18] = 1
    scores = (random.random(truth.shape) * 0.7 + truth * 0.3).astype(np.float32)
    if request.param == "ties":
        scores = np.round(scores, 1)
    if request.param == "constant":
        scores[:] = 0.5
    return truth, scores


def _present(truth: Any) -> Any:
    return truth.any(0)


def test_average_precision_is_that_of_scikit_learn(case: Case) -> None:
    truth, scores = case
    found = average_precision(truth, scores)
    assert np.isnan(found).tolist() == (~_present(truth)).tolist()
    for place in np.flatnonzero(_present(truth)):
        expected = oracle.average_precision_score(truth[:, place], scores[:, place])
        assert found[place] == pytest.approx(expected, abs=1e-9)


def test_the_area_under_a_precision_curve_is_the_average_precision(case: Case) -> None:
    truth, scores = case
    recalls = np.linspace(0, 1, 20_001)[1:]
    areas = trace_precision(truth, scores, recalls).mean(0)
    assert np.isnan(areas).tolist() == (~_present(truth)).tolist()
    np.testing.assert_allclose(areas, average_precision(truth, scores), atol=2e-4)


def test_a_precision_curve_goes_through_the_points_of_scikit_learn(case: Case) -> None:
    truth, scores = case
    for place in np.flatnonzero(_present(truth)):
        precision, recall, _ = oracle.precision_recall_curve(truth[:, place], scores[:, place])
        reached, first = np.unique(recall[::-1], return_index=True)  # of one recall, the highest threshold
        expected = precision[::-1][first][reached > 0]
        found = trace_precision(truth[:, place, None], scores[:, place, None], reached[reached > 0])
        np.testing.assert_allclose(found[:, 0], expected, atol=1e-9)


def test_area_under_roc_is_that_of_scikit_learn(case: Case) -> None:
    truth, scores = case
    found = area_under_roc(truth, scores)
    for place in range(truth.shape[1]):
        if 0 < truth[:, place].sum() < len(truth):
            assert found[place] == pytest.approx(oracle.roc_auc_score(truth[:, place], scores[:, place]), abs=1e-9)
        else:
            assert np.isnan(found[place])


def test_ranking_means_are_those_of_scikit_learn_over_what_occurs(case: Case) -> None:
    truth, scores = case
    found = measure_ranking(truth, scores)
    present, labelled = _present(truth), truth.any(1)
    for mean, part in {
        "macro": (truth[:, present], scores[:, present]),
        "micro": (truth, scores),
        "sample": (truth[labelled], scores[labelled]),
    }.items():
        name = {"sample": "samples"}.get(mean, mean)
        expected = oracle.average_precision_score(*part, average=name)
        assert found[mean]["average_precision"] == pytest.approx(expected, abs=1e-9)
    varied = present & ~truth.all(0)
    expected = oracle.roc_auc_score(truth[:, varied], scores[:, varied], average="macro")
    assert found["macro"]["auroc"] == pytest.approx(expected, abs=1e-9)
    assert found["micro"]["auroc"] == pytest.approx(oracle.roc_auc_score(truth.ravel(), scores.ravel()), abs=1e-9)


def test_decisions_are_those_of_scikit_learn_over_what_occurs(case: Case) -> None:
    truth, scores = case
    predicted = scores >= 0.5
    found = measure_decisions(truth, predicted)
    present, labelled = np.flatnonzero(_present(truth)), truth.any(1)
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        ("macro", slice(None), {"average": "macro", "labels": present}),
        ("micro", slice(None), {"average": "micro"}),
        ("sample", labelled, {"average": "samples"}),
    ]
    for mean, part, options in cases:
        pair = truth[part].astype(int), predicted[part].astype(int)
        for metric, function in {
            "f1": lambda *a, **k: oracle.fbeta_score(*a, beta=1, **k),
            "f2": lambda *a, **k: oracle.fbeta_score(*a, beta=2, **k),
            "precision": oracle.precision_score,
            "recall": oracle.recall_score,
        }.items():
            expected = function(*pair, **options, zero_division=0)
            assert found[mean][metric] == pytest.approx(expected, abs=1e-9), (mean, metric)
    expected = oracle.accuracy_score(truth.astype(int), predicted.astype(int))
    assert found["sample"]["subset_accuracy"] == pytest.approx(expected)


def test_each_class_has_its_metrics_and_support(case: Case) -> None:
    truth, scores = case
    predicted = scores >= 0.5
    found = measure_classes(truth, scores, predicted)
    present = _present(truth)
    expected = oracle.precision_recall_fscore_support(truth.astype(int), predicted.astype(int), zero_division=0)
    for values, name in zip(expected, ["precision", "recall", "f1", "support"], strict=True):
        np.testing.assert_allclose(found[name][present], values[present], atol=1e-9)
    assert np.isnan(found["f1"][~present]).all()
    assert (found["support"][~present] == 0).all()


def test_tuned_thresholds_reach_the_best_f1_of_all(case: Case) -> None:
    truth, scores = case
    tuned = tune_thresholds(truth, scores)
    assert (tuned[~_present(truth)] == 0.5).all()
    found = score_labels(truth, scores >= tuned, 0)["f1"]
    for place in np.flatnonzero(_present(truth)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            precision, recall, _ = oracle.precision_recall_curve(truth[:, place], scores[:, place])
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        assert found[place] == pytest.approx(best)


def test_the_baseline_is_the_average_precision_of_a_constant(case: Case) -> None:
    truth, _ = case
    found = measure_ranking(truth, np.zeros(truth.shape))
    assert baseline_average_precision(truth) == pytest.approx(found["macro"]["average_precision"])


def test_cross_entropy_is_the_log_loss(case: Case) -> None:
    truth, scores = case
    scores = np.clip(scores, 0.01, 0.99)
    expected = np.mean([oracle.log_loss(t, s, labels=[0, 1]) for t, s in zip(truth.T, scores.T, strict=True)])
    assert cross_entropy(truth, scores) == pytest.approx(expected, rel=1e-5)
    by_patch = [oracle.log_loss(t, s, labels=[0, 1]) for t, s in zip(truth, scores, strict=True)]
    np.testing.assert_allclose(patch_cross_entropy(truth, scores), by_patch, rtol=1e-5)


def test_an_empty_split_of_labels_has_no_score() -> None:
    found = measure_ranking(np.zeros((4, 3)), np.ones((4, 3)))
    assert np.isnan(found["macro"]["average_precision"])
