"""Models: native-resolution pixels in, one logit a class out. What a model must know is saved in it."""

from __future__ import annotations

import fnmatch
import inspect
import os
import re
import traceback
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import keras
from numpy.typing import NDArray

from bigearthnet.errors import OptionError, RunError
from bigearthnet.files import open_regular, write_new
from bigearthnet.store.arrays import ArrayInfo
from trainer.model.blocks import drop_blocks
from trainer.model.layers import ClassLogits, RandomSymmetry, StandardizeBands
from trainer.run.function import import_module_of, is_function_name, load_function
from trainer.run.recipe import SMALL, Recipe, Resize

_SMALL_FILTERS: Final = (32, 64, 128)
_SMALL_MOMENTUM: Final = 0.9
"""Of the batch normalisation: trainings of a few hundred steps end before Keras's 0.99 has forgotten its start."""

_RESCALING_NETWORKS: Final = "efficientnetb"
"""How networks are named that begin with a division by 255, whatever is asked for; it is undone in front of them."""

_UNKNOWN_LAYER: Final = re.compile("Could not locate class '[^']*'")
"""What Keras says of a layer that is neither its own nor known."""


@dataclass(frozen=True)
class ModelCard:
    """What a saved model says of itself."""

    bands: Mapping[str, tuple[str, ...]]
    """For each array that it takes, the bands in their order."""
    classes: tuple[str, ...]
    """Names of its classes, in the order of the logits."""

    @property
    def band_names(self) -> list[str]:
        """All bands, array by array."""
        return [band for bands in self.bands.values() for band in bands]


def list_networks() -> dict[str, Callable[..., Any]]:
    """List the networks of `keras.applications` by name."""
    networks = {name: getattr(keras.applications, name) for name in dir(keras.applications)}
    return {name: network for name, network in networks.items() if name[0].isupper() and callable(network)}


def build_model(
    recipe: Recipe,
    arrays: Sequence[ArrayInfo],
    bands: Mapping[str, Sequence[str]],
    scales: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    classes: Sequence[str],
) -> Any:
    """Build an untrained model. The inputs are a dict of stored arrays, (patch, band, row, col), by array name.

    Args:
        recipe: Network, dropout, augmentation, resizing, precision and seed.
        arrays: The arrays that it takes.
        bands: For each array, its bands.
        scales: For each array, mean and standard deviation of its bands, in stored units.
        classes: Class names.

    Raises:
        OptionError: There is no such network, or it does not take such patches.
    """
    inputs, pixels = join_bands(arrays, bands, scales, recipe.resize)
    if recipe.augment != "none":
        transpose = recipe.augment == "symmetries"
        pixels = RandomSymmetry(transpose=transpose, seed=recipe.seed, dtype="float32")(pixels)
    name = str(recipe.network)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)  # keras.applications takes no other way
    try:
        network = drop_blocks(make_network(name, tuple(pixels.shape[1:])), recipe.drop_path, recipe.seed + 2)
        if network.name.startswith(_RESCALING_NETWORKS):
            pixels = keras.layers.Rescaling(255.0, dtype="float32")(pixels)
        features = keras.layers.Dropout(recipe.dropout, seed=recipe.seed + 1)(network(pixels))
        model = keras.Model(inputs, ClassLogits(classes, name="logits")(features), name="classifier")
    finally:
        keras.config.set_dtype_policy(policy)
    if recipe.freeze:
        freeze_layers(model, recipe.freeze)
    return model


def join_bands(
    arrays: Sequence[ArrayInfo],
    bands: Mapping[str, Sequence[str]],
    scales: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    resize: Resize,
) -> tuple[dict[str, Any], Any]:
    """Make the inputs of a model, and standardised pixels (patch, row, col, band) of all of them."""
    inputs = {
        info.name: keras.Input((len(bands[info.name]), info.n_rows, info.n_columns), dtype=info.dtype, name=info.name)
        for info in arrays
    }
    n_rows = max(info.n_rows for info in arrays)
    groups = []
    for info in arrays:
        mean, std = scales[info.name]
        pixels = StandardizeBands(bands[info.name], mean, std, name=f"{info.name}_standardized")(inputs[info.name])
        if info.n_rows < n_rows:
            factor = n_rows // info.n_rows
            pixels = keras.layers.UpSampling2D(factor, interpolation=resize, dtype="float32")(pixels)
        groups.append(pixels)
    return inputs, keras.layers.Concatenate(dtype="float32")(groups) if len(groups) > 1 else groups[0]


def list_layers(model: Any) -> list[Any]:
    """List the layers of a model and of the models in it, in order."""
    layers: list[Any] = []
    for layer in model.layers:
        layers += list_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return layers


def freeze_layers(model: Any, names: str) -> None:
    """Let layers of the network keep their weights; batch normalisation among them uses its statistics as they are.

    Args:
        model: What `build_model` builds. Its last layer is never frozen.
        names: Names of layers joined by commas, with `*` for any letters.

    Raises:
        OptionError: No layer with weights has such a name.
    """
    layers = {layer.name: layer for layer in list_layers(model) if layer.weights and not isinstance(layer, ClassLogits)}
    for pattern in (part.strip() for part in names.split(",")):
        chosen = fnmatch.filter(layers, pattern)
        if not chosen:
            raise OptionError(
                f"freeze={names}: the network has no layer {pattern!r}; its layers are {', '.join(layers)}"
            )
        for name in chosen:
            layers[name].trainable = False


def describe_model(model: Any) -> ModelCard:
    """Read a model's card from its layers.

    Raises:
        RunError: It is not a model of this package.
    """
    inputs = [layer for layer in model.layers if isinstance(layer, StandardizeBands)]
    heads = [layer for layer in model.layers if isinstance(layer, ClassLogits)]
    if not inputs or len(heads) != 1:
        raise RunError("the model was not made by `ben-train fit`: it does not say its bands and classes")
    bands = {layer.name.removesuffix("_standardized"): tuple(layer.bands) for layer in inputs}
    return ModelCard(bands, tuple(heads[0].classes))


