"""Bad input on the command line: exit code 1, nothing on stdout, one message that says what and what to do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import drop_classes_43, drop_splits
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError, keras, train
from trainer import open_store
from trainer.__main__ import main
from trainer.training.events import StepTrained
from trainer.training.fit import FitOptions, fit

pytestmark = OWN_WARNINGS

_OPTIONS = ("--bands", "60m", "--epochs", "1", "--batch-size", "8", "--patience", "0", "--no-tensorboard")

Places = Mapping[str, Path]
"""What the commands are given."""


@pytest.fixture(scope="module")
def places(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Good and bad stores, runs and models. Read only: every command here is refused."""
    folder = tmp_path_factory.mktemp("places")
    opened = open_store(stores["lz4"])
    train(opened, folder / "finished", replace(RECIPE, epochs=1))
    for name, bands in {"begun": "60m", "foreign": "B01"}.items():
        with pytest.raises(StoppedError):
            fit(opened, folder / name, replace(RECIPE, epochs=1, bands=bands), _EACH_STEP, _stop)
    shutil.copy(folder / "begun" / "state.npz", folder / "foreign")
    for name in ("no-43", "no-split", "no-test", "no-b09"):
        shutil.copytree(stores["lz4"], folder / name)
    drop_classes_43(folder / "no-43")
    drop_splits(folder / "no-split", ("train", "validation", "test"))
    drop_splits(folder / "no-test", ("test",))
    (folder / "text.keras").write_text("no model")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(folder / "other.keras")
    (folder / "empty").mkdir()
    return {path.name: path for path in folder.iterdir()} | {"store": stores["lz4"], "new": folder / "new"}


_EACH_STEP = FitOptions(tensorboard=False, checkpoint_steps=1)


def _stop(event: Any) -> None:
    if isinstance(event, StepTrained) and event.step == 2:
        raise StoppedError


CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "no store": (("fit", "{empty}", "{new}"), "expected a finished store (manifest.json), found none"),
    "unknown band": (("fit", "{store}", "{new}", "--bands", "B99"), "no band 'B99'; choose from B02"),
    "unknown network": (("fit", "{store}", "{new}", "--network", "vgg"), "no network 'vgg'; choose from small"),
    "wrong classes": (("fit", "{no-43}", "{new}", *_OPTIONS, "--labels", "43"), "has no list of 43 classes"),
    "no split": (("fit", "{no-split}", "{new}", *_OPTIONS), "no split 'train'; the store has none"),
    "no test split": (
        ("compare", "{no-test}", "{new}", "--bands", "B01", "--bands", "B09", "--seeds", "2"),
        "no split 'test'; the store has train, validation",
    ),
    "small store": (
        ("fit", "{store}", "{new}", "--batch-size", "99"),
        "60 training patches do not fill one batch of 99",
    ),
    "finished run": (("fit", "{store}", "{finished}", *_OPTIONS), "this training is finished; choose another folder"),
    "other options": (("fit", "{store}", "{begun}", *_OPTIONS, "--seed", "5"), "was begun with seed=0, not 5"),
    "other folder": (("fit", "{store}", "{no-43}", *_OPTIONS), "exists and holds no training"),
    "other checkpoint": (
        ("fit", "{store}", "{foreign}", *_OPTIONS, "--bands", "B01"),
        "belongs to another training or model",
    ),
    "many devices": (("fit", "{store}", "{new}", *_OPTIONS, "--devices", "99"), "several devices need Keras on JAX"),
    "no run": (("evaluate", "{empty}"), "there is no run.json"),
    "unfinished run": (("evaluate", "{foreign}", "--store", "{store}"), "there is no model"),
    "other store": (("evaluate", "{finished}", "--store", "{no-43}", "--split", "tset"), "no split 'tset'"),
    "no model": (("predict", "{empty}", "{store}"), "there is no model"),
    "no model at all": (("predict", "{text.keras}", "{store}"), "cannot be loaded as a model"),
    "foreign model": (("predict", "{other.keras}", "{store}"), "the model was not made by `ben-train fit`"),
    "no patch": (("predict", "{finished}", "{empty}"), "no patch; expected folders <patch>"),
    "no place": (("export", "{finished}", "{empty}"), "it is already there, and is not overwritten"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_message(
    places: Places, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = CASES[case]
    given = [str(places[word.strip("{}")]) if word.startswith("{") else word for word in arguments]
    before = sorted(path for place in places.values() for path in place.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["trainer", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 1
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(path for place in places.values() for path in place.rglob("*")) == before
