"""Training: what it learns, how it goes on, what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bigearthnet.errors import BusyError, OutputError
from tests.crash.disk import write_tree
from tests.crash.recorder import record
from tests.manifests import drop_classes_43, drop_splits
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError, keras, train
from trainer import OptionError, RunError, SelectionError, Store, open_store
from trainer.commands.cli import cli
from trainer.model.networks import describe_model, load_model
from trainer.run.folder import TIMES, RunFolder, describe_times
from trainer.score.metrics import macro_average_precision
from trainer.score.predict import predict_selection
from trainer.training.events import EpochEnded, StepTrained, TrainingStarted
from trainer.training.fit import FitOptions, fit

pytestmark = OWN_WARNINGS

_TIMES = ("patches_per_s", *TIMES)


@pytest.fixture(scope="module")
def trained(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the usual recipe, never interrupted. Read only."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    train(open_store(stores["lz4"]), path)
    return path


def _read_log(path: Path) -> list[dict[str, str]]:
    with open(path / "log.csv") as file:
        return [{name: value for name, value in row.items() if name not in _TIMES} for row in csv.DictReader(file)]


def _read_weights(path: Path) -> list[Any]:
    return [variable.numpy() for variable in load_model(path / "best.keras").variables]


def _assert_same(one: Path, other: Path) -> None:
    assert _read_log(one) == _read_log(other)
    for a, b in zip(_read_weights(one), _read_weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def _stop_after(n_steps: int) -> Callable[[Any], None]:
    """OnEvent to this, and the training ends after so many steps."""
    left = [n_steps]

    def report(event: Any) -> None:
        if isinstance(event, StepTrained):
            left[0] -= 1
            if left[0] == 0:
                raise StoppedError

    return report


def test_it_learns_more_than_how_frequent_labels_are(trained: Path) -> None:
    result = RunFolder(trained).read_result()
    assert result is not None
    assert result["validation"]["val_macro_ap"] > result["baseline_macro_ap"] + 0.05
    losses = [float(row["loss"]) for row in _read_log(trained)]
    assert losses[-1] < losses[0]


def test_the_saved_model_predicts_what_was_validated(trained: Path, store: Store) -> None:
    model = load_model(trained / "best.keras")
    validation = store.select("validation")
    found = predict_selection(model, describe_model(model), validation)
    result = RunFolder(trained).read_result()
    assert result is not None
    assert macro_average_precision(validation.labels, found) == pytest.approx(
        result["validation"]["val_macro_ap"], abs=1e-9
    )


def test_the_same_seed_gives_the_same_run_and_another_one_another(trained: Path, store: Store, tmp_path: Path) -> None:
    train(store, tmp_path / "again")
    _assert_same(tmp_path / "again", trained)
    train(store, tmp_path / "other", replace(RECIPE, seed=1, epochs=1))
    assert _read_log(tmp_path / "other")[0]["loss"] != _read_log(trained)[0]["loss"]


@pytest.mark.parametrize("n_steps", [2, 7, 11])
def test_a_training_that_was_stopped_goes_on_exactly(trained: Path, store: Store, tmp_path: Path, n_steps: int) -> None:
    """In the first epoch, at its end before validation, in the second epoch; between saved states."""
    options = FitOptions(tensorboard=False, checkpoint_steps=3)
    with pytest.raises(StoppedError):
        fit(store, tmp_path / "run", RECIPE, options, _stop_after(n_steps))
    events: list[Any] = []
    fit(store, tmp_path / "run", RECIPE, options, events.append)
    start = events[0]
    assert isinstance(start, TrainingStarted)
    assert (start.epoch, start.step) == {2: (0, 0), 7: (0, 6), 11: (1, 3)}[n_steps]
    assert len([event for event in events if isinstance(event, StepTrained)]) == 21 - start.epoch * 7 - start.step
    _assert_same(tmp_path / "run", trained)


def test_two_trainings_in_one_folder_are_refused(trained: Path, store: Store, tmp_path: Path) -> None:
    refused: list[str] = []

    def begin_another(event: Any) -> None:
        if isinstance(event, StepTrained) and not refused:
            assert [path.name for path in (tmp_path / "run").iterdir() if path.is_dir()] == [".lock"]
            with pytest.raises(BusyError) as found:
                RunFolder(tmp_path / "run").hold(print).__enter__()
            refused.append(str(found.value))

    fit(store, tmp_path / "run", RECIPE, FitOptions(tensorboard=False), begin_another)
    assert refused == [
        f"{tmp_path}/run: process {os.getpid()} on {socket.gethostname()} is writing there; wait for it to end, or "
        "give another folder"
    ]
    _assert_same(tmp_path / "run", trained)
    assert not (tmp_path / "run/.lock").exists()


def test_a_training_that_was_held_up_writes_nothing_more(store: Store, tmp_path: Path) -> None:
    def go_on_elsewhere(event: Any) -> None:
        if isinstance(event, StepTrained) and event.step == 2:
            (tmp_path / "run/.lock/lease.1").write_text("{}")

    with pytest.raises(OutputError, match=f"{tmp_path}/run: this process was held up, and another has gone on there"):
        fit(store, tmp_path / "run", RECIPE, FitOptions(tensorboard=False), go_on_elsewhere)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "run.json"}


def test_a_killed_process_goes_on_exactly(stores: dict[str, Path], trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "trainer", "fit", str(stores["lz4"]), str(run), "--no-tensorboard"]
    command += ["--bands", "60m", "--epochs", "3", "--batch-size", "8", "--patience", "0", "--checkpoint-steps", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (run / "state.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "result.json").exists()
    found = CliRunner().invoke(cli, command[3:])
    assert found.exit_code == 0, found.output
    assert "Goes on    in epoch" in found.stderr
    _assert_same(run, trained)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_whatever_a_power_cut_leaves_of_a_training_it_goes_on_exactly(
    trained: Path, store: Store, tmp_path: Path
) -> None:
    """With a network; the folder's own part is tried in all states by tests/crash."""
    (tmp_path / "recorded").mkdir()
    with record(tmp_path / "recorded") as recorder:
        train(store, tmp_path / "recorded" / "run", checkpoint_steps=3)
    states = list(recorder.finish().sample_states(1, 1, 2))
    for number, (tree, _) in enumerate([*states[:-24:10], *states[-24:]]):  # at the end, little is left to train
        run = tmp_path / str(number) / "run"
        write_tree(run.parent, tree)
        if not (run / "result.json").exists():
            train(store, run, checkpoint_steps=3)
            assert [path.name for path in run.iterdir() if path.name[0] == "."] == []
        _assert_same(run, trained)


