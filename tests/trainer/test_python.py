"""What the commands do is done from Python in a few lines, as the documentation shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import trainer
from tests.trainer.trainings import OWN_WARNINGS

pytestmark = OWN_WARNINGS


def test_every_name_is_there_and_no_framework_before_it_is_needed() -> None:
    code = "import sys, trainer; from trainer import Recipe, EpochEnded, FitDisplay, Stream, open_store; Recipe()\n"
    code += "print(sorted({'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"[]\n"
    assert all(getattr(trainer, name) is not None for name in trainer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = trainer.fitt


@pytest.mark.parametrize(
    ("backend", "hidden", "message"),
    [
        ("tensorflow", "keras", "keras: not installed; pip install "),
        ("tensorflow", "tensorflow", "tensorflow: not installed"),
        ("tensorflow", "tensorboard", "tensorboard: not installed"),
        ("jax", "jax", "[train,jax]"),
        ("no_backend", "", "no_backend: not installed"),
    ],
)
def test_what_is_missing_is_said_before_anything_slow(
    backend: str, hidden: str, message: str, stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {hidden!r} else find(name, *rest)
sys.argv = ["ben-train", "fit", {str(stores["lz4"])!r}, {str(tmp_path / "run")!r}]
import atexit
atexit.register(lambda: print(sorted({{"keras", "tensorflow"}} & set(sys.modules))))
from bigearthnet.commandline import ben_train
ben_train()
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "[]\n"), ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_training_says_nothing_but_its_own_lines(stores: dict[str, Path], tmp_path: Path) -> None:
    """TensorFlow has notes on its own build, on drivers and on processors."""
    command = [sys.executable, "-m", "trainer", "fit", str(stores["lz4"]), str(tmp_path / "run")]
    ended = subprocess.run([*command, "--bands", "60m", "--epochs", "1"], check=True, capture_output=True, text=True)
    own = ("Network ", "Patches ", "Train on ", "Baseline ", "Epoch 1/1 ")
    assert [line for line in ended.stderr.splitlines() if not line.startswith(own)] == []


def test_tensorboard_reads_what_was_written(stores: dict[str, Path], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records: list[dict[str, float]] = []

    def log(event: object) -> None:
        if isinstance(event, trainer.EpochEnded):
            records.append(event.record)

    recipe = trainer.Recipe(bands="60m", epochs=2, batch_size=8)
    trainer.fit(trainer.open_store(stores["lz4"]), tmp_path / "run", recipe, on_event=log)
    shown = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert [(one.step, one.value) for one in shown.Scalars("val_macro_ap")] == [
        (record["epoch"], pytest.approx(record["val_macro_ap"])) for record in records
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own libraries
def test_a_notebook_trains_with_a_bar_and_a_line_for_each_epoch(stores: dict[str, Path], tmp_path: Path) -> None:
    lines = [
        "from trainer import FitDisplay, Recipe, fit, open_store",
        "with FitDisplay() as show:",
        f"    fit(open_store({str(stores['lz4'])!r}), {str(tmp_path / 'run')!r},",
        "        Recipe(bands='60m', epochs=1, batch_size=8), on_event=show)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    NotebookClient(notebook, timeout=250, kernel_name="python3").execute()
    (cell,) = notebook.cells
    shown = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    assert "Epoch 1/1: " in shown
    assert " steps/s" in shown
    assert "val_macro_ap" in shown
    assert (tmp_path / "run/best.keras").is_file()
