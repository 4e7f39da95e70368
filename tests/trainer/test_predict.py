"""Prediction of the patches of a store with a saved model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from bigearthnet.errors import OutputError
from tests.trainer.trainings import OWN_WARNINGS, RECIPE, train
from trainer import OptionError, Store, open_store
from trainer.commands.cli import cli
from trainer.model.networks import load_model
from trainer.score.predict import predict

pytestmark = OWN_WARNINGS


@pytest.fixture(scope="module")
def run(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Read only."""
    path = tmp_path_factory.mktemp("runs") / "run"
    train(open_store(stores["lz4"]), path, replace(RECIPE, epochs=1, bands="B09,B05"))
    return path


def test_probabilities_are_those_of_the_model_on_the_stored_pixels(run: Path, store: Store, tmp_path: Path) -> None:
    found = predict(run / "best.keras", store, tmp_path / "out.parquet", where="country = 'Austria'")
    selection = store.select(where="country = 'Austria'", recommended=False)
    assert found.selection.indices.tolist() == selection.indices.tolist()
    arrays = store.resolve_bands("B09,B05")
    pixels = {
        name: np.zeros(
            (len(selection), 1, store.describe(name).n_rows, store.describe(name).n_rows), store.describe(name).dtype
        )
        for name in arrays
    }
    for name, bands in arrays.items():
        store.open_reader(name, bands).read(selection.indices, pixels[name], None)
    logits = load_model(run / "best.keras").predict_on_batch(pixels)
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["index"].to_pylist() == selection.indices.tolist()
    np.testing.assert_array_equal(np.array(table["probabilities"].to_pylist(), np.float32), found.probabilities)


def test_a_store_without_the_classes_of_the_model_gives_no_true_labels(store: Store, tmp_path: Path) -> None:
    """As a v2.0 store, which has 19 classes only, to a model of 43."""
    train(store, tmp_path / "run", replace(RECIPE, epochs=1, bands="B09", labels=43))
    renewed = replace(store, labels_43=())
    found = predict(tmp_path / "run" / "best.keras", renewed, tmp_path / "out.parquet", split="test")
    assert found.truth is None
    assert found.probabilities.shape == (20, len(store.labels_43))
    assert "labels" not in pq.read_table(tmp_path / "out.parquet").column_names


def test_the_command_takes_a_run_or_a_model(run: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    for number, model in enumerate([run, run / "best.keras"]):
        out = tmp_path / f"{number}.parquet"
        found = CliRunner().invoke(
            cli, ["predict", str(model), str(stores["lz4"]), "--out", str(out), "--split", "test"]
        )
        assert found.exit_code == 0, found.output
        assert "20 patches" in found.stdout
    tables = [pq.read_table(tmp_path / f"{number}.parquet") for number in range(2)]
    assert tables[0].equals(tables[1])
    assert {"patch_id", "labels", "predicted", "probabilities"} <= set(tables[0].column_names)


def test_what_cannot_be_predicted_is_refused(run: Path, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    lacking = replace(store, arrays=tuple(info for info in store.arrays if info.name != "s2_60m"))
    with pytest.raises(OptionError, match="no band 'B09'; choose from B02"):
        predict(run / "best.keras", lacking, out)
    with pytest.raises(OutputError, match="there is no folder"):
        predict(run / "best.keras", store, tmp_path / "no" / "out.parquet")
    out.touch()
    with pytest.raises(OutputError, match=r"out\.parquet: it is already there"):
        predict(run / "best.keras", store, out)