def test_the_optimizer_and_the_random_draws_are_part_of_the_state(trained: Path, store: Store, tmp_path: Path) -> None:
    """Without the state, the same position gives something else: so the test above can fail."""
    options = FitOptions(tensorboard=False, checkpoint_steps=3)
    with pytest.raises(StoppedError):
        fit(store, tmp_path / "run", RECIPE, options, _stop_after(11))
    state = tmp_path / "run" / "state.npz"
    with np.load(state) as saved:
        arrays = dict(saved)
    *_, last = sorted(set(arrays) - {"note"})
    arrays[last] = arrays[last] + 1
    np.savez(state, **arrays)
    train(store, tmp_path / "run")
    assert _read_log(tmp_path / "run") != _read_log(trained)


@pytest.mark.parametrize("gpu", [None, "CPU:0"])
def test_how_many_steps_a_call_has_changes_nothing(
    trained: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str | None
) -> None:
    """Where batches are copied ahead of the training, too: the steps that were trained count, not those fetched."""
    monkeypatch.setattr("trainer.training.fit.MAX_STEPS", 1 if gpu is None else 32)
    monkeypatch.setattr("trainer.training.steps.find_gpu", lambda: gpu)
    with pytest.raises(StoppedError):
        fit(store, tmp_path / "run", RECIPE, FitOptions(tensorboard=False, checkpoint_steps=5), _stop_after(13))
    events: list[Any] = []
    fit(store, tmp_path / "run", RECIPE, FitOptions(tensorboard=False), events.append)
    assert (events[0].epoch, events[0].step) == (1, 5)
    _assert_same(tmp_path / "run", trained)


