"""Training on another backend than TensorFlow, if one is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.trainer.trainings import OWN_WARNINGS
from trainer import open_store
from trainer.evaluate import evaluate

pytestmark = OWN_WARNINGS


@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
def test_jax_trains_a_model_that_tensorflow_measures_the_same(stores: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "trainer", "fit", str(stores["lz4"]), str(run), "--no-tensorboard"]
    command += ["--bands", "60m", "--epochs", "2", "--batch-size", "8"]
    subprocess.run(command, check=True, env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"})
    assert json.loads((run / "run.json").read_text())["versions"]["backend"] == "jax"
    result = json.loads((run / "result.json").read_text())
    assert result["validation"]["val_macro_ap"] > result["baseline_macro_ap"]
    found = evaluate(open_store(stores["lz4"]), run, "validation")
    assert found["ranking"]["macro"]["average_precision"] == pytest.approx(
        result["validation"]["val_macro_ap"], abs=1e-3
    )
