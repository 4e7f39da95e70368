"""Evaluation of a finished training, against scikit-learn over the predictions that it wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn import metrics as oracle

from tests.trainer.trainings import OWN_WARNINGS, RECIPE, train
from trainer import RunError, SelectionError, Store, open_store
from trainer.commands.cli import cli
from trainer.run.folder import locate_evaluation
from trainer.score.evaluate import evaluate, measure_predictions
from trainer.score.metrics import tune_thresholds

pytestmark = OWN_WARNINGS


@pytest.fixture(scope="module")
def run(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Evaluations may be written to it."""
    path = tmp_path_factory.mktemp("runs") / "run"
    train(open_store(stores["lz4"]), path, replace(RECIPE, epochs=1))
    return path


def _read(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Return truth and probabilities as the Parquet file has them, and its metadata."""
    table = pq.read_table(path)
    note = {name.decode(): json.loads(value) for name, value in table.schema.metadata.items()}
    truth = np.array([[name in labels for name in note["classes"]] for labels in table["labels"].to_pylist()])
    return truth, np.array(table["probabilities"].to_pylist()), note


def test_the_numbers_are_those_of_scikit_learn_on_the_predictions(run: Path, store: Store) -> None:
    found = evaluate(store, run)
    files = locate_evaluation(run, "test")
    assert json.loads(files.metrics.read_text()) == found
    truth, scores, note = _read(files.predictions)
    assert truth.tolist() == (store.select("test").labels > 0).tolist()
    present = np.flatnonzero(truth.any(0))
    expected = oracle.average_precision_score(truth[:, present], scores[:, present], average="macro")
    assert found["ranking"]["macro"]["average_precision"] == pytest.approx(expected, abs=1e-6)
    for title, threshold in {"at_0.5": 0.5, "at_tuned": np.array(note["thresholds"])}.items():
        predicted = scores >= threshold
        for beta, metric in {1: "f1", 2: "f2"}.items():
            expected = oracle.fbeta_score(truth, predicted, beta=beta, average="macro", labels=present, zero_division=0)
            assert found[title]["macro"][metric] == pytest.approx(expected, abs=1e-6)
    assert found["absent_classes"] == [note["classes"][place] for place in np.flatnonzero(~truth.any(0))]
    assert found["absent_classes"]
    for name in found["absent_classes"]:
        assert found["classes"][name]["average_precision"] is None
        assert found["classes"][name]["support"] == 0


def test_thresholds_come_from_validation_alone(run: Path, store: Store) -> None:
    evaluate(store, run, "test")
    found = evaluate(store, run, "validation")
    assert "at_tuned" not in found
    truth, scores, _ = _read(locate_evaluation(run, "validation").predictions)
    _, _, note = _read(locate_evaluation(run, "test").predictions)
    assert note["thresholds"] == pytest.approx(tune_thresholds(truth, scores.astype(np.float32)).tolist())


def test_the_best_epoch_is_measured_again(run: Path, store: Store) -> None:
    result = json.loads((run / "result.json").read_text())
    found = evaluate(store, run, "validation")
    assert found["ranking"]["macro"]["average_precision"] == pytest.approx(result["validation"]["val_macro_ap"])


def test_slices_cover_the_split_and_are_measured_by_themselves(run: Path, store: Store) -> None:
    found = evaluate(store, run)
    truth, scores, note = _read(locate_evaluation(run, "test").predictions)
    table = pq.read_table(locate_evaluation(run, "test").predictions)
    countries = np.array(table["country"].to_pylist())
    assert set(found["slices"]) == {"country", "season"}
    assert set(found["slices"]["country"]) == set(countries.tolist())
    for country, values in found["slices"]["country"].items():
        rows = countries == country
        whole = measure_predictions(truth[rows], scores[rows], tuple(note["classes"]), np.array(note["thresholds"]))
        assert values["patches"] == rows.sum()
        assert values["macro_average_precision"] == pytest.approx(whole["ranking"]["macro"]["average_precision"])
        assert values["micro_f1"] == pytest.approx(whole["at_tuned"]["micro"]["f1"])


def test_predictions_name_patches_and_classes(run: Path, store: Store) -> None:
    evaluate(store, run)
    table = pq.read_table(locate_evaluation(run, "test").predictions)
    ids = pq.read_table(store.table, columns=["patch_id"])["patch_id"].to_pylist()
    assert [ids[index] for index in table["index"].to_pylist()] == table["patch_id"].to_pylist()
    _, scores, note = _read(locate_evaluation(run, "test").predictions)
    expected = [
        [name for name, is_there in zip(note["classes"], row, strict=True) if is_there]
        for row in scores >= np.array(note["thresholds"])
    ]
    assert table["predicted"].to_pylist() == expected


def test_the_command_prints_and_says_what_is_left_out(run: Path) -> None:
    found = CliRunner().invoke(cli, ["evaluate", str(run)])
    assert found.exit_code == 0, found.output
    for part in (
        "20 patches of test",
        "f2 at tuned",
        "subset accuracy at 0.5",
        "left out of the macro means",
        "test.json",
    ):
        assert part in found.stdout
    found = CliRunner().invoke(cli, ["evaluate", str(run), "--split", "validation", "--json"])
    assert json.loads(found.stdout)["split"] == "validation"


def test_what_does_not_belong_together_is_refused(
    run: Path, store: Store, tmp_path: Path, copy_store: Callable[[str], Path]
) -> None:
    with pytest.raises(RunError, match=r"there is no run\.json"):
        evaluate(store, tmp_path)
    with pytest.raises(SelectionError, match="no split 'tset'"):
        evaluate(store, run, "tset")
    train(store, tmp_path / "other", replace(RECIPE, epochs=1, bands="B01"))
    shutil.copy(run / "best.keras", tmp_path / "other")
    with pytest.raises(RunError, match="is the model of another training: it takes B01, B09"):
        evaluate(store, tmp_path / "other")
    with pytest.raises(RunError, match=r"is not the store that .* was trained on"):
        evaluate(replace(store, fingerprint="0" * 32), run)
    with pytest.raises(RunError, match=r"the model has 19 classes .* which are not among the 18 and 43 of the store"):
        evaluate(replace(store, labels_19=store.labels_19[1:]), run)
    (tmp_path / "other" / "best.keras").unlink()
    with pytest.raises(RunError, match="there is no model"):
        evaluate(store, tmp_path / "other")
