"""Which patches are trained on, validated on and measured: conditions, classes, own columns, fractions."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.trainer.trainings import OWN_WARNINGS, RECIPE, StoppedError, train
from trainer import OptionError, RunError, SelectionError, Store
from trainer.commands.cli import cli
from trainer.run.folder import RunFolder, locate_evaluation
from trainer.score.evaluate import evaluate
from trainer.score.predict import predict
from trainer.source.fraction import draw_fraction
from trainer.training.events import StepTrained
from trainer.training.fit import FitOptions, fit

pytestmark = OWN_WARNINGS

SHORT = replace(RECIPE, epochs=1, batch_size=8)


def _read(store: Store) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store.table).to_pylist()
    return rows


@pytest.fixture
def own(store: Store, tmp_path: Path) -> Path:
    """Columns of ones own for two patches in three, and for one that is in no store."""
    rows = [row for row in _read(store) if row["index"] % 3]
    table = pa.table(
        {
            "patch_id": [*(row["patch_id"] for row in rows), "elsewhere"],
            "height": [*(row["index"] * 10 for row in rows), 0],
            "kinds": [*(["even", "all"] if row["index"] % 2 == 0 else ["all"] for row in rows), ["none"]],
            "text": [*("even; all" if row["index"] % 2 == 0 else "all" for row in rows), None],
        }
    )
    pq.write_table(table, tmp_path / "own.parquet")
    return tmp_path / "own.parquet"


@pytest.fixture
def own_csv(store: Store, tmp_path: Path) -> Path:
    """The same as text, under a name that DuckDB would take for a pattern, beside a file that matches it."""
    path = tmp_path / "own[1]*.csv"
    (tmp_path / "own12.csv").write_text("patch_id,height,kinds\nelsewhere,1,all\n")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patch_id", "height", "kinds"])
        for row in _read(store):
            if row["index"] % 3:
                writer.writerow([row["patch_id"], row["index"] * 10, "even;all" if row["index"] % 2 == 0 else "all"])
    return path


def test_all_of_several_conditions_hold_each_by_itself(store: Store) -> None:
    found = store.select(where=["country = 'Austria' or country = 'Finland'", "season = 'Summer'"], recommended=False)
    expected = [r["index"] for r in _read(store) if r["country"] in ("Austria", "Finland") and r["season"] == "Summer"]
    assert found.indices.tolist() == expected
    with pytest.raises(SelectionError, match="syntax error"):
        store.select(where=["true) or (true", "true"])


def test_some_classes_have_the_labels_that_they_have_among_all(store: Store) -> None:
    everything = store.select("train")
    names = (everything.classes[8], everything.classes[2], everything.classes[18])
    found = store.select("train", classes=names)
    assert found.classes == names
    np.testing.assert_array_equal(found.labels, everything.labels[:, [8, 2, 18]])
    assert found.digest != everything.digest
    for wrong in (("Deserts",), (names[0], names[0])):
        with pytest.raises(SelectionError, match="expected classes once each, out of"):
            store.select("train", classes=wrong)


def test_columns_of_ones_own_are_known_to_conditions(store: Store, own: Path, own_csv: Path) -> None:
    for path in (own, own_csv):
        found = store.select(where="height > 300", join=path, recommended=False)
        assert found.indices.tolist() == [i for i in range(store.n_patches) if i % 3 and i > 30]
    found = store.select(where="height is null", join=own, recommended=False)
    assert found.indices.tolist() == list(range(0, store.n_patches, 3))
    with pytest.raises(SelectionError, match="height"):
        store.select(where="height > 300")


@pytest.mark.parametrize("column", ["kinds", "text"])
def test_a_column_of_ones_own_gives_the_labels(store: Store, own: Path, own_csv: Path, column: str) -> None:
    """Of patches of which it says something."""
    for path in (own, own_csv)[: 2 if column == "kinds" else 1]:
        found = store.select(join=path, target=column, recommended=False, classes=("even", "all"))
        assert found.classes == ("even", "all")
        assert found.indices.tolist() == [i for i in range(store.n_patches) if i % 3]
        assert found.labels.tolist() == [[float(i % 2 == 0), 1.0] for i in found.indices]
        assert store.select(join=path, target=column).classes == ("all", "even")


def test_a_column_of_the_table_can_be_the_target(store: Store) -> None:
    found = store.select(target="country", recommended=False)
    countries = [row["country"] for row in _read(store)]
    assert found.classes == tuple(sorted({country for country in countries if country}))
    assert [found.classes[row.argmax()] for row in found.labels] == [country for country in countries if country]
    with pytest.raises(SelectionError, match="that names classes, found 'epsg', INTEGER"):
        store.select(target="epsg")
    with pytest.raises(SelectionError, match="expected 1 to 63 classes in the column 'patch_id'"):
        store.select(target="patch_id")


def _write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder, _: folder / "none.csv", SelectionError, "cannot be read as a table to join"),
        (lambda folder, _: _write(folder / "x.feather", a=[1]), OptionError, r"name ends in \.csv or \.parquet"),
        (lambda folder, ids: _write(folder / "x.parquet", name=ids), SelectionError, "expected a column patch_id"),
        (lambda folder, ids: _write(folder / "x.parquet", patch_id=ids), SelectionError, "and others"),
        (
            lambda folder, ids: _write(folder / "x.parquet", patch_id=ids, COUNTRY=ids),
            SelectionError,
            "the table of the store has country already",
        ),
        (
            lambda folder, ids: _write(folder / "x.parquet", patch_id=[ids[0], ids[0]], height=[1, 2]),
            SelectionError,
            "expected each patch_id once, found 1 different ones in 2 rows",
        ),
        (
            lambda folder, ids: _write(folder / "x.parquet", patch_id=[ids[0], None], height=[1, 2]),
            SelectionError,
            "expected each patch_id once",
        ),
        (
            lambda folder, _: _write(folder / "x.parquet", patch_id=["a", "b"], height=[1, 2]),
            SelectionError,
            "none of its 2 patches is in the store",
        ),
        (lambda folder, _: (folder / "x.parquet").write_text("x") and folder / "x.parquet", SelectionError, "cannot"),
    ],
)
def test_a_file_that_cannot_be_joined_is_refused(
    store: Store, tmp_path: Path, make: Callable[[Path, list[str]], Path], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        store.select(join=make(tmp_path, [row["patch_id"] for row in _read(store)]), where="true")


def test_no_condition_reaches_files_though_one_is_joined(store: Store, own: Path) -> None:
    for sql in (
        f"exists (from read_parquet('{own}'))",
        f"exists (from '{own}')",
        "exists (from read_text('/etc/passwd'))",
    ):
        with pytest.raises(SelectionError, match=r"disabled|not allowed|permission|Permission|denied"):
            store.select(where=sql, join=own)


# -- Fractions -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labels() -> Any:
    """20,000 patches of 19 classes that go together, of 8,000 down to a handful."""
    random = np.random.default_rng(0)
    together = random.normal(0, 1, (20_000, 3)) @ random.normal(0, 1, (3, 19))
    return random.random((20_000, 19)) < np.geomspace(0.4, 0.0005, 19) * np.exp(0.5 * together)


def _pack(labels: Any) -> Any:
    return (labels.astype(np.int64) << np.arange(labels.shape[1])).sum(1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_smaller_fraction_is_inside_a_larger_one(labels: Any, seed: int) -> None:
    bits = _pack(labels)
    drawn = [draw_fraction(bits, 19, fraction, seed) for fraction in (0.0001, 0.01, 0.05, 0.5, 1.0)]
    assert [len(one) for one in drawn] == [2, 200, 1_000, 10_000, 20_000]
    for small, large in pairwise(drawn):
        assert set(small.tolist()) <= set(large.tolist())
        assert (np.diff(large) > 0).all()


@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_a_fraction_has_its_share_of_every_class(labels: Any, fraction: float) -> None:
    """Closer than chance: rare classes to a patch or two, all of them to a third of what a random draw gives."""
    bits, expected = _pack(labels), labels.sum(0) * fraction
    random = np.random.default_rng(1)
    found, by_chance = [], []
    for seed in range(10):
        found.append(labels[draw_fraction(bits, 19, fraction, seed)].sum(0) - expected)
        drawn = random.choice(len(labels), round(fraction * len(labels)), replace=False)
        by_chance.append(labels[drawn].sum(0) - expected)
    assert np.abs(np.array(found)[:, expected < 20]).max() < 4
    assert np.square(found / np.sqrt(expected)).mean() < np.square(by_chance / np.sqrt(expected)).mean() / 3


def test_the_seed_decides_what_is_drawn_and_the_draw_stays_what_it_is() -> None:
    bits = np.arange(40) % 8
    drawn = [draw_fraction(bits, 3, 0.2, seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == [8, 9, 11, 15, 20, 21, 22, 23]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_a_fraction_that_is_none_is_refused(store: Store, fraction: float) -> None:
    with pytest.raises(OptionError, match="fraction must be above 0 and at most 1"):
        store.select("train", fraction=fraction)
    with pytest.raises(OptionError, match="fraction must be above 0 and at most 1"):
        replace(SHORT, fraction=fraction)


# -- Trainings -------------------------------------------------------------------------------------------------------


def test_a_training_has_the_patches_that_its_recipe_chooses(store: Store, tmp_path: Path, own: Path) -> None:
    names = store.labels_19[:2] + store.labels_19[8:9]
    recipe = replace(
        SHORT,
        classes="; ".join(names),
        train_where="country <> 'Austria'",
        validation_where="height is not null",
        join=str(own),
        fraction=0.5,
        seed=3,
    )
    train(store, tmp_path / "run", recipe)
    record = RunFolder(tmp_path / "run").read_record()
    chosen = store.select("train", where="country <> 'Austria'", classes=names)
    expected = chosen.indices[draw_fraction(chosen.label_bits, 3, 0.5, 3)]
    assert record.n_patches["train"] == len(expected) == round(len(chosen) / 2)
    assert (
        record.train == store.select("train", where="country <> 'Austria'", classes=names, fraction=0.5, seed=3).digest
    )
    found = evaluate(store, tmp_path / "run", "train")
    table = pq.read_table(locate_evaluation(tmp_path / "run", "train").predictions)
    assert table["index"].to_pylist() == expected.tolist()
    assert list(found["classes"]) == list(names)
    assert evaluate(store, tmp_path / "run", "validation")["patches"] == record.n_patches["validation"]
    assert set(record.sources) == {"join"}
    predicted = predict(tmp_path / "run" / "best.keras", store, split="test")
    np.testing.assert_array_equal(predicted.truth, store.select("test", recommended=False, classes=names).labels)


def test_classes_of_ones_own_are_trained_measured_and_predicted(store: Store, tmp_path: Path, own: Path) -> None:
    train(store, tmp_path / "run", replace(SHORT, join=str(own), target="kinds"))
    assert RunFolder(tmp_path / "run").read_record().classes == ("all", "even")
    found = evaluate(store, tmp_path / "run", "test")
    test = store.select("test", join=own, target="kinds")
    assert found["patches"] == len(test)
    assert found["classes"]["even"]["support"] == test.labels[:, 1].sum()
    moved = own.rename(tmp_path / "moved.parquet")
    with pytest.raises(RunError, match=r"own\.parquet: the file that the training joined cannot be read"):
        evaluate(store, tmp_path / "run")
    assert evaluate(store, tmp_path / "run", join=moved) == found
    table = pq.read_table(moved)
    pq.write_table(table.slice(1), moved)
    with pytest.raises(RunError, match=r"moved\.parquet: is not the file that the training joined \(hash"):
        evaluate(store, tmp_path / "run", join=moved)


def test_a_training_does_not_go_on_with_other_columns(store: Store, tmp_path: Path, own: Path) -> None:
    def stop(event: Any) -> None:
        if isinstance(event, StepTrained):
            raise StoppedError

    recipe = replace(SHORT, join=str(own), train_where="height is not null")
    with pytest.raises(StoppedError):
        fit(store, tmp_path / "run", recipe, FitOptions(tensorboard=False), stop)
    table = pq.read_table(own)
    pq.write_table(table.drop_columns("text"), own)
    with pytest.raises(RunError, match=r"was begun when join=.*own\.parquet was another"):
        train(store, tmp_path / "run", recipe)


def test_part_of_a_split_is_measured_beside_the_whole(stores: dict[str, Path], store: Store, tmp_path: Path) -> None:
    train(store, tmp_path / "run", SHORT)
    whole = evaluate(store, tmp_path / "run")
    files = locate_evaluation(tmp_path / "run", "test")
    before = files.metrics.read_bytes()
    where = "country = 'Austria'"
    ended = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run"), "--where", where, "--json"])
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["where"] == where
    assert found["patches"] == whole["slices"]["country"]["Austria"]["patches"]
    expected = whole["slices"]["country"]["Austria"]["micro_average_precision"]
    assert found["ranking"]["micro"]["average_precision"] == pytest.approx(expected, abs=1e-6)
    assert found["at_tuned"]["micro"]["f1"] == pytest.approx(whole["slices"]["country"]["Austria"]["micro_f1"])
    assert files.metrics.read_bytes() == before
    assert json.loads(locate_evaluation(tmp_path / "run", "test", where).metrics.read_text()) == found


def test_the_commands_take_what_is_chosen(stores: dict[str, Path], store: Store, own: Path, tmp_path: Path) -> None:
    chosen = store.select("train", fraction=0.25, seed=4)
    command = ["select", str(stores["lz4"]), "--split", "train", "--fraction", "0.25", "--seed", "4"]
    assert chosen.digest in CliRunner().invoke(cli, command).stdout
    assert json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)["digest"] == chosen.digest
    join = ["--join", str(own), "--where", "height > 300"]
    found = CliRunner().invoke(cli, ["select", str(stores["lz4"]), *join, "--target", "kinds", "--json"])
    assert list(json.loads(found.stdout)["classes"]) == ["all", "even"]
    options = ["--bands", "B01", "--epochs", "1", "--no-tensorboard", "--fraction", "0.25", "--seed", "4"]
    run = str(tmp_path / "run")
    ended = CliRunner().invoke(cli, ["fit", str(stores["lz4"]), run, *options, "--train-where", "true"])
    assert ended.exit_code == 0, ended.output
    assert f"a fraction of 0.25 where true (digest {chosen.digest})" in ended.stderr
    ended = CliRunner().invoke(cli, ["predict", run, str(stores["lz4"]), *join, "--out", str(tmp_path / "p.parquet")])
    assert ended.exit_code == 0, ended.output
    expected = store.select(where="height > 300", join=own, recommended=False)
    assert pq.read_table(tmp_path / "p.parquet")["index"].to_pylist() == expected.indices.tolist()
