"""Comparisons of band sets over seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.trainer.trainings import OWN_WARNINGS, RECIPE
from trainer import OptionError, RunError, Store, open_store
from trainer.commands.cli import cli
from trainer.training.compare import METRICS, Member, compare, judge
from trainer.training.events import TrainingStarted
from trainer.training.fit import FitOptions

pytestmark = OWN_WARNINGS

SHORT = replace(RECIPE, epochs=1, batch_size=None)


@pytest.mark.parametrize(
    ("base", "other", "verdict"),
    [
        ([0.50, 0.51, 0.52], [0.60, 0.61, 0.63], "better"),
        ([0.50, 0.51, 0.52], [0.40, 0.41, 0.43], "worse"),
        ([0.50, 0.51, 0.52], [0.51, 0.50, 0.53], "no difference beyond the spread of the seeds"),
        ([0.50, 0.51], [0.51, 0.60], "no difference beyond the spread of the seeds"),
        ([0.45, 0.47], [0.46, 0.49], "no difference beyond the spread of the seeds"),
        ([0.5, 0.5], [0.5, 0.5], "no difference beyond the spread of the seeds"),
    ],
)
def test_a_difference_counts_if_it_exceeds_the_spread(base: list[float], other: list[float], verdict: str) -> None:
    found = judge(base, other)
    assert found["verdict"] == verdict
    assert found["difference"] == pytest.approx(np.mean(other) - np.mean(base))


@pytest.fixture(scope="module")
def compared(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Member], list[Any]]:
    """A comparison, and what it reported. It may be gone on with."""
    path, members, events = tmp_path_factory.mktemp("compared"), list[Member](), list[Any]()
    opened, options = open_store(stores["lz4"]), FitOptions(tensorboard=False)
    found = compare(opened, path, SHORT, ["B01", "B09"], 2, options, events.append, members.append)
    assert json.loads((path / "comparison.json").read_text()) == found
    return path, members, events


def test_every_band_set_is_trained_with_every_seed(compared: tuple[Path, list[Member], list[Any]]) -> None:
    path, members, events = compared
    assert [(one.bands, one.seed) for one in members] == [("B01", 0), ("B09", 0), ("B01", 1), ("B09", 1)]
    assert len([event for event in events if isinstance(event, TrainingStarted)]) == 4
    found = json.loads((path / "comparison.json").read_text())
    assert (path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    for metric, (title, mean, name) in METRICS.items():
        for bands in ("B01", "B09"):
            files = [path / bands / str(seed) / "evaluation" / "test.json" for seed in range(2)]
            values = [json.loads(path.read_text())[title][mean][name] for path in files]
            assert found["metrics"][metric][bands] == {
                "by_seed": values,
                "mean": pytest.approx(np.mean(values)),
                "spread": pytest.approx(abs(values[0] - values[1]) / 2**0.5),
            }
    absent = json.loads(files[0].read_text())["absent_classes"]
    assert all(found["classes"][name]["B01"]["mean"] is None for name in absent)


def test_what_was_trained_is_not_trained_again(store: Store, compared: tuple[Path, list[Member], list[Any]]) -> None:
    path, _, _ = compared
    found = json.loads((path / "comparison.json").read_text())
    events: list[Any] = []
    assert compare(store, path, SHORT, ["B01", "B09"], 2, FitOptions(), events.append) == found
    assert events == []
    with pytest.raises(RunError, match=r"was trained with epochs=1, not 2; choose another folder"):
        compare(store, path, replace(SHORT, epochs=2), ["B01", "B09"], 2)


def test_the_command_prints_a_table_and_a_verdict(
    stores: dict[str, Path], compared: tuple[Path, list[Member], list[Any]]
) -> None:
    command = ["compare", str(stores["lz4"]), str(compared[0]), "--bands", "B01", "--bands", "B09", "--seeds", "2"]
    found = CliRunner().invoke(cli, [*command, "--epochs", "1", "--patience", "0"])
    assert found.exit_code == 0, found.output
    for part in ("over 2 seeds", "macro AP", "Marine waters", "B09 against B01, macro AP: ", "comparison.png"):
        assert part in found.stdout
    assert "[4/4] B09, seed 1" in found.stderr


@pytest.mark.parametrize(
    ("band_sets", "n_seeds", "message"),
    [
        (["B01"], 2, "two different band sets or more, not B01"),
        (["B01", "B01"], 2, "two different band sets"),
        (["B01", "B09"], 1, "needs 2 seeds at least, not 1"),
        (["B01", "B99"], 2, "no band 'B99'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    store: Store, tmp_path: Path, band_sets: list[str], n_seeds: int, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        compare(store, tmp_path / "out", SHORT, band_sets, n_seeds)
    assert not (tmp_path / "out").exists()
