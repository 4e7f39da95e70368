"""Keras models that this package did not make, once their bands, classes and scale of pixels are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn import metrics as oracle

from tests.trainer.conftest import Pixels
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, keras, train
from trainer import OptionError, RunError, Store
from trainer.commands.cli import cli
from trainer.model.plain import PlainModel
from trainer.run.folder import locate_evaluation
from trainer.score.evaluate import evaluate_plain
from trainer.score.predict import predict, predict_raw

pytestmark = OWN_WARNINGS

LAYERS = keras.layers
PLAIN = PlainModel("B04,B05,B02", "19", "reflectance")


def _save(path: Path, shape: tuple[int | None, ...], activation: str | None, n_outputs: int = 19) -> Any:
    """Save a model that looks at the mean and the first pixel of every channel."""
    given = keras.Input(shape)
    moved = given if shape[-1] == 3 else LAYERS.Permute((2, 3, 1))(given)
    corner = LAYERS.Flatten()(LAYERS.Cropping2D(((0, 119), (0, 119)))(moved)) if shape[0] is not None else None
    mean = LAYERS.GlobalAveragePooling2D()(moved)
    features = mean if corner is None else LAYERS.Concatenate()([mean, corner])
    model = keras.Model(given, LAYERS.Dense(n_outputs, activation, kernel_initializer="random_normal")(features))
    model.save(path)
    return model


def _join(pixels: Pixels, store: Store) -> Any:
    """B04, B05 and B02 of all patches as stored, (patch, row, col, band), B05 with each pixel four times."""
    ten, twenty = pixels["s2_10m"], pixels["s2_20m"]
    places = [store.describe("s2_10m").bands.index(band) for band in ("B04", "B02")]
    red, blue = (ten[:, place] for place in places)
    edge = twenty[:, store.describe("s2_20m").bands.index("B05")].repeat(2, 1).repeat(2, 2)
    return np.stack([red, edge, blue], -1).astype(np.float64)


@pytest.mark.parametrize("shape", [(120, 120, 3), (3, 120, 120), (None, None, 3)])
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_it_gets_its_bands_in_its_order_and_says_the_same(
    store: Store, pixels: Pixels, tmp_path: Path, shape: tuple[int | None, ...], activation: str | None
) -> None:
    model = _save(tmp_path / "plain.keras", shape, activation)
    found = predict(tmp_path / "plain.keras", store, plain=PLAIN)
    given = (_join(pixels, store) / 10_000).astype(np.float32)
    outputs = model.predict_on_batch(given if shape[-1] == 3 else given.transpose(0, 3, 1, 2)).astype(np.float64)
    expected = outputs if activation else 1 / (1 + np.exp(-outputs))
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-5)
    assert found.truth is not None
    assert found.classes == store.labels_19


@pytest.mark.parametrize("scale", ["stored", "standardised"])
def test_pixels_are_scaled_as_it_is_said(store: Store, pixels: Pixels, tmp_path: Path, scale: Any) -> None:
    model = _save(tmp_path / "plain.keras", (120, 120, 3), None)
    found = predict(tmp_path / "plain.keras", store, plain=PlainModel(PLAIN.bands, "19", scale))
    given = _join(pixels, store)
    if scale == "standardised":
        mean, std = store.scale_of(["B04", "B05", "B02"])
        given = (given - mean) / std
    logits = np.asarray(model.predict_on_batch(given.astype(np.float32)), np.float64)
    np.testing.assert_allclose(found.probabilities, np.asarray(keras.ops.sigmoid(logits)), atol=1e-4)


def test_it_is_measured_as_scikit_learn_does(store: Store, stores: dict[str, Path], tmp_path: Path) -> None:
    _save(tmp_path / "plain.keras", (120, 120, 3), "sigmoid")
    options = ["--store", str(stores["lz4"]), "--bands", "B04,B05,B02", "--classes", "19", "--pixels", "reflectance"]
    command = ["evaluate", str(tmp_path / "plain.keras"), *options, "--out", str(tmp_path / "out")]
    ended = CliRunner().invoke(cli, command)
    assert ended.exit_code == 0, ended.output
    assert "20 patches of test" in ended.stdout
    files = locate_evaluation(tmp_path / "out", "test")
    measured = json.loads(files.metrics.read_text())
    scores = np.array(pq.read_table(files.predictions)["probabilities"].to_pylist())
    truth = store.select("test").labels
    expected = oracle.average_precision_score(truth, scores, average="micro")
    assert measured["ranking"]["micro"]["average_precision"] == pytest.approx(expected, abs=1e-6)
    assert "at_tuned" in measured
    out = ["--out", str(tmp_path / "out.parquet")]
    ended = CliRunner().invoke(cli, ["predict", str(tmp_path / "plain.keras"), str(stores["lz4"]), *options[2:], *out])
    assert ended.exit_code == 0, ended.output
    assert "120 patches" in ended.stdout


def test_classes_of_its_own_can_be_predicted_but_not_measured(store: Store, tmp_path: Path) -> None:
    _save(tmp_path / "plain.keras", (120, 120, 3), None, 2)
    plain = PlainModel(PLAIN.bands, "Water; Land", "stored")
    assert predict(tmp_path / "plain.keras", store, plain=plain).classes == ("Water", "Land")
    with pytest.raises(OptionError, match="has no list of the classes Water; Land"):
        evaluate_plain(store, tmp_path / "plain.keras", plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_patches_in_no_store_are_predicted(real: Any, tmp_path: Path) -> None:
    _save(tmp_path / "plain.keras", (120, 120, 3), "sigmoid")
    found = predict_raw(tmp_path / "plain.keras", [real.root], plain=PLAIN)
    assert found.probabilities.shape == (6, 19)
    with pytest.raises(OptionError, match="standardised pixels need the statistics of a store"):
        predict_raw(tmp_path / "plain.keras", [real.root], plain=PlainModel("rgb", "19", "standardised"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": "rgb,B8A"}, r"expected one input of shape \(patch, 120, 120, 4\) or .* found \(None, 120, 120, 3\)"),
        ({"bands": "20m"}, r"expected one input of shape \(patch, 60, 60, 6\)"),
        ({"bands": "B04,B99,B02"}, "no band 'B99'"),
        ({"bands": "rgb,B02"}, "each band can be given once"),
        ({"classes": "43"}, r"expected one number for each of 43 classes, found outputs of shape \(None, 19\)"),
        ({"classes": "A;B;A"}, "expected each class once"),
        ({"activation": "tanh"}, "of which nobody knows whether it gives logits or probabilities"),
    ],
)
def test_what_does_not_fit_is_refused(store: Store, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _save(tmp_path / "plain.keras", (120, 120, 3), changes.pop("activation", None))
    plain = PlainModel(**({"bands": "rgb", "classes": "19", "pixels": "stored"} | changes))
    with pytest.raises(OptionError, match=message):
        predict(tmp_path / "plain.keras", store, plain=plain)


def test_an_evaluation_never_replaces_that_of_a_training(store: Store, tmp_path: Path) -> None:
    _save(tmp_path / "plain.keras", (120, 120, 3), None)
    train(store, tmp_path / "run", RECIPE)
    with pytest.raises(RunError, match="holds a training, whose evaluation this would replace"):
        evaluate_plain(store, tmp_path / "plain.keras", PLAIN, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bands", "rgb"], "a plain Keras model needs --classes and --pixels too"),
        (["--bands", "rgb", "--classes", "19", "--pixels", "stored"], "needs --store and --out too"),
        ([], "is a file: name the folder of a run"),
    ],
)
def test_what_is_not_said_of_it_is_asked_for(tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "plain.keras").touch()
    ended = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "plain.keras"), *options])
    assert ended.exit_code == 2
    assert message in ended.stderr
