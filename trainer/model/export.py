"""Write a trained model in a form that needs neither Keras nor this package.

What an exported model must be told travels with it: `model.json` beside the SavedModel's own files, the property
`bigearthnet_store` of an ONNX file. The statistics are inside, as layers.
"""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import keras
import numpy as np

from bigearthnet.errors import MissingPackageError, OptionError
from bigearthnet.files import check_new, write_json, write_new
from bigearthnet.machine import advise_install
from trainer.model.networks import describe_model, load_model

Format = Literal["savedmodel", "onnx"]

CARD_FILE: Final = "model.json"
"""Beside the files of a SavedModel."""
CARD_PROPERTY: Final = "bigearthnet_store"
"""Key of the same JSON in the metadata of an ONNX file."""
_LOGITS: Final = "logits"


def export_model(model_path: Path, out: Path, form: Format | None = None, network: str = "") -> dict[str, Any]:
    """Export a model that `ben-train fit` wrote.

    Args:
        model_path: The `.keras` file.
        out: A new folder for a SavedModel, a new file for ONNX.
        form: Which of them; None for ONNX if the name ends in `.onnx`, and else a SavedModel.
        network: `module:function` of the network, if the model has layers of its module.

    Returns:
        The card that travels with the model: its classes, its output, and of each input the bands, shape, dtype, mean
        and standard deviation.

    Raises:
        RunError: There is no model.
        OutputError: Something is there already, or it cannot be written.
        MissingPackageError: A package that the form needs is not installed.
        OptionError: The backend of Keras is not TensorFlow.
    """
    form = form or ("onnx" if out.suffix == ".onnx" else "savedmodel")
    check_new([out])
    if keras.config.backend() != "tensorflow":
        raise OptionError(
            f"exporting needs Keras on TensorFlow, not on {keras.config.backend()}: set KERAS_BACKEND=tensorflow; "
            "models of every backend can be exported there"
        )
    missing = [package for package in ("onnx", "tf2onnx") if find_spec(package) is None]
    if form == "onnx" and missing:
        raise MissingPackageError(
            f"ONNX needs {' and '.join(missing)}: {advise_install('onnx')}, or choose the format savedmodel"
        )
    model = load_model(model_path, network)
    card = describe_inputs(model)
    with write_new(out) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TensorFlow and tf2onnx, about themselves
        if form == "onnx":
            _write_onnx(model, temporary, card)
        else:
            model.export(temporary, format="tf_saved_model", verbose=False)
            write_json(temporary / CARD_FILE, card)
    return card


def describe_inputs(model: Any) -> dict[str, Any]:
    """Describe what a model takes and gives, as JSON values."""
    inputs = {}
    for name, given in model.input.items():
        layer = model.get_layer(f"{name}_standardized")
        inputs[name] = {
            "bands": layer.bands,
            "shape": ["patch", *given.shape[1:]],
            "axes": ["patch", "band", "row", "col"],
            "dtype": str(given.dtype),
            "mean": layer.mean,
            "std": layer.std,
        }
    return {
        "inputs": inputs,
        "standardized": "by the model, with mean and std: give stored pixels",
        "output": f"{_LOGITS} (patch, class), float32; a probability is 1 / (1 + exp(-logit))",
        "classes": list(describe_model(model).classes),
    }


def _write_onnx(model: Any, path: Path, card: dict[str, Any]) -> None:
    """Write ONNX, with names that say what they are and the card in its metadata."""
    import onnx  # noqa: PLC0415 - an extra

    # Keras exports only what was called before.
    model({name: np.zeros((1, *given.shape[1:]), given.dtype) for name, given in model.input.items()})
    model.export(path, format="onnx", verbose=False)
    converted = onnx.load(path)
    graph = converted.graph
    (old,) = [output.name for output in graph.output]
    for node in graph.node:
        node.input[:] = [_LOGITS if name == old else name for name in node.input]
        node.output[:] = [_LOGITS if name == old else name for name in node.output]
    graph.output[0].name = _LOGITS
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "patch"
    onnx.helper.set_model_props(converted, {CARD_PROPERTY: json.dumps(card)})
    onnx.checker.check_model(converted)
    onnx.save(converted, path)
