"""Beginning with the weights of others: what is taken over, how the first layer is fitted, what stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bigearthnet.store.arrays import ArrayInfo
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError, keras, train
from trainer import OptionError, RunError, Store
from trainer.commands.cli import cli
from trainer.model.networks import build_model, list_networks, load_model, make_network, save_model
from trainer.model.weights import begin_with, read_weights
from trainer.run.folder import RunFolder
from trainer.run.recipe import Recipe
from trainer.training.events import StepTrained
from trainer.training.fit import FitOptions, fit

pytestmark = OWN_WARNINGS

CLASSES = ("Pastures", "Inland waters")
STILL: dict[str, Any] = {"learning_rate": 1e-12, "warmup_steps": 0, "weight_decay": 0.0}


def _build(bands: tuple[str, ...], classes: tuple[str, ...] = CLASSES, size: int = 60, **changes: Any) -> Any:
    info = ArrayInfo("s2_10m", "s2_10m", bands, (9, len(bands), size, size), (), "uint16", 4, "raw")
    scales = {"s2_10m": ([1000.0] * len(bands), [500.0] * len(bands))}
    return build_model(Recipe(**changes), [info], {"s2_10m": bands}, scales, classes)


def _read(model: Any) -> dict[str, Any]:
    (network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return {weight.path: np.array(weight) for weight in network.weights}


def test_a_model_of_the_same_bands_and_classes_begins_as_the_other_ended(tmp_path: Path) -> None:
    other = _build(("B02", "B03"), seed=1)
    save_model(other, tmp_path / "best.keras")
    pixels = {"s2_10m": np.random.default_rng(0).integers(0, 5000, (3, 2, 60, 60), np.uint16)}
    for weights in (str(tmp_path), str(tmp_path / "best.keras")):
        model = _build(("B02", "B03"), seed=2)
        assert not np.allclose(model.predict_on_batch(pixels), other.predict_on_batch(pixels))
        begin_with(model, read_weights(Recipe(weights=weights)))
        np.testing.assert_array_equal(model.predict_on_batch(pixels), other.predict_on_batch(pixels))


def test_the_first_kernel_is_fitted_to_the_bands(tmp_path: Path) -> None:
    other = _build(("B02", "B03", "B04"))
    save_model(other, tmp_path / "other.keras")
    model = _build(("B04", "B8A", "B02", "B11", "B12"), ("Pastures",))
    head = np.array(model.get_layer("logits").kernel)
    begin_with(model, read_weights(Recipe(weights=str(tmp_path / "other.keras"))))
    kernel = np.array(other.get_layer("small").get_layer("conv1").kernel)
    mean = kernel.mean(2)
    expected = np.stack([kernel[:, :, 2], mean, kernel[:, :, 0], mean, mean], 2) * 3 / 5
    np.testing.assert_allclose(model.get_layer("small").get_layer("conv1").kernel, expected, rtol=1e-6)
    np.testing.assert_array_equal(model.get_layer("logits").kernel, head)
    for path, values in list(_read(other).items())[1:]:
        np.testing.assert_array_equal(_read(model)[path], values)


def test_the_same_bands_in_another_order_see_the_same(tmp_path: Path) -> None:
    other = _build(("B02", "B03", "B04"))
    save_model(other, tmp_path / "other.keras")
    model = _build(("B04", "B02", "B03"))
    begin_with(model, read_weights(Recipe(weights=str(tmp_path / "other.keras"))))
    pixels = np.random.default_rng(0).integers(0, 5000, (3, 3, 60, 60), np.uint16)
    np.testing.assert_allclose(
        model.predict_on_batch({"s2_10m": pixels[:, [2, 0, 1]]}), other.predict_on_batch({"s2_10m": pixels}), rtol=1e-4
    )


SLOW = pytest.mark.slow

STEMS = {
    "ResNet50": ("resnet", "conv1_conv"),
    "DenseNet121": ("densenet", "conv1_conv"),
    "MobileNetV2": ("mobilenet_v2", "Conv1"),
}
"""Where Keras scales images for a network, and its first layer."""


@pytest.mark.parametrize(
    "name", ["ResNet50", *(pytest.param(name, marks=SLOW) for name in STEMS if name != "ResNet50")]
)
def test_weights_of_imagenet_see_colours_as_they_did(name: str, tmp_path: Path) -> None:
    """What the first layer makes of an image, less what it makes of one that is even, is what it makes of ours."""
    module, stem = STEMS[name]
    make_network(name, (64, 64, 3)).save_weights(tmp_path / "notop.weights.h5")
    options: dict[str, Any] = {"include_top": False, "weights": str(tmp_path / "notop.weights.h5")}
    source = list_networks()[name](input_shape=(64, 64, 3), **options)
    normal = np.random.default_rng(0).normal(0, 1, (2, 64, 64, 3)).astype(np.float32)
    mean = 255 * np.array([0.485, 0.456, 0.406])
    images = np.stack([np.broadcast_to(mean, normal.shape), mean + 58 * normal])
    scaled = [getattr(keras.applications, module).preprocess_input(image.copy()) for image in images]
    look = keras.Model(source.input, source.get_layer(stem).output).predict_on_batch
    expected = look(scaled[1]) - look(scaled[0])
    model = _build(("B02", "B03", "B04"), size=64, network=name, augment="none")
    begin_with(model, read_weights(Recipe(network=name, weights=options["weights"])))
    (network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    look = keras.Model(network.input, network.get_layer(stem).output).predict_on_batch
    found = look(normal[..., ::-1]) - look(np.zeros_like(normal))
    deviation = 0.02 if name == "DenseNet121" else 1e-4  # its colours have deviations of 57.1 to 58.4
    np.testing.assert_allclose(found, expected, atol=deviation * np.abs(expected).max())


@pytest.mark.parametrize("drop_path", [0.0, pytest.param(0.2, marks=SLOW)])
def test_weights_are_taken_over_with_and_without_drop_path(tmp_path: Path, drop_path: float) -> None:
    """EfficientNet, which has statistics of pixels of its own, and blocks in which layers stand side by side."""
    other = make_network("EfficientNetB0", (64, 64, 3))
    other.save_weights(tmp_path / "notop.weights.h5")
    recipe = Recipe(network="EfficientNetB0", weights=str(tmp_path / "notop.weights.h5"))
    model = _build(("B04", "B03", "B02"), size=64, network="EfficientNetB0", drop_path=drop_path)
    begin_with(model, read_weights(recipe))
    found = _read(model)
    for weight in other.weights:
        if not weight.path.startswith("normalization"):
            np.testing.assert_array_equal(found[weight.path], weight)
    save_model(model, tmp_path / "best.keras")
    again = _build(("B04", "B03", "B02"), size=64, network="EfficientNetB0", drop_path=0.2 - drop_path, seed=3)
    begin_with(again, read_weights(Recipe(network="EfficientNetB0", weights=str(tmp_path))))
    for path, values in _read(again).items():
        assert path.startswith("normalization") or (values == found[path]).all(), path


def test_frozen_layers_keep_their_weights_and_their_statistics(store: Store, tmp_path: Path) -> None:
    train(store, tmp_path / "first", replace(RECIPE, epochs=1))
    recipe = replace(RECIPE, epochs=1, seed=4, weights=str(tmp_path / "first"), freeze="conv1*,conv2*")
    train(store, tmp_path / "second", recipe)
    before, after = (_read(load_model(tmp_path / name / "best.keras")) for name in ("first", "second"))
    for path, values in before.items():
        assert (after[path] == values).all() == path.startswith(("conv1", "conv2")), path


def test_all_but_the_last_layer_can_be_frozen(store: Store, tmp_path: Path) -> None:
    train(store, tmp_path / "run", replace(RECIPE, epochs=1, freeze="*"))
    model = load_model(tmp_path / "run" / "best.keras")
    assert [weight.path for weight in model.trainable_weights] == ["logits/kernel", "logits/bias"]


def test_the_command_takes_weights_layers_and_drop_path(stores: dict[str, Path], tmp_path: Path) -> None:
    common = ["--bands", "60m", "--epochs", "1", "--batch-size", "20", "--no-tensorboard"]
    network = ["--network", "tests.trainer.own:network", "--drop-path", "0.2"]
    for name, options in {"first": [], "second": ["--weights", str(tmp_path / "first"), "--freeze", "stem,b*"]}.items():
        command = ["fit", str(stores["lz4"]), str(tmp_path / name), *common, *network, *options]
        ended = CliRunner().invoke(cli, command)
        assert ended.exit_code == 0, ended.output
    before, after = (_read(load_model(tmp_path / name / "best.keras")) for name in ("first", "second"))
    kept = {path for path, values in before.items() if "seed" not in path and (after[path] == values).all()}
    assert kept == {"stem/kernel", "stem/bias", "branch/kernel", "branch/bias"}


def test_a_training_does_not_go_on_with_other_weights(store: Store, tmp_path: Path) -> None:
    def stop(event: Any) -> None:
        if isinstance(event, StepTrained):
            raise StoppedError

    model = tmp_path / "other.keras"
    for number, seed in enumerate((1, 1, 2)):
        train(store, tmp_path / f"other-{number}", replace(RECIPE, epochs=1, seed=seed, learning_rate=1e-12))
    recipe = replace(RECIPE, epochs=1, weights=str(model))
    model.write_bytes((tmp_path / "other-0" / "best.keras").read_bytes())
    with pytest.raises(StoppedError):
        fit(store, tmp_path / "run", recipe, FitOptions(tensorboard=False), stop)
    assert set(RunFolder(tmp_path / "run").read_record().sources) == {"weights"}
    model.write_bytes((tmp_path / "other-2" / "best.keras").read_bytes())
    with pytest.raises(RunError, match=r"was begun when weights=.*other\.keras was another"):
        train(store, tmp_path / "run", recipe)
    model.write_bytes((tmp_path / "other-1" / "best.keras").read_bytes())
    train(store, tmp_path / "run", recipe)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": "nowhere"}, OptionError, "weights=nowhere: there is no such run or file; or choose imagenet"),
        ({"weights": "imagenet"}, OptionError, "for a network of keras.applications imagenet or an .h5 file"),
        ({"weights": "FOLDER"}, RunError, "there is no model"),
        ({"weights": "FOLDER/text.h5", "network": "ResNet50"}, RunError, "cannot be loaded for ResNet50"),
        ({"weights": "FOLDER/text.txt", "network": "ResNet50"}, OptionError, "expected the folder of a run"),
        ({"weights": "FOLDER/other.keras", "network": "MobileNet"}, RunError, "those of another network: they have"),
        ({"freeze": "conv9"}, OptionError, "no layer 'conv9'; its layers are conv1, conv1_bn, conv2"),
    ],
)
def test_weights_and_layers_that_are_not_there_are_refused(
    store: Store, tmp_path: Path, changes: dict[str, str], error: type[Exception], message: str
) -> None:
    (tmp_path / "text.h5").write_text("no weights")
    (tmp_path / "text.txt").write_text("no weights")
    save_model(_build(("B01", "B09")), tmp_path / "other.keras")
    given: dict[str, Any] = {name: value.replace("FOLDER", str(tmp_path)) for name, value in changes.items()}
    with pytest.raises(error, match=message.replace(".", r"\.")):
        train(store, tmp_path / "run", replace(RECIPE, **given, bands="20m" if "network" in given else "60m"))
    assert not (tmp_path / "run").exists()


def test_imagenet_without_internet_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise Exception("URL fetch failure on https://storage.example/notop.h5: None")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", fail)
    with pytest.raises(RunError, match=r"weights=imagenet: cannot be loaded for MobileNet \(URL fetch failure.*notop"):
        read_weights(Recipe(network="MobileNet", weights="imagenet"))
