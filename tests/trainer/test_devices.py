"""Training on several devices: virtual ones, since a machine for tests has one.

They must be there before JAX starts, so what needs them runs in a process of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError, keras
from trainer import OptionError, open_store
from trainer.commands.cli import cli
from trainer.model.devices import find_mesh
from trainer.model.hosts import Hosts
from trainer.model.networks import load_model
from trainer.run.folder import RunFolder
from trainer.training.events import StepTrained, TrainingStarted
from trainer.training.fit import FitOptions, fit

pytestmark = OWN_WARNINGS

_RECIPE = replace(
    RECIPE, network="tests.trainer.own:network", epochs=1, augment="symmetries", dropout=0.3, drop_path=0.3
)
"""Everything that draws at random, and batch normalisation."""
_OPTIONS = FitOptions(tensorboard=False, checkpoint_steps=3)


def _on_virtual_devices(store: Path, folder: Path) -> None:
    """Train on one and on two of three devices: at a stretch, and stopped and going on with two and with one."""
    opened = open_store(store)
    starts: dict[str, list[int]] = {}

    def run(name: str, n_devices: int) -> None:
        fit(opened, folder / name, _RECIPE, replace(_OPTIONS, devices=n_devices), _note(starts, name))

    run("one", 1)
    run("two", 2)
    with pytest.raises(StoppedError):
        fit(opened, folder / "two-two", _RECIPE, replace(_OPTIONS, devices=2), _stop)
    shutil.copytree(folder / "two-two", folder / "two-one")
    run("two-two", 2)
    run("two-one", 1)
    refusals = []
    for refused in (
        lambda: fit(opened, folder / "never", _RECIPE, replace(_OPTIONS, devices="all")),
        lambda: find_mesh(4, Hosts()),
        lambda: find_mesh(2, Hosts(0, 2)),
    ):
        with pytest.raises(OptionError) as error:
            refused()
        refusals.append(str(error.value))
    (folder / "found.json").write_text(json.dumps({"starts": starts, "refusals": refusals}))


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        child = get_context("spawn").Process(target=_on_virtual_devices, args=(stores["lz4"], folder))
        child.start()
    child.join()
    assert child.exitcode == 0
    return folder


def _read_found(runs: Path) -> Any:
    return json.loads((runs / "found.json").read_text())


def _expect(found: Path, wanted: Path, *, weights: float, scores: float) -> None:
    """Compare the models and scores of two runs, within so much."""
    names = ("loss", "val_loss", "val_macro_ap", "val_micro_ap")
    variables, records = [], []
    for run in (found, wanted):
        variables.append([variable.numpy() for variable in load_model(run / "best.keras").variables])
        result = RunFolder(run).read_result()
        assert result is not None
        records.append([result["validation"][name] for name in names])
    for one, other in zip(*variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=weights)
    assert records[0] == pytest.approx(records[1], rel=0, abs=scores)


def test_two_devices_give_what_one_gives(runs: Path) -> None:
    assert _read_found(runs)["starts"]["two"] == [2, 0, 0]
    _expect(runs / "two", runs / "one", weights=2e-3, scores=1e-4)


def test_a_training_on_two_devices_goes_on_exactly(runs: Path) -> None:
    assert _read_found(runs)["starts"]["two-two"] == [2, 0, 3]
    _expect(runs / "two-two", runs / "two", weights=0, scores=0)


def test_a_training_on_two_devices_goes_on_with_one(runs: Path) -> None:
    assert _read_found(runs)["starts"]["two-one"] == [1, 0, 3]
    _expect(runs / "two-one", runs / "one", weights=2e-3, scores=1e-4)


def test_what_the_devices_cannot_do_is_refused(runs: Path) -> None:
    unequal, too_many, several_processes = _read_found(runs)["refusals"]
    assert not (runs / "never").exists()
    assert unequal == "a batch of 8 patches cannot be shared equally by 3 devices; choose a multiple of 3, such as 6"
    assert too_many.startswith("4 devices wanted, but JAX sees 3 (")
    assert several_processes == "2 processes share each batch by all devices that they see; leave out devices"
    with pytest.raises(OptionError, match="devices must be at least 1, or all, not 0"):
        find_mesh(0, Hosts())


def test_the_command_takes_numbers_and_all(stores: dict[str, Path], tmp_path: Path) -> None:
    command = ["fit", str(stores["lz4"]), str(tmp_path / "run"), "--devices"]
    found = CliRunner().invoke(cli, [*command, "some"])
    assert found.exit_code == 2
    assert "'some' is not a valid integer" in found.stderr
    if keras.config.backend() != "jax":
        found = CliRunner().invoke(cli, [*command, "all"])
        assert found.exit_code == 1
        assert found.stderr.startswith("Error: several devices need Keras on JAX, not on tensorflow: set KERAS_BACKEND")
