"""Training on another backend than TensorFlow; `make test-backends` installs PyTorch too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.trainer.trainings import OWN_WARNINGS
from trainer import open_store
from trainer.model.networks import load_model
from trainer.score.evaluate import evaluate
from trainer.stream.buffers import BatchLayout, BatchMemory, measure_layout
from trainer.training.steps import share_memory

pytestmark = OWN_WARNINGS

_ENVIRONMENT = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}


def _command(store: Path, run: Path) -> list[str]:
    command = [sys.executable, "-m", "trainer", "fit", str(store), str(run), "--no-tensorboard"]
    return [*command, "--bands", "60m", "--epochs", "2", "--batch-size", "8", "--checkpoint-steps", "1"]


@pytest.fixture(scope="module")
def run(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that JAX finished without interruption. Evaluations may be written to it."""
    pytest.importorskip("jax")
    path = tmp_path_factory.mktemp("runs") / "run"
    subprocess.run(_command(stores["lz4"], path), check=True, env=_ENVIRONMENT)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_every_backend_trains_measures_and_predicts(backend: str, stores: dict[str, Path], tmp_path: Path) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run, store, table = tmp_path / "run", stores["lz4"], tmp_path / "predictions.parquet"
    environment = {**_ENVIRONMENT, "KERAS_BACKEND": backend}
    for command in (
        _command(store, run),
        [sys.executable, "-m", "trainer", "evaluate", str(run), "--split", "test"],
        [sys.executable, "-m", "trainer", "predict", str(run), str(store), "--split", "test", "--out", str(table)],
    ):
        subprocess.run(command, check=True, env=environment)
    assert json.loads((run / "run.json").read_text())["versions"]["backend"] == backend
    evaluation = json.loads((run / "evaluation/test.json").read_text())
    assert evaluation["patches"] == len(open_store(store).select("test"))
    rows = pq.read_table(table).column("patch_id").to_pylist()
    assert len(rows) == len(open_store(store).select("test", recommended=False))


def test_jax_trains_a_model_that_tensorflow_measures_the_same(run: Path, stores: dict[str, Path]) -> None:
    assert json.loads((run / "run.json").read_text())["versions"]["backend"] == "jax"
    result = json.loads((run / "result.json").read_text())
    assert result["validation"]["val_macro_ap"] > result["baseline_macro_ap"]
    found = evaluate(open_store(stores["lz4"]), run, "validation")
    assert found["ranking"]["macro"]["average_precision"] == pytest.approx(
        result["validation"]["val_macro_ap"], abs=1e-3
    )


@pytest.mark.slow
def test_a_killed_training_on_jax_goes_on_exactly(run: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    command = _command(stores["lz4"], tmp_path / "run")
    process = subprocess.Popen(command, env=_ENVIRONMENT, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (tmp_path / "run" / "state.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    found = subprocess.run(command, check=True, env=_ENVIRONMENT, capture_output=True, text=True)
    assert "Goes on    in epoch" in found.stderr
    expected = load_model(run / "best.keras").variables
    for variable, wanted in zip(load_model(tmp_path / "run" / "best.keras").variables, expected, strict=True):
        np.testing.assert_array_equal(variable.numpy(), wanted.numpy())


@pytest.mark.slow
def test_how_many_steps_jax_has_in_line_changes_nothing(run: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    """The other run looked at each loss before the next step, since it saved the state after each."""
    command = _command(stores["lz4"], tmp_path / "run")
    subprocess.run([*command, "--checkpoint-steps", "99"], check=True, env=_ENVIRONMENT)
    expected = load_model(run / "best.keras").variables
    for variable, wanted in zip(load_model(tmp_path / "run" / "best.keras").variables, expected, strict=True):
        np.testing.assert_array_equal(variable.numpy(), wanted.numpy())


@pytest.mark.parametrize("way", ["device_put", "a call of JAX", "TensorFlow"])
def test_memory_is_not_used_again_while_a_device_needs_it(way: str) -> None:
    """Where the device is the host, it may go on reading the very same memory, long after a call has returned."""
    jax = pytest.importorskip("jax")
    sort = jax.jit(lambda pixels: jax.numpy.sort(pixels.reshape(-1)))
    put = {"device_put": jax.device_put, "a call of JAX": sort, "TensorFlow": share_memory}[way]
    layout: BatchLayout = {"pixels": ((64, 4, 120, 120), np.uint16)}
    memory = BatchMemory(measure_layout(layout), 4)
    on_device = []
    for value in range(8):
        pixels = memory.take(layout)["pixels"]
        pixels[:] = value
        on_device.append(put(pixels))
    del pixels
    for value, values in enumerate(on_device):
        assert (np.asarray(values) == value).all()


def test_what_needs_tensorflow_says_so(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "export", str(run), str(tmp_path / "out")]
    found = subprocess.run(command, check=False, env=_ENVIRONMENT, capture_output=True, text=True)
    assert found.returncode == 1
    assert "needs Keras on TensorFlow, not on jax" in found.stderr
    assert list(tmp_path.iterdir()) == []
