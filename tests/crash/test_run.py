"""Whatever a power cut leaves of the folder of a training, it goes on exactly."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bigearthnet.errors import RunError
from bigearthnet.files import write_new
from tests.archives import read_files
from tests.crash.disk import Tree, write_tree
from tests.crash.recorder import KilledError, Recorder, record
from tests.crash.trial import Trial, list_differences
from trainer.run.folder import RECORDED, Position, RunFolder, RunRecord
from trainer.run.recipe import Recipe

RECORD = RunRecord(
    recipe=Recipe(epochs=3),
    fingerprint="0" * 32,
    train="train",
    validation="validation",
    n_patches={"train": 2, "validation": 1},
    bands={"s2_60m": ("B01",)},
    classes=("one", "other"),
    store="store",
    command="",
    versions={},
    provenance={},
)
SCORES = (0.5, 0.7, 0.6)
"""Of the epochs. The best is neither the first nor the last."""


def train(path: Path, promise: Callable[[str], None] = lambda _: None) -> set[str]:
    """Train as `fit` does, with some arithmetic in place of a network; returns the steps that were taken."""
    taken: set[str] = set()
    folder = RunFolder(path)
    try:
        folder.begin(RECORD)
    except RunError as error:
        if "this training is finished" not in str(error):
            raise
        promise("the result")
        return taken
    weights = np.arange(300.0)
    at, (weights,) = folder.load_state(RECORD.digest, [weights]) or (Position(), [weights])
    while not at.is_over(RECORD.recipe):
        while at.step < 2:
            weights = weights * 1.5 + at.epoch
            at.step += 1
            taken.add(f"step {at.epoch}.{at.step}")
            if at.step == 1:
                folder.save_state(RECORD.digest, at, [weights])
                promise(f"step {at.epoch}.{at.step}")
        score = SCORES[at.epoch]
        scores = {"epoch": at.epoch + 1, "val_macro_ap": score, "loss": float(weights.sum())}
        at.history.append(dict.fromkeys(RECORDED, 0.0) | scores)
        folder.write_log(at.history)
        if score > at.best_score:
            at.best_epoch, at.best_score = at.epoch, score
            with write_new(folder.model_path, overwrite=True) as temporary:
                temporary.write_bytes(weights.tobytes())
        at.epoch, at.step = at.epoch + 1, 0
        folder.save_state(RECORD.digest, at, [weights])
        promise(f"step {at.epoch - 1}.2")
    folder.finish({"best_epoch": at.best_epoch + 1, "validation": at.history[at.best_epoch]})
    promise("the result")
    return taken


def record_training(folder: Path, kill_at: int | None = None) -> Recorder:
    """Record the training; killed at a step, it goes on."""
    folder.mkdir()
    with record(folder) as recorder:
        recorder.kill_at = kill_at
        with suppress(KilledError):
            train(folder / "run", recorder.promise)
        if kill_at is not None:
            recorder.kill_at = None
            train(folder / "run", recorder.promise)
    return recorder


class RunTrial(Trial):
    """Tries what power cuts leave of the training."""

    def __init__(self, folder: Path, expected: dict[str, bytes]) -> None:
        super().__init__(folder)
        self.expected = expected

    def examine(self, tree: Tree, promised: tuple[str, ...]) -> str | None:
        finished = "run/result.json" in tree
        if "the result" in promised and not finished:
            return "the result is not there any more"
        shutil.rmtree(self.folder, ignore_errors=True)
        write_tree(self.folder, tree)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: None)
            try:
                again = train(self.folder / "run").intersection(promised)
            except Exception as error:  # noqa: BLE001 - any is a fault
                return f"{type(error).__name__}: {error}".replace(str(self.folder), "")
        found = read_files(self.folder / "run")
        if finished:  # what only an unfinished training needs does no harm
            found.pop("state.npz", None)
        if found != self.expected:
            return f"other files: {list_differences(found, self.expected)}"
        return f"what was saved is done again: {sorted(again)}" if again else None


@pytest.fixture
def trial(tmp_path: Path) -> RunTrial:
    train(tmp_path / "whole")
    return RunTrial(tmp_path / "left", read_files(tmp_path / "whole"))


def test_whatever_a_power_cut_leaves_a_training_goes_on_exactly(trial: RunTrial, tmp_path: Path) -> None:
    taken = record_training(tmp_path / "recorded").finish()
    faults = Counter(trial.find_fault(*state) for state in taken.sample_states(1, 1000, 100))
    print(f"{len(trial.known):,} states after any of {len(taken.operations)} operations tried")
    assert set(faults) == {None}, faults


def test_every_flush_of_a_training_is_needed(trial: RunTrial, tmp_path: Path) -> None:
    """Without one flush of each line that flushes something, there is a power cut that does harm."""
    whole = record_training(tmp_path / "recorded")
    trial.leave_out_flushes(whole.finish(), again=True, n_states=1000)
    for step in (2, whole.n_steps - 1):  # the folder and the result are there, not flushed
        taken = record_training(tmp_path / f"killed {step}", kill_at=step).finish()
        trial.leave_out_flushes(taken, again=False, n_states=1000)
    print(f"{trial.n_flushes} flushes left out, one at a time: {len(trial.known):,} states tried")
    assert trial.needless == []


def test_a_training_killed_at_any_step_survives_a_power_cut_at_its_end(trial: RunTrial, tmp_path: Path) -> None:
    n_steps = record_training(tmp_path / "whole run").n_steps
    faults = Counter[str]()
    for step in range(1, n_steps + 1):
        *_, disk = record_training(tmp_path / str(step), kill_at=step).finish().replay()
        for tree in disk.list_survivors(10, random.Random(0)):
            if fault := trial.find_fault(tree, disk.promised):
                faults[f"killed at {step}: {fault}"] += 1
    print(f"killed at any of {n_steps} steps, {len(trial.known):,} states tried")
    assert faults == {}
