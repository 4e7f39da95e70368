"""Training on several devices: virtual ones, since a machine for tests has one.

They must be there before TensorFlow starts, so what needs them runs in a process of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError, keras, train
from trainer import OptionError, open_store
from trainer.commands.cli import cli
from trainer.model.devices import Devices, find_devices
from trainer.model.networks import ModelCard, load_model
from trainer.run.folder import RunFolder
from trainer.training.events import StepTrained, TrainingStarted
from trainer.training.fit import FitOptions, fit
from trainer.training.steps import make_steps

pytestmark = OWN_WARNINGS

_RECIPE = replace(
    RECIPE, network="tests.trainer.own:network", epochs=1, augment="symmetries", dropout=0.3, drop_path=0.3
)
"""Everything that draws at random, and batch normalisation."""
_OPTIONS = FitOptions(tensorboard=False, devices=2, checkpoint_steps=3)


def _on_virtual_devices(store: Path, folder: Path) -> None:
    """Train on two of three devices: at a stretch, and stopped and going on."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
    opened = open_store(store)
    starts: dict[str, list[int]] = {}
    fit(opened, folder / "two", _RECIPE, _OPTIONS, _note(starts, "two"))
    with pytest.raises(StoppedError):
        fit(opened, folder / "two-two", _RECIPE, _OPTIONS, _stop)
    shutil.copytree(folder / "two-two", folder / "two-one")
    fit(opened, folder / "two-two", _RECIPE, _OPTIONS, _note(starts, "two-two"))
    losses = [_train_width(width) for width in (2, 3)]
    with pytest.raises(OptionError) as unequal:
        fit(opened, folder / "never", _RECIPE, FitOptions(devices="all"))
    with pytest.raises(OptionError) as too_many:
        fit(opened, folder / "never", _RECIPE, FitOptions(devices=4))
    refusals = [str(unequal.value), str(too_many.value)]
    (folder / "found.json").write_text(json.dumps({"starts": starts, "refusals": refusals, "losses": losses}))


def _train_width(width: int) -> float:
    """Train a step of a network whose batch normalisation has so many features."""
    devices = find_devices(2)
    with devices.scope():
        given = keras.Input((4,), name="x")
        features = keras.layers.BatchNormalization()(keras.layers.Dense(width)(given))
        model = keras.Model({"x": given}, keras.layers.Dense(1)(features))
        model.compile("sgd", "mse")
    batch = {"x": np.ones((4, 4), np.float32), "labels": np.ones((4, 1), np.float32)}
    stream: Any = SimpleNamespace(forever=lambda: repeat(batch), batch_bytes=1)
    with make_steps(model, ModelCard({"x": ("B01",)}, ()), stream, devices) as steps, devices.training(model):
        return float(steps.train(1).losses[0])


def _stop(event: Any) -> None:
    if isinstance(event, StepTrained) and event.step == 5:
        raise StoppedError


def _note(starts: dict[str, list[int]], name: str) -> Callable[[Any], None]:
    def report(event: Any) -> None:
        if isinstance(event, TrainingStarted):
            starts[name] = [event.n_devices, event.epoch, event.step]

    return report


@pytest.fixture(scope="module")
def runs(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs, by how many devices they had. Read only."""
    folder = tmp_path_factory.mktemp("devices")
    child = get_context("spawn").Process(target=_on_virtual_devices, args=(stores["lz4"], folder))
    child.start()
    train(open_store(stores["lz4"]), folder / "one", _RECIPE)
    child.join()
    assert child.exitcode == 0
    return folder


def _read(run: Path) -> tuple[list[Any], dict[str, Any]]:
    result = RunFolder(run).read_result()
    assert result is not None
    return [variable.numpy() for variable in load_model(run / "best.keras").variables], result["validation"]


def test_two_devices_give_what_one_gives(runs: Path) -> None:
    assert json.loads((runs / "found.json").read_text())["starts"]["two"] == [2, 0, 0]
    (weights, scores), (expected_weights, expected) = _read(runs / "two"), _read(runs / "one")
    for found, wanted in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    for name in ("loss", "val_loss", "val_macro_ap", "val_micro_ap"):
        assert scores[name] == pytest.approx(expected[name], abs=1e-4)


def test_a_training_on_two_devices_goes_on_exactly(runs: Path) -> None:
    assert json.loads((runs / "found.json").read_text())["starts"]["two-two"] == [2, 0, 3]
    (weights, scores), (expected_weights, expected) = _read(runs / "two-two"), _read(runs / "two")
    for found, wanted in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert scores["loss"] == expected["loss"]


def test_a_training_on_two_devices_goes_on_with_one(stores: dict[str, Path], runs: Path) -> None:
    starts: dict[str, list[int]] = {}
    options = replace(_OPTIONS, devices=1)
    fit(open_store(stores["lz4"]), runs / "two-one", _RECIPE, options, _note(starts, "two-one"))
    assert starts["two-one"] == [1, 0, 3]
    (weights, scores), (expected_weights, expected) = _read(runs / "two-one"), _read(runs / "one")
    for found, wanted in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert scores["loss"] == pytest.approx(expected["loss"], abs=1e-4)


def test_what_the_devices_cannot_do_is_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unequal, too_many = json.loads((runs / "found.json").read_text())["refusals"]
    assert unequal == "a batch of 8 patches cannot be shared equally by 3 devices; choose a multiple of 3, such as 6"
    assert too_many.startswith("4 devices wanted, but TensorFlow sees 3 (")
    assert not (runs / "never").exists()
    with pytest.raises(OptionError, match="devices must be at least 1, or all, not 0"):
        find_devices(0)
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(OptionError, match="several devices need Keras on TensorFlow, not on jax"):
        find_devices("all")


def test_networks_follow_one_another_on_the_same_devices(runs: Path) -> None:
    """Their exchanges must not be taken for one another's, which ends the second training."""
    assert json.loads((runs / "found.json").read_text())["losses"] == [1.0, 1.0]


def test_one_device_is_the_model_itself() -> None:
    model = object()
    assert Devices().spread(model) is model


def test_a_saved_model_says_nothing_of_devices(runs: Path) -> None:
    """So that JAX can load it."""
    for layer in load_model(runs / "two" / "best.keras").layers:
        assert not getattr(layer, "synchronized", False)


def test_the_command_takes_numbers_and_all(stores: dict[str, Path], tmp_path: Path) -> None:
    command = ["fit", str(stores["lz4"]), str(tmp_path / "run"), "--devices"]
    found = CliRunner().invoke(cli, [*command, "some"])
    assert found.exit_code == 2
    assert "'some' is not a valid integer" in found.stderr
    found = CliRunner().invoke(cli, [*command, "99"])
    assert found.exit_code == 1
    assert found.stderr.startswith("Error: 99 devices wanted, but TensorFlow sees")
