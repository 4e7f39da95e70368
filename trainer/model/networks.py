"""Models: native-resolution pixels in, one logit a class out. What a model must know is saved in it."""

from __future__ import annotations

import inspect
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras

from bigearthnet.errors import OptionError, RunError
from bigearthnet.files import open_regular, write_new
from bigearthnet.store.arrays import ArrayInfo
from trainer.model.layers import ClassLogits, DropFeatures, RandomSymmetry, StandardizeBands
from trainer.run.recipe import SMALL, Recipe

_SMALL_FILTERS: Final = (32, 64, 128)
_SMALL_MOMENTUM: Final = 0.9
"""Of the batch normalisation: trainings of a few hundred steps end before Keras's 0.99 has forgotten its start."""

_RESCALING_NETWORKS: Final = "EfficientNetB"
"""These begin with a fixed division by 255, whatever is asked for; it is undone in front of them."""


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
            pixels = keras.layers.UpSampling2D(factor, interpolation=recipe.resize, dtype="float32")(pixels)
        groups.append(pixels)
    pixels = keras.layers.Concatenate(dtype="float32")(groups) if len(groups) > 1 else groups[0]
    if recipe.augment != "none":
        transpose = recipe.augment == "symmetries"
        pixels = RandomSymmetry(transpose=transpose, seed=recipe.seed, dtype="float32")(pixels)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)  # keras.applications takes no other way
    try:
        features = _apply_network(recipe.network, pixels)
        features = DropFeatures(recipe.dropout, seed=recipe.seed + 1)(features)
        return keras.Model(inputs, ClassLogits(classes, name="logits")(features), name="classifier")
    finally:
        keras.config.set_dtype_policy(policy)


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


def save_model(model: Any, path: Path) -> None:
    """Save a model whole, without optimizer; the old one is there until the new one is."""
    with write_new(path, overwrite=True) as temporary:
        keras.Model(model.input, model.output, name=model.name).save(temporary)


def load_model(path: Path) -> Any:
    """Load a model that `save_model` wrote.

    Raises:
        RunError: There is none, or it cannot be read.
    """
    if not path.is_file():
        raise RunError(f"{path}: there is no model; give what `ben-train fit` wrote")
    try:
        _check_inflation(path)
        model = keras.saving.load_model(path, compile=False)
        describe_model(model)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error
    except Exception as error:  # Keras and zipfile promise nothing about what they raise
        reason = str(error).strip().splitlines()
        raise RunError(f"{path}: cannot be loaded as a model ({reason[0] if reason else error!r})") from error
    return model


def _check_inflation(path: Path) -> None:
    """Refuse a file that holds more than it is large: Keras compresses nothing, and a bomb does."""
    with open(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
        n_bytes, limit = sum(member.file_size for member in archive.infolist()), os.fstat(file.fileno()).st_size
    if n_bytes > limit:
        raise RunError(f"it inflates from {limit:,} to {n_bytes:,} bytes, and a model that Keras wrote does not")


def _apply_network(name: str, pixels: Any) -> Any:
    """Turn pixels (patch, row, col, band) into features (patch, feature)."""
    if name.lower() == SMALL:
        return _apply_small(pixels)
    networks = {known.lower(): (known, network) for known, network in list_networks().items()}
    if name.lower() not in networks:
        raise OptionError(f"no network {name!r}; choose from {SMALL}, {', '.join(sorted(list_networks()))}")
    known, network = networks[name.lower()]
    options = {"include_top": False, "weights": None, "input_shape": tuple(pixels.shape[1:]), "pooling": "avg"}
    if "include_preprocessing" in inspect.signature(network).parameters:
        options["include_preprocessing"] = False
    if known.startswith(_RESCALING_NETWORKS):
        pixels = keras.layers.Rescaling(255.0, dtype="float32")(pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that 1 or 3 bands are usual
            return network(**options)(pixels)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise OptionError(
            f"network {known} does not take patches of shape {options['input_shape']}: {reason}"
        ) from error


def _apply_small(pixels: Any) -> Any:
    """Three convolutions, each halving the patch, then the mean: 0.1 million weights."""
    for filters in _SMALL_FILTERS:
        pixels = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(pixels)
        pixels = keras.layers.BatchNormalization(momentum=_SMALL_MOMENTUM)(pixels)
        pixels = keras.layers.ReLU()(pixels)
    return keras.layers.GlobalAveragePooling2D()(pixels)
