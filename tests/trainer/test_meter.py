"""What trained, and the energy it drew: counters as Linux shows them, and in place of the driver of a GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigearthnet.machine import count_cores
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, train
from trainer import Store
from trainer.run.folder import RunFolder
from trainer.training.events import StepTrained
from trainer.training.meter import survey_devices

pytestmark = OWN_WARNINGS


@pytest.fixture
def processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two processors, with a core of one of them, which counts within it."""
    folders = [tmp_path / name for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0")]
    for folder in folders:
        folder.mkdir()
        (folder / "energy_uj").write_text("5000000\n")
    monkeypatch.setattr("trainer.training.meter._PACKAGES", tmp_path)
    return [folder / "energy_uj" for folder in folders]


def draw(counter: Path, joules: int) -> None:
    counter.write_text(str(int(counter.read_text()) + joules * 1_000_000))


def test_each_epoch_says_what_energy_it_drew(processors: list[Path], store: Store, tmp_path: Path) -> None:
    def on_event(event: object) -> None:
        if isinstance(event, StepTrained) and event.step == 1:
            for counter in processors:
                draw(counter, 10 * (event.epoch + 1))

    train(store, tmp_path / "run", on_event=on_event)
    folder = RunFolder(tmp_path / "run")
    assert [record["energy_j"] for record in folder.read_log()] == [20 * epoch for epoch in range(1, RECIPE.epochs + 1)]
    result = folder.read_result()
    assert result is not None
    (device,) = result["devices"]
    assert device.startswith(f"{count_cores()} core")


def test_a_counter_that_begins_anew_or_fails_ends_no_training(processors: list[Path]) -> None:
    _, meter = survey_devices(1)
    draw(processors[0], -3)
    draw(processors[1], 2)
    assert meter.take_j() == 2
    processors[0].unlink()
    assert meter.take_j() == 0
    processors[0].write_text("9000000")
    assert meter.take_j() == 0


class Driver:
    """A driver of two GPUs, which draw a joule each time they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._millijoules: Iterator[int] = count(7_000, 1_000)

    def nvmlInit(self) -> None:  # noqa: N802 - NVIDIA's name
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVIDIA's name
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802 - NVIDIA's name
        return f"GPU {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802 - NVIDIA's name
        return uuid

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802 - NVIDIA's name
        return f"NVIDIA of {handle}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802 - NVIDIA's name
        self.asked.append(handle)
        return next(self._millijoules)


@pytest.mark.parametrize(
    ("visible", "n_devices", "asked"),
    [
        (None, 1, ["GPU 0"]),
        (None, 2, ["GPU 0", "GPU 1"]),
        ("1,0", 1, ["GPU 1"]),
        ("GPU-4a,GPU-77", 2, ["GPU-4a", "GPU-77"]),
    ],
)
def test_the_gpus_that_train_are_asked(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, n_devices: int, asked: list[str]
) -> None:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr("trainer.training.meter.keras.distribution.list_devices", lambda: ["gpu:0", "gpu:1"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", visible)
    named, meter = survey_devices(n_devices)
    assert named == f"{n_devices} NVIDIA of {asked[0]}"
    assert driver.asked == asked
    assert meter.take_j() == n_devices * n_devices


def test_gpus_without_a_driver_that_tells_are_named_by_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace())
    monkeypatch.setattr("trainer.training.meter.keras.distribution.list_devices", lambda: ["gpu:0"])
    named, meter = survey_devices(1)
    assert named == "1 GPU"
    assert meter.take_j() == 0