def test_an_epoch_says_where_its_time_went(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By this clock each call of the training, each validation and each state takes a second."""
    monkeypatch.setattr("trainer.training.fit.time", SimpleNamespace(perf_counter=count().__next__))
    events: list[Any] = []
    fit(store, tmp_path / "run", replace(RECIPE, epochs=2), FitOptions(tensorboard=False), events.append)
    first, second = (event.record for event in events if isinstance(event, EpochEnded))
    for epoch in (first, second):
        assert epoch["waiting_s"] > 0
        assert epoch["computing_s"] + epoch["waiting_s"] + epoch["copying_s"] == pytest.approx(7)
        assert epoch["patches_per_s"] == 8
        assert epoch["validating_s"] == 1
    assert (first["saving_s"], second["saving_s"]) == (0, 1)
    assert describe_times(second | {"waiting_s": 4, "copying_s": 1, "computing_s": 3}) == (
        "40% waiting for data, 10% copying, 30% computing, 10% validating, 10% saving"
    )


def test_a_state_that_cannot_be_written_ends_the_training(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is written in the background."""

    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(RunFolder, "save_state", refuse)
    with pytest.raises(OSError, match="no space left"):
        train(store, tmp_path / "run", replace(RECIPE, epochs=1))
    assert not (tmp_path / "run" / "result.json").exists()


def test_training_stops_when_validation_gets_no_better(store: Store, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=30, patience=1, learning_rate=1e-12, warmup_steps=0, dropout=0.0, augment="none")
    events: list[Any] = []
    options = FitOptions(tensorboard=False)
    result = fit(store, tmp_path / "run", recipe, options, events.append)
    ended = [event for event in events if isinstance(event, EpochEnded)]
    assert result["epochs"] == result["best_epoch"] + 1 < 30
    assert [event.is_best for event in ended][-2:] == [True, False]
    scores = [event.record["val_macro_ap"] for event in ended]
    assert result["validation"]["val_macro_ap"] == max(scores)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "focal", "augment": "symmetries", "resize": "bilinear", "bands": "B02,B05,B01"},
        {"pos_weight": "balanced", "augment": "none", "warmup_steps": 2, "deterministic": False},
        {"pos_weight": "3", "precision": "mixed_bfloat16", "order": "window"},
        {"precision": "mixed_float16"},
    ],
)
def test_every_part_of_a_recipe_trains(store: Store, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = replace(RECIPE, epochs=1, batch_size=20, **changes)
    result = train(store, tmp_path / "run", recipe)
    assert result["validation"]["loss"] > 0
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_a_network_of_keras_applications_trains_and_is_loaded_again(store: Store, tmp_path: Path) -> None:
    recipe = replace(RECIPE, network="mobilenet", bands="20m", epochs=1, batch_size=30)
    train(store, tmp_path / "run", recipe)
    assert describe_model(load_model(tmp_path / "run" / "best.keras")).band_names == list(
        store.describe("s2_20m").bands
    )


def test_tensorboard_gets_every_value(store: Store, tmp_path: Path) -> None:
    fit(store, tmp_path / "run", replace(RECIPE, epochs=1), FitOptions())
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    text = events.read_bytes()
    for name in _read_log(tmp_path / "run")[0]:
        assert name == "epoch" or name.encode() in text


def test_a_run_that_is_there_is_refused(trained: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="this training is finished; choose another folder"):
        train(store, trained)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(RunError, match="photos: exists and holds no training"):
        train(store, tmp_path / "photos")
    with pytest.raises(StoppedError):
        fit(store, tmp_path / "run", RECIPE, FitOptions(tensorboard=False), _stop_after(1))
    with pytest.raises(RunError, match=r"run: was begun with epochs=3, not 4; seed=0, not 5; give the same"):
        train(store, tmp_path / "run", replace(RECIPE, epochs=4, seed=5))


def test_a_run_on_another_store_is_refused(
    store: Store, tmp_path: Path, copy_store: Callable[[str], Path], stores: dict[str, Path]
) -> None:
    with pytest.raises(StoppedError):
        fit(store, tmp_path / "run", RECIPE, FitOptions(tensorboard=False), _stop_after(1))
    record = tmp_path / "run" / "run.json"
    record.write_text(record.read_text().replace(store.fingerprint, "0" * 32))
    with pytest.raises(RunError, match="was begun on another store or selection"):
        train(store, tmp_path / "run")


def test_a_checkpoint_of_another_model_is_refused(store: Store, tmp_path: Path) -> None:
    options = FitOptions(tensorboard=False, checkpoint_steps=1)
    for name, recipe in {"one": RECIPE, "other": replace(RECIPE, bands="B01")}.items():
        with pytest.raises(StoppedError):
            fit(store, tmp_path / name, recipe, options, _stop_after(2))
    shutil.copy(tmp_path / "one" / "state.npz", tmp_path / "other")
    with pytest.raises(RunError, match="belongs to another training or model"):
        fit(store, tmp_path / "other", replace(RECIPE, bands="B01"), options)
    (tmp_path / "one" / "state.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"state\.npz: damaged"):
        fit(store, tmp_path / "one", RECIPE, options)


def test_what_the_store_lacks_is_named(store: Store, tmp_path: Path, copy_store: Callable[[str], Path]) -> None:
    run = tmp_path / "run"
    with pytest.raises(OptionError, match="no band 'B99'; choose from B02"):
        train(store, run, replace(RECIPE, bands="B02,B99"))
    with pytest.raises(OptionError, match=r"no network 'resnet51'; choose from small, .*ResNet50"):
        train(store, run, replace(RECIPE, network="resnet51"))
    changed = copy_store("none")
    drop_classes_43(changed)
    with pytest.raises(OptionError, match="has no list of 43 classes"):
        train(open_store(changed), run, replace(RECIPE, labels=43))
    assert not run.exists()


def test_a_store_without_splits_is_refused(copy_store: Callable[[str], Path], tmp_path: Path) -> None:
    store = copy_store("none")
    drop_splits(store, ("train", "validation", "test"))
    with pytest.raises(SelectionError, match="no split 'train'; the store has none"):
        train(open_store(store), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_training(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss is nan in step .* lower learning rate"):
        train(store, tmp_path / "run", replace(RECIPE, learning_rate=1e30, warmup_steps=0))


def test_the_command_says_what_came_out(stores: dict[str, Path], tmp_path: Path) -> None:
    options = ["--bands", "B01", "--epochs", "1", "--batch-size", "30", "--no-tensorboard"]
    found = CliRunner().invoke(cli, ["fit", str(stores["lz4"]), str(tmp_path / "run"), *options])
    assert found.exit_code == 0, found.output
    for part in ("Validation macro AP", "Label frequency", "best.keras"):
        assert part in found.stdout
    for part in ("Baseline", "waiting for data", "val_macro_ap"):
        assert part in found.stderr
    found = CliRunner().invoke(cli, ["fit", str(stores["lz4"]), str(tmp_path / "two"), *options, "--json"])
    assert json.loads(found.stdout)["epochs"] == 1


def test_help_needs_no_tensorflow() -> None:
    code = "import sys, trainer.commands.cli; sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
