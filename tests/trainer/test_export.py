"""Exported models, as those run them who have no Keras: TensorFlow's loader and ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bigearthnet.errors import MissingPackageError, OutputError
from tests.trainer.trainings import OWN_WARNINGS, keras
from trainer import OptionError, RunError, Store, open_store
from trainer.commands.cli import cli
from trainer.model.export import export_model
from trainer.model.networks import build_model, load_model, save_model
from trainer.run.recipe import Recipe

pytestmark = [
    OWN_WARNINGS,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of tf2onnx, on import
]


@pytest.fixture(scope="module")
def run(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that was not trained, of arrays of three sizes, resized smoothly. Read only."""
    path = tmp_path_factory.mktemp("run") / "best.keras"
    store = open_store(stores["lz4"])
    bands = store.resolve_bands("B04,B8A,s2_60m")
    arrays = [info for info in store.arrays if info.name in bands]
    scales = {name: tuple(values.tolist() for values in store.scale_of(names)) for name, names in bands.items()}
    save_model(build_model(Recipe(seed=5, resize="bilinear"), arrays, bands, scales, store.labels_19), path)
    return path.parent


@pytest.fixture(scope="module")
def batch(run: Path) -> tuple[dict[str, Any], Any]:
    """Pixels of five patches, and the logits that the model itself gives."""
    model = load_model(run / "best.keras")
    random = np.random.default_rng(2)
    pixels = {
        name: random.integers(0, 20_000, (5, *given.shape[1:])).astype(given.dtype)
        for name, given in model.input.items()
    }
    return pixels, model.predict_on_batch(pixels)


def _check_card(card: dict[str, Any], store: Store) -> None:
    assert card["classes"] == list(store.labels_19)
    assert {name: given["bands"] for name, given in card["inputs"].items()} == {
        "s2_10m": ["B04"],
        "s2_20m": ["B8A"],
        "s2_60m": ["B01", "B09"],
    }
    for given in card["inputs"].values():
        mean, std = store.scale_of(given["bands"])
        assert (given["mean"], given["std"]) == (mean.tolist(), std.tolist())
    assert card["inputs"]["s2_20m"]["shape"] == ["patch", 1, 60, 60]
    assert card["inputs"]["s2_20m"]["dtype"] == "uint16"


def test_a_saved_model_gives_the_same_logits(run: Path, batch: tuple[Any, Any], store: Store, tmp_path: Path) -> None:
    import tensorflow as tf

    card = export_model(run / "best.keras", tmp_path / "classifier")
    pixels, logits = batch
    loaded = tf.saved_model.load(str(tmp_path / "classifier"))
    np.testing.assert_allclose(loaded.serve(pixels).numpy(), logits, atol=1e-5)
    assert json.loads((tmp_path / "classifier" / "model.json").read_text()) == card
    _check_card(card, store)


def test_onnx_gives_the_same_logits(run: Path, batch: tuple[Any, Any], store: Store, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    card = export_model(run / "best.keras", tmp_path / "classifier.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "classifier.onnx", providers=["CPUExecutionProvider"])
    pixels, logits = batch
    for n_patches in (5, 1):
        (found,) = session.run(["logits"], {name: values[:n_patches] for name, values in pixels.items()})
        np.testing.assert_allclose(found, logits[:n_patches], atol=1e-4)
    assert {given.name: given.shape for given in session.get_inputs()} == {
        name: given["shape"] for name, given in card["inputs"].items()
    }
    assert json.loads(session.get_modelmeta().custom_metadata_map["bigearthnet_store"]) == card
    _check_card(card, store)


def test_a_model_for_mixed_precision_is_exported_too(store: Store, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    bands = store.resolve_bands("B01")
    arrays = [info for info in store.arrays if info.name in bands]
    recipe = Recipe(precision="mixed_float16")
    save_model(build_model(recipe, arrays, bands, {"s2_60m": ([900.0], [400.0])}, ("a", "b")), tmp_path / "m.keras")
    export_model(tmp_path / "m.keras", tmp_path / "m.onnx")
    pixels = {"s2_60m": np.full((2, 1, 20, 20), 1_000, np.uint16)}
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, pixels)
    np.testing.assert_allclose(found, load_model(tmp_path / "m.keras").predict_on_batch(pixels), atol=1e-2)


def test_the_command_goes_by_the_name_or_by_the_format(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    for name, options, is_folder in [
        ("a", [], True),
        ("b.onnx", [], False),
        ("c", ["--format", "onnx"], False),
    ]:
        found = CliRunner().invoke(cli, ["export", str(run), str(tmp_path / name), *options])
        assert found.exit_code == 0, found.output
        assert (tmp_path / name).is_dir() == is_folder
        assert "s2_60m    patch x 2 x 20 x 20  uint16  B01, B09" in found.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.onnx", "c"]


def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="there is no model"):
        export_model(tmp_path / "best.keras", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="out: it is already there, and is not overwritten"):
        export_model(run / "best.keras", tmp_path / "out")

    monkeypatch.setattr("trainer.model.export.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"ONNX needs onnx and tf2onnx: pip install .*\[onnx\]"):
        export_model(run / "best.keras", tmp_path / "a.onnx")
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(OptionError, match="exporting needs Keras on TensorFlow, not on jax"):
        export_model(run / "best.keras", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