def save_model(model: Any, path: Path, values: Sequence[NDArray[Any]] | None = None) -> None:
    """Save a model whole, without optimizer; the old one is there until the new one is.

    Args:
        model: Functional.
        path: The file.
        values: What its variables had when it was to be saved, if another thread trains it meanwhile.
    """
    saved = [] if values is None else list(zip(model.variables, values, strict=True))
    with (
        keras.StatelessScope(state_mapping=saved),
        write_new(path, overwrite=True) as temporary,
    ):  # of this thread alone
        keras.Model(model.input, model.output, name=model.name).save(temporary)


def check_saving(model: Any, function: str) -> None:
    """Make sure that a model with a network of the user's own can be loaded again, before it is trained for days.

    Raises:
        OptionError: It cannot.
    """
    with TemporaryDirectory(prefix="bigearthnet-") as folder:
        path = Path(folder) / "model.keras"
        try:
            save_model(model, path)
            load_model(path, function)
        except Exception as error:  # layers of the user's may raise anything
            reason = " ".join(str(error).split()).replace(str(path), "a model of it")
            raise OptionError(
                f"{function}: {reason}; a layer of your own needs `get_config` and a place at the top of the module, "
                "and Lambda layers are never loaded"
            ) from error


def load_model(path: Path, function: str = "") -> Any:
    """Load a model that `save_model` wrote.

    Args:
        path: The file.
        function: `module:function`, if layers of the user's own are in the module. Nothing that the file names is ever
            imported.

    Raises:
        OptionError: The module cannot be imported.
        RunError: There is no model, or it cannot be read.
    """
    model = load_keras(path, function)
    try:
        describe_model(model)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error
    return model


def load_keras(path: Path, function: str = "") -> Any:
    """Load any Keras model; see `load_model`."""
    if not path.is_file():
        raise RunError(f"{path}: there is no model; give what `ben-train fit` wrote")
    own = vars(import_module_of(function)) if function else {}
    layers = {name: value for name, value in own.items() if inspect.isclass(value) and issubclass(value, keras.Layer)}
    try:
        _check_inflation(path)
        return keras.saving.load_model(path, custom_objects=layers, compile=False)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error
    except Exception as error:  # Keras and zipfile promise nothing about what they raise
        first = (str(error).strip() or repr(error)).splitlines()[0]
        if unknown := _UNKNOWN_LAYER.search(str(error)):
            first = f"{unknown[0]}; if it is a layer of yours, name the function that made the network"
        raise RunError(f"{path}: cannot be loaded as a model ({first})") from error


def _check_inflation(path: Path) -> None:
    """Refuse a file that holds more than it is large: Keras compresses nothing, and a bomb does."""
    with open(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
        n_bytes, limit = sum(member.file_size for member in archive.infolist()), os.fstat(file.fileno()).st_size
    if n_bytes > limit:
        raise RunError(f"it inflates from {limit:,} to {n_bytes:,} bytes, and a model that Keras wrote does not")


def make_network(name: str, shape: tuple[int, int, int], **options: Any) -> Any:
    """Make a network that turns pixels (patch, row, col, band) into features (patch, feature).

    Args:
        name: As in `Recipe.network`.
        shape: Rows, columns and bands of a patch.
        options: Further options of a network of `keras.applications`.

    Raises:
        OptionError: There is no such network, or it does not take such patches.
    """
    if is_function_name(name):
        return _make_own(name, keras.Input(shape))
    if name.lower() == SMALL:
        return _make_small(keras.Input(shape))
    networks = {known.lower(): (known, network) for known, network in list_networks().items()}
    if name.lower() not in networks:
        raise OptionError(
            f"no network {name!r}; choose from {SMALL}, {', '.join(sorted(list_networks()))}, or module:function"
        )
    known, network = networks[name.lower()]
    chosen = {"include_top": False, "weights": None, "input_shape": shape, "pooling": "avg"} | options
    if "include_preprocessing" in inspect.signature(network).parameters:
        chosen["include_preprocessing"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that 1 or 3 bands are usual
            return network(**chosen)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise OptionError(f"network {known} does not take patches of shape {shape}: {reason}") from error


def _make_own(name: str, pixels: Any) -> Any:
    """Make a network of a function of the user's own."""
    function = load_function(name)
    try:
        features = function(pixels)
    except Exception as error:  # a function of the user's may raise anything
        file = inspect.unwrap(function).__code__.co_filename
        at = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file][-1]
        reason = " ".join(str(error).split())
        raise OptionError(
            f"{name}: fails on pixels of shape {pixels.shape}: {type(error).__name__}: {reason} ({at.filename}, "
            f"line {at.lineno})"
        ) from error
    if not isinstance(features, keras.KerasTensor) or len(features.shape) != 2 or features.shape[1] is None:
        raise OptionError(
            f"{name}: expected features of shape (patch, feature), found "
            f"{getattr(features, 'shape', type(features).__name__)}; a pooling layer may be missing"
        )
    return keras.Model(pixels, features, name="own")


def _make_small(pixels: Any) -> Any:
    """Three convolutions, each halving the patch, then the mean: 0.1 million weights."""
    features = pixels
    for number, filters in enumerate(_SMALL_FILTERS, 1):
        convolution = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"conv{number}")
        features = convolution(features)
        features = keras.layers.BatchNormalization(momentum=_SMALL_MOMENTUM, name=f"conv{number}_bn")(features)
        features = keras.layers.ReLU()(features)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(features), name=SMALL)
