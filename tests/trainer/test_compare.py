"""Comparisons of band sets over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from bigearthnet.store.layout import TABLE
from tests.manifests import seal_again
from tests.trainer import own
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError
from trainer import OptionError, RunError, Store, open_store
from trainer.commands.cli import cli
from trainer.training.compare import METRICS, SLICE_METRICS, Member, compare, judge
from trainer.training.events import TrainingStarted
from trainer.training.fit import FitOptions
from trainer.training.variants import list_variants

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
    variants = list_variants(opened, SHORT, bands=["B01", "B09"])
    found = compare(opened, path, variants, 2, options, events.append, members.append)
    assert json.loads((path / "comparison.json").read_text()) == found
    return path, members, events


def test_every_band_set_is_trained_with_every_seed(compared: tuple[Path, list[Member], list[Any]]) -> None:
    path, members, events = compared
    assert [(one.name, one.seed) for one in members] == [("B01", 0), ("B09", 0), ("B01", 1), ("B09", 1)]
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
    variants = list_variants(store, SHORT, bands=["B01", "B09"])
    assert compare(store, path, variants, 2, FitOptions(), events.append) == found
    assert events == []
    with pytest.raises(RunError, match=r"was trained with epochs=1, not 2; choose another folder"):
        compare(store, path, list_variants(store, replace(SHORT, epochs=2), bands=["B01", "B09"]), 2)


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
        (["B01"], 2, "two different members or more, not all"),
        (["B01", "B01"], 2, "two different members or more, not B01"),
        (["B01", "b01"], 2, "two different members or more, not B01, b01"),
        (["B01", "B09"], 1, "needs 2 seeds at least, not 1"),
        (["B01", "B99"], 2, "no band 'B99'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    store: Store, tmp_path: Path, band_sets: list[str], n_seeds: int, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        compare(store, tmp_path / "out", list_variants(store, SHORT, bands=band_sets), n_seeds)
    assert not (tmp_path / "out").exists()


def test_fractions_and_conditions_are_members_too(store: Store) -> None:
    variants = list_variants(
        store, SHORT, bands=["B01", "B09"], fractions=[0.5, 1], conditions=["true", "country <> 'Finland'"]
    )
    assert list(variants)[:3] == ["B01-0.5-where-1", "B01-0.5-where-2", "B01-1-where-1"]
    assert len(variants) == 8
    recipe = variants["B09-0.5-where-2"].recipe
    assert (recipe.bands, recipe.fraction, recipe.train_where) == ("B09", 0.5, "country <> 'Finland'")
    (only,) = list_variants(store, SHORT, bands=["B09"], fractions=[0.5]).values()
    assert (only.recipe.bands, only.recipe.fraction) == ("B09", 0.5)


@pytest.mark.slow
def test_scores_by_fraction_are_one_command(stores: dict[str, Path], store: Store, tmp_path: Path) -> None:
    options = ["--bands", "B01", "--epochs", "1", "--patience", "0", "--seeds", "2", "--json"]
    command = ["compare", str(stores["lz4"]), str(tmp_path), "--fraction", "0.5", "--fraction", "1", *options]
    ended = CliRunner().invoke(cli, command)
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert list(found["metrics"]["macro AP"]) == ["0.5", "1"]
    assert found["members"]["0.5"]["fraction"] == 0.5
    for seed in (0, 1):
        record = json.loads((tmp_path / "0.5" / str(seed) / "run.json").read_text())
        assert record["train"] == store.select("train", fraction=0.5, seed=seed).digest


@pytest.mark.slow
def test_leaving_each_country_out_is_one_command(stores: dict[str, Path], store: Store, tmp_path: Path) -> None:
    where = ["--train-where", "country in ('Austria', 'Finland')", "--validation-where", "true"]
    options = ["--bands", "B01", "--epochs", "1", "--batch-size", "8", "--patience", "0", "--seeds", "2"]
    ended = CliRunner().invoke(
        cli, ["compare", str(stores["lz4"]), str(tmp_path), "--without", "country", *where, *options]
    )
    assert ended.exit_code == 0, ended.output
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert list(found["metrics"]["macro AP"]) == ["all", "without-Austria", "without-Finland"]
    record = json.loads((tmp_path / "without-Austria" / "0" / "run.json").read_text())
    assert record["train"] == store.select("train", where="country = 'Finland'").digest
    assert record["validation"] == store.select("validation", where="country <> 'Austria'").digest
    scores = {
        member: [
            json.loads((tmp_path / member / seed / "evaluation/test.json").read_text())["slices"]["country"]["Austria"]
            for seed in ("0", "1")
        ]
        for member in ("all", "without-Austria")
    }
    for metric, name in SLICE_METRICS.items():
        difference = np.mean([one[name] for one in scores["without-Austria"]]) - np.mean(
            [one[name] for one in scores["all"]]
        )
        assert found["held_out"]["without-Austria"][metric]["difference"] == pytest.approx(difference)
    assert "without-Finland, on the test patches of it alone, macro AP: " in ended.stdout


@pytest.mark.parametrize("changes", [{"fractions": [0.5, 0.5]}, {"conditions": ["true", "true"]}, {}])
def test_members_that_are_one_and_the_same_are_refused(store: Store, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="two different members or more"):
        compare(store, tmp_path / "out", list_variants(store, SHORT, **changes), 2)


def test_a_fraction_that_fills_no_batch_is_refused_before_anything_is_trained(store: Store, tmp_path: Path) -> None:
    variants = list_variants(store, replace(SHORT, batch_size=16), fractions=[1, 0.1])
    with pytest.raises(OptionError, match="6 training patches do not fill one batch of 16"):
        compare(store, tmp_path / "out", variants, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "..", "a'b", "a\nb"])
def test_a_country_that_could_lead_out_of_the_folder_never_names_one(
    copy_store: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder = copy_store("lz4")
    table = pq.read_table(folder / TABLE)
    place = table.column_names.index("country")
    pq.write_table(table.set_column(place, "country", pa.array([name] * len(table))), folder / TABLE)
    seal_again(folder)
    with pytest.raises(OptionError, match="expected names of a country, found "):
        list_variants(open_store(folder), SHORT, without="country")


def test_a_run_with_another_function_is_not_taken_for_finished(store: Store, tmp_path: Path) -> None:
    variants = list_variants(store, replace(SHORT, loss=own.loss), bands=["B01", "B09"])
    with pytest.raises(StoppedError):
        compare(store, tmp_path, variants, 2, FitOptions(tensorboard=False), announce=_stop_at_second)
    path = tmp_path / "B01" / "0" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"sources": {"loss": "0" * 32}}))
    with pytest.raises(RunError, match=r"0: was trained with another source of loss; choose another folder"):
        compare(store, tmp_path, variants, 2, FitOptions(tensorboard=False))


def _stop_at_second(member: Member) -> None:
    if member.number == 2:
        raise StoppedError
