"""Layers against NumPy, and through a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigearthnet.store.arrays import ArrayInfo
from tests.trainer.trainings import OWN_WARNINGS, keras
from trainer import OptionError, RunError
from trainer.model.layers import ClassLogits, RandomSymmetry, StandardizeBands, WeightedCrossEntropy
from trainer.model.networks import build_model, describe_model, list_networks, load_model, save_model
from trainer.run.recipe import Recipe
from trainer.source.turns import turn_patch

pytestmark = OWN_WARNINGS

CLASSES = ("Urban fabric", "Pastures", "Inland waters")


def _info(name: str, bands: tuple[str, ...], size: int) -> ArrayInfo:
    return ArrayInfo(name, name, bands, (9, len(bands), size, size), (), "uint16", 4, "raw")


ARRAYS = (_info("s2_10m", ("B02", "B03"), 120), _info("s2_60m", ("B01",), 20))
BANDS = {info.name: info.bands for info in ARRAYS}
SCALES = {"s2_10m": ([100.0, 200.0], [10.0, 20.0]), "s2_60m": ([50.0], [5.0])}


def _build(**changes: Any) -> Any:
    return build_model(Recipe(**changes), ARRAYS, BANDS, SCALES, CLASSES)


def _pixels(n_patches: int = 2) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        info.name: random.integers(0, 2**16, (n_patches, len(info.bands), info.n_rows, info.n_rows), np.uint16)
        for info in ARRAYS
    }


def test_pixels_are_standardised_without_wrapping() -> None:
    pixels = _pixels()["s2_10m"]
    found = StandardizeBands(("B02", "B03"), [30_000, 100], [10.0, 0.0])(pixels).numpy()
    expected = (pixels.astype(np.float64) - np.array([30_000, 100])[:, None, None]) / np.array([10, 1])[:, None, None]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-5)


@pytest.mark.parametrize(("transpose", "n_kinds"), [(False, 4), (True, 8)])
def test_training_patches_are_moved_by_each_symmetry(transpose: bool, n_kinds: int) -> None:
    patch = np.arange(3 * 5 * 5, dtype=np.float32).reshape(1, 5, 5, 3)
    layer = RandomSymmetry(transpose=transpose, seed=4)
    batch = np.repeat(patch, 200, 0)
    found = {moved.tobytes() for moved in layer(batch, training=True).numpy()}
    symmetries = {
        np.ascontiguousarray(np.moveaxis(turn_patch(np.moveaxis(patch[0], -1, 0), number), 0, -1)).tobytes()
        for number in range(8)
    }
    assert len(found) == n_kinds
    assert found <= symmetries
    np.testing.assert_array_equal(layer(batch, training=False), batch)


def test_the_weighted_loss_is_that_of_the_formula() -> None:
    truth = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    logits = np.array([[0.3, -2, 40], [-50, 3, 0]], np.float32)
    weight = np.array([1, 5, 3])
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    with np.errstate(divide="ignore"):
        losses = np.where(truth > 0, -weight * np.log(probability), -np.log1p(-probability))
    found = WeightedCrossEntropy(weight.tolist())(truth, logits)
    assert float(found) == pytest.approx(losses.mean(), rel=1e-5)
    plain = keras.losses.BinaryCrossentropy(from_logits=True)(truth, logits)
    assert float(WeightedCrossEntropy([1.0] * 3)(truth, logits)) == pytest.approx(float(plain), rel=1e-6)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_saved_model_predicts_the_same_and_knows_itself(tmp_path: Path, precision: Any) -> None:
    model = _build(augment="symmetries", precision=precision)
    save_model(model, tmp_path / "best.keras")
    loaded = load_model(tmp_path / "best.keras")
    card = describe_model(loaded)
    assert dict(card.bands) == BANDS
    assert card.classes == CLASSES
    found = loaded.predict_on_batch(_pixels())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, model.predict_on_batch(_pixels()))
    assert loaded.get_layer("s2_60m_standardized").mean == [50.0]


def test_a_model_is_saved_as_it_was_when_training_goes_on_meanwhile(tmp_path: Path) -> None:
    model = _build()
    values = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    expected = model.predict_on_batch(_pixels())
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    save_model(model, tmp_path / "best.keras", values)
    np.testing.assert_array_equal(load_model(tmp_path / "best.keras").predict_on_batch(_pixels()), expected)
    assert (model.predict_on_batch(_pixels()) != expected).any()


def test_resizing_keeps_pixels_where_they_are() -> None:
    model = _build(augment="none")
    joined = keras.Model(model.input, next(layer for layer in model.layers if "concatenate" in layer.name).output)
    pixels = _pixels()
    found = joined.predict_on_batch(pixels)
    expected = np.kron((pixels["s2_60m"][:, 0].astype(np.float32) - 50) / 5, np.ones((6, 6)))
    np.testing.assert_allclose(found[..., 2], expected, rtol=1e-5)


@pytest.mark.parametrize("network", ["EfficientNetB0", "convnexttiny", "MobileNetV3Small", "ResNet50"])
def test_networks_of_keras_applications_take_any_number_of_bands(network: str) -> None:
    assert _build(network=network).output.shape == (None, len(CLASSES))


def test_there_are_many_networks() -> None:
    assert {"ResNet50", "EfficientNetV2S", "DenseNet121", "ConvNeXtTiny"} <= set(list_networks())


def test_a_network_that_wants_larger_patches_says_so() -> None:
    small = (ARRAYS[1],)
    with pytest.raises(OptionError, match=r"network InceptionV3 does not take patches of shape \(20, 20, 1\)"):
        build_model(Recipe(network="InceptionV3"), small, {"s2_60m": ("B01",)}, SCALES, CLASSES)


def test_what_is_no_model_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no model"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(RunError, match=r"text\.keras: cannot be loaded as a model"):
        load_model(tmp_path / "text.keras")
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.keras")
    with pytest.raises(RunError, match=r"other\.keras: the model was not made by `ben-train fit`"):
        load_model(tmp_path / "other.keras")


def test_the_last_layer_stays_float32() -> None:
    assert ClassLogits(CLASSES, dtype="float16").compute_dtype == "float32"
